"""How often a step is traced, and when a trace is found again."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    CROSS_ENTROPY,
    counting,
    data,
    forget_programs,
    linear,
)
from jaxtyping import Array

import eqxtrain as et


@pytest.mark.slow
def test_equal_batches_trace_once_however_many_epochs() -> None:
    made, traces = counting()
    made.fit(*data(24), epochs=5, batch_size=8, verbose=0)
    assert traces == [(True, 8)]


@pytest.mark.slow
def test_a_short_last_batch_and_validation_trace_once_more_each() -> None:
    made, traces = counting()
    x, y = data(21)
    made.fit(x, y, epochs=5, batch_size=8, validation_data=(x[:8], y[:8]), verbose=0)
    assert traces == [(False, 8), (True, 8), (True, 5)]


@pytest.mark.slow
def test_a_second_fit_and_evaluate_compile_nothing() -> None:
    forget_programs()
    made, traces = counting()
    x, y = data(24)
    fitted, first = made.fit(x, y, batch_size=8, verbose=0)
    fitted.evaluate(x, y, batch_size=8)
    fitted.predict(x, batch_size=8)
    before = len(traces)
    again, second = fitted.fit(x, y, batch_size=8, verbose=0)
    again.evaluate(x, y, batch_size=8)
    assert len(traces) == before
    assert len(first.timing.compilations) == 1 and second.timing.compilations == []


def test_a_fresh_learner_of_the_same_parts_compiles_nothing() -> None:
    optimizer = optax.adam(1e-2)
    x, y = data(24)
    et.Learner(linear(0), optimizer, loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    _, history = et.Learner(linear(1), optimizer, loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    assert history.timing.compilations == []


@pytest.mark.slow
def test_a_file_loaded_again_compiles_nothing(tmp_path: Any) -> None:
    made, traces = counting()
    x, y = data(24)
    fitted, _ = made.fit(x, y, verbose=0)
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", fitted)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", made.init())
    before = len(traces)
    loaded.fit(x, y, verbose=0)
    assert len(traces) == before


def test_hyperparameters_are_programs_by_type_as_well_as_value() -> None:
    class Scaled(et.Learner[Any]):
        scale: Any = 1

        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.asarray(self.scale) * jnp.ones(len(x), jnp.asarray(self.scale).dtype), state

    x, _ = data()
    dtypes = [Scaled(linear(), None, scale=s).predict(x).dtype for s in (1, 1.0, True)]
    assert dtypes == [np.int32, np.float32, np.bool_]
