"""What each part of a model returns, from tracing a step on shapes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import Dropped, data, normed
from jaxtyping import Array

import eqxtrain as et


def rows(summary: et.Summary) -> dict[str, et.Row]:
    return {row.path: row for row in summary.rows}


def test_outputs_are_those_of_the_whole_batch_and_of_one_call_of_each_part() -> None:
    found = rows(normed().summary(data()[0]))
    assert found["model"].output == "float32[21,3]"
    assert found["model.hidden"].output == "float32[8]"
    assert found["model.norm"].output == "float32[8]"


def test_outputs_follow_an_overridden_pred_step() -> None:
    class Two(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            hidden = jax.vmap(model.hidden)(x)
            return {"hidden": hidden, "out": (jax.vmap(model.out)(hidden),)}, state

    found = rows(Two(Dropped(jr.key(0)), None).summary(data()[0]))
    assert found["model"].output == "{hidden: float32[21,8], out: (float32[21,3])}"
    assert "model.dropout" not in found  # it was not called and holds nothing


def test_a_part_called_twice_with_other_shapes_shows_both() -> None:
    class Twice(eqx.Module):
        inner: Any

        def __call__(self, x: Array) -> Array:
            return jnp.concatenate([self.inner(x), self.inner(jnp.concatenate([x, x]))])

    class Scale(eqx.Module):
        factor: Array

        def __call__(self, x: Array) -> Array:
            return self.factor * x

    found = rows(et.Learner(Twice(Scale(jnp.ones(()))), None).summary(data()[0]))
    assert found["model.inner"].output == "float32[4] | float32[8]"


@pytest.mark.parametrize("wrap", [tuple, list])
def test_models_that_are_containers_have_rows_too(wrap: Any) -> None:
    class Chain(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return jax.vmap(model[1])(jax.vmap(model[0])(x)), state

    model = wrap([eqx.nn.Linear(4, 2, key=jr.key(0)), eqx.nn.Linear(2, 2, key=jr.key(1))])
    found = rows(Chain(model, None).summary(data()[0]))
    assert found["model[1]"].output == "float32[2]"
    assert np.isclose(found["model[0]"].parameters, 10)
