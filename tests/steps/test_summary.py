"""The summary: its numbers, and that no array is computed for it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
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
    assert [found[p].status for p in ("model.hidden", "model.out")] == ["frozen", "partly"]
    assert found["model.hidden"].parameters == 40 and found["model.hidden"].bytes == 160


def test_shapes_alone_suffice_for_a_model_too_large_for_any_machine() -> None:
    huge = eqx.filter_eval_shape(eqx.nn.Linear, 1_000_000, 1_000_000, key=jr.key(0))
    made = et.Learner(huge, optax.adam(1e-3), loss=CROSS_ENTROPY)
    x = jax.ShapeDtypeStruct((8, 1_000_000), jnp.float32)
    summary = made.summary(x)
    assert summary.trainable == 10**12 + 10**6
    assert summary.rows[0].output == "float32[8,1000000]"
    assert "3.6 TiB" in str(summary)


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
