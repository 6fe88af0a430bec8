"""The summary: its numbers, and that no array is computed for it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, arrays, data, learner, linear, normed
from jaxtyping import Array

import eqxtrain as et


def rows(summary: et.Summary) -> dict[str, et.Row]:
    return {row.path: row for row in summary.rows}


def test_totals_count_every_parameter_once() -> None:
    made = normed(trainable=et.freeze(lambda m: m.hidden)).init()
    summary = made.summary(data()[0])
    count = sum(a.size for a in arrays(made.model))
    assert summary.trainable + summary.frozen == count
    assert summary.frozen == 4 * 8 + 8
    assert made.state is not None
    assert summary.optimizer_state[0] == sum(a.size for a in arrays(made.state.opt_state))
    assert summary.model_state[0] == sum(a.size for a in arrays(made.state.model_state))
    assert sum(row.bytes for row in summary.rows) == sum(a.nbytes for a in arrays(made.model))


def test_rows_say_path_type_arrays_and_status() -> None:
    made = learner(Dropped(jr.key(0)), trainable=et.freeze(lambda m: (m.hidden, m.out.bias)))
    found = rows(made.summary())
    assert found["model"].type == "Dropped"
    assert found["model.hidden"].arrays == ("weight float32[8,4]", "bias float32[8]")
    assert [found[p].status for p in ("model.hidden", "model.out")] == ["frozen", "in part"]
    assert found["model.hidden"].parameters == 40 and found["model.hidden"].bytes == 160


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


def test_shapes_alone_suffice_for_a_model_too_large_for_any_machine() -> None:
    huge = eqx.filter_eval_shape(eqx.nn.Linear, 1_000_000, 1_000_000, key=jr.key(0))
    made = et.Learner(huge, optax.adam(1e-3), loss=CROSS_ENTROPY)
    x = jax.ShapeDtypeStruct((8, 1_000_000), jnp.float32)
    summary = made.summary(x)
    assert summary.trainable == 10**12 + 10**6
    assert summary.rows[0].output == "float32[8,1000000]"
    assert "3.6 TB" in str(summary)


def test_nothing_is_compiled_and_the_learner_is_not_changed() -> None:
    made = learner()
    with jax.log_compiles(), jax.transfer_guard("disallow"):
        made.summary(jax.ShapeDtypeStruct((2, 4), jnp.float32))
    assert made.state is None


def test_it_works_before_and_after_init_and_where_the_batch_makes_the_model() -> None:
    made = learner()
    x, _ = data()
    assert str(made.summary(x)) == str(made.init().summary(x))

    class Lazy(et.Learner[Any]):
        def init_step(self, x: Array, key: Array) -> Any:
            model = eqx.nn.Linear(x.shape[-1], 2, key=key)
            return model, self.states_step(model=model, key=key)

    assert Lazy(None, optax.sgd(0.1)).summary(x).trainable == 10


def test_a_rung_of_its_own() -> None:
    class Brief(et.Learner[Any]):
        def summary_step(self, **available: Any) -> list[et.Row]:
            return super().summary_step(**available)[:1]

    assert len(Brief(linear(), None).summary(data()[0]).rows) == 1


def test_text_and_html_hold_the_same_and_escape_it() -> None:
    class Odd(eqx.Module):
        parts: dict[str, Any]

        def __call__(self, x: Array) -> Array:
            return self.parts["<a>"](x)

    summary = et.Learner(Odd({"<a>": linear()}), None).summary(data()[0])
    assert "model.parts['<a>']" in str(summary) and "Trainable:" in str(summary)
    page = summary._repr_html_()
    assert "&lt;a&gt;" in page and "<a>" not in page


def test_lines_of_the_table_are_aligned() -> None:
    lines = str(learner(Dropped(jr.key(0))).summary(data()[0])).splitlines()
    column = lines[0].index("Type")
    assert all(line[column - 1] == " " for line in lines[2:6])


@pytest.mark.parametrize("wrap", [tuple, list])
def test_models_that_are_containers_have_rows_too(wrap: Any) -> None:
    class Chain(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return jax.vmap(model[1])(jax.vmap(model[0])(x)), state

    model = wrap([eqx.nn.Linear(4, 2, key=jr.key(0)), eqx.nn.Linear(2, 2, key=jr.key(1))])
    found = rows(Chain(model, None).summary(data()[0]))
    assert found["model[1]"].output == "float32[2]"
    assert np.isclose(found["model[0]"].parameters, 10)
