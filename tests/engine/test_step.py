"""One step on one batch: what it may change, and what it must not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import data, linear
from jaxtyping import Array

import eqxtrain as et


def test_evaluation_reads_the_optimizers_state_and_cannot_change_it() -> None:
    class Averages(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, training: bool) -> Any:
            count = state.opt_state[0].count
            new = jax.tree.map(jnp.zeros_like, state.opt_state)
            state = state if training else state.update(opt_state=new)
            return jnp.sum(model.bias), {"count": count.astype(jnp.float32)}, state

    fitted, _ = Averages(linear(), optax.adam(0.1)).fit(data()[0], batch_size=7, verbose=0)
    assert fitted.evaluate(data()[0], batch_size=7)["count"] == 3.0


def test_a_training_step_that_changes_a_structure_is_refused_by_path() -> None:
    class Promotes(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, x: Array) -> Any:
            bias = model.bias.astype(jnp.float16)
            return {}, eqx.tree_at(lambda m: m.bias, model, bias), state

    class Counts(et.LearnerState):
        n: int = 0

    class Counting(et.Learner[Any]):
        def states_step(self, model: Any, key: Array) -> et.LearnerState:
            return Counts.from_state(super().states_step(model=model, key=key))

        def train_step(self, model: Any, state: Any, x: Array) -> Any:
            return {}, model, state.update(n=state.n + 1)

    x, _ = data()
    with pytest.raises(TypeError, match=r"`model\.bias`: float32\[3\] → float16\[3\]"):
        Promotes(linear(), None).fit(x, verbose=0)
    with pytest.raises(TypeError, match=r"`state\.n`: 0 → 1.*not in Python numbers"):
        Counting(linear(), None).fit(x, verbose=0)


def test_logs_that_change_from_batch_to_batch_are_refused_by_name() -> None:
    class Moody(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            logs = {"short": jnp.ones(())} if len(x) < 8 else {}
            return jnp.sum(model.bias), logs, state

    with pytest.raises(ValueError, match="`short` is new"):
        Moody(linear(), None).evaluate(data()[0], batch_size=8)


def test_predictions_without_a_batch_axis_are_refused() -> None:
    class Mean(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return {"mean": jnp.mean(x, axis=0)}, state

    with pytest.raises(ValueError, match=r"y_pred\['mean'\].*\(4,\).*batch of 21"):
        Mean(linear(), None).predict(data()[0])


@pytest.mark.slow
def test_keys_of_a_step_differ_from_those_a_model_was_built_with() -> None:
    class Keyed(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, key: Array) -> Any:
            noise = et.metrics.Gather.of(jr.key_data(key)[None].repeat(7, 0))
            return jnp.sum(model.bias), {"key": noise}, state

    made = Keyed(linear(), optax.sgd(0.1))
    _, history = made.fit(data()[0], batch_size=7, verbose=0, validation_data=(data()[0],))
    keys = [history["key"][0][::7], history["val_key"][0][::7]]
    drawn = {tuple(row) for rows in keys for row in rows.tolist()}
    users = {tuple(np.asarray(jr.key_data(k)).tolist()) for k in jr.split(jr.key(0), 100)}
    assert len(drawn) == 6 and not drawn & users
