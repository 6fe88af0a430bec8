"""The reason that the record of compiles gives."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import data, linear
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
