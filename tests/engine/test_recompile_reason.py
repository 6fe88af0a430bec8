"""The reason that the record of compiles gives."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, learner, linear
from jaxtyping import Array

import eqxtrain as et


@pytest.mark.slow
def test_the_reason_names_the_leaf_that_changed() -> None:
    class Scaled(et.Learner[Any]):
        scale: Any = 1.0
        name: str = "a"

        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            bias = jnp.sum(model.bias).astype(jnp.float32)
            return bias * jnp.asarray(self.scale, jnp.float32), {}, state

    x, _ = data(8)
    made = Scaled(linear(), optax.sgd(0.1)).init()

    def reason(changed: et.Learner[Any], x: np.ndarray = x) -> str:
        _, history = changed.fit(x, batch_size=8, verbose=0)
        return history.timing.compilations[0].reason

    assert reason(made) == "first"
    assert reason(made.replace(scale=2.0)) == "`learner.scale`: 1.0 → 2.0"
    _, history = made.replace(name="b").fit(x, batch_size=8, verbose=0)
    assert history.timing.compilations == []  # nothing depends on it
    assert reason(made, x.astype(np.float16)) == "`batch[0]`: float32[8,4] → float16[8,4]"
    half = eqx.tree_at(lambda m: m.bias, linear(), jnp.zeros(3, jnp.float16))
    changed = Scaled(half, optax.sgd(0.1)).init()
    assert reason(changed) == "`model.bias`: float32[3] → float16[3]"


@pytest.mark.slow
def test_what_shared_a_program_is_what_the_next_reason_compares_with() -> None:
    x, y = data(8)

    forget_programs()
    made = learner()
    made.evaluate(x, y)
    other = made.replace(optimizer=optax.sgd(0.1), state=None)
    with et.max_compiles(0):
        other.evaluate(x, y)
    with et.max_compiles(1) as compilations:
        other.replace(loss=lambda y_pred, y_true: 2 * CROSS_ENTROPY(y_pred, y_true)).evaluate(x, y)
    assert "loss" in compilations[0].reason and "optimizer" not in compilations[0].reason
