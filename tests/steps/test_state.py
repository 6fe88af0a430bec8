"""`LearnerState`: its fields, its keys, and logs folded into it by hand."""

from dataclasses import FrozenInstanceError
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import learner, same

import eqxtrain as et
from eqxtrain.metrics import Accuracy, Gather, Last, Mean, Std, _logs


class GANState(et.LearnerState):
    """A state with an optimizer more."""

    d_opt: Any = None


def test_a_state_made_without_arguments_is_at_step_0_of_key_0() -> None:
    state = et.LearnerState()
    assert state.step.dtype == jnp.int32 and state.step.tolist() == 0
    assert state.metrics == {} and state.opt_state is None and state.model_state is None
    assert jnp.array_equal(state.key, jr.key_data(jr.key(0)))


def test_typed_and_raw_keys_are_stored_alike_as_raw_data() -> None:
    typed, raw = et.LearnerState(key=jr.key(7)), et.LearnerState(key=jr.PRNGKey(7))
    assert same(typed, raw)
    assert typed.key.dtype == jnp.uint32 and not jnp.issubdtype(
        typed.key.dtype, jax.dtypes.prng_key
    )


def test_update_gives_a_new_state_and_leaves_the_old_one() -> None:
    old = GANState(d_opt=1)
    new = old.update(opt_state=jnp.ones(2), step=jnp.int32(3))
    assert type(new) is GANState and new.d_opt == 1
    assert (int(new.step), int(old.step)) == (3, 0) and old.opt_state is None


def test_update_of_an_unknown_field_lists_the_fields() -> None:
    sentence = (
        r"`GANState` has no field `optstate`, `epoch`. Its fields are model_state, step, key, "
        r"metrics, averages, opt_state, d_opt..*`MyState.from_state\(state, ...\)`"
    )
    with pytest.raises(TypeError, match=sentence):
        GANState().update(optstate=1, epoch=2, step=0)  # pyright: ignore[reportCallIssue]


def test_assigning_to_a_state_says_to_update_it() -> None:
    with pytest.raises(FrozenInstanceError, match=r"`GANState.step` .*state.update\(step=...\)`"):
        GANState().step = 3


def test_a_state_of_ones_own_is_made_from_another() -> None:
    state = et.LearnerState(opt_state=jnp.ones(2), key=jr.key(3), step=jnp.int32(5))
    mine = GANState.from_state(state, d_opt=jnp.zeros(1), step=jnp.int32(6))
    assert type(mine) is GANState and mine.d_opt.shape == (1,)
    assert mine.opt_state is state.opt_state and jnp.array_equal(mine.key, state.key)
    assert mine.step == 6
    assert type(et.LearnerState.from_state(mine)) is et.LearnerState


def test_fields_that_a_class_does_not_declare_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"`GANState` has no field `g_opt`\. Its fields are .*: declare it"
    ):
        GANState.from_state(et.LearnerState(), g_opt=1)


def test_a_fresh_state_is_a_tree_of_arrays_that_serialises(tmp_path: Any) -> None:
    state = et.LearnerState(key=jr.key(3), step=jnp.int32(2))
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    assert same(eqx.tree_deserialise_leaves(tmp_path / "state.eqx", et.LearnerState()), state)


def logs_of(value: jax.Array) -> dict[str, Any]:
    return {
        "loss": value,
        "accuracy": Accuracy().update(value[None], jnp.ones(1, jnp.int32)),
        "std": Std.of(value),
        "last": Last.of(value),
        "weighted": Mean.of(value, 2 * value),
    }


@pytest.mark.slow
def test_advance_in_a_scan_gives_what_a_python_loop_gives() -> None:
    values = jnp.array([0.1, 0.7, 0.9, 0.4])
    state = et.LearnerState()
    for value in values:
        state = state.advance(logs_of(value), weight=3)

    @eqx.filter_jit
    def scanned(state: et.LearnerState) -> et.LearnerState:
        step = lambda state, value: (state.advance(logs_of(value), weight=3), None)
        return jax.lax.scan(step, state.begin(logs_of(values[0])), values)[0]

    fused = scanned(et.LearnerState())
    assert fused.step == state.step == 4 and fused.step.dtype == jnp.int32
    looped = _logs.compute(state.metrics)
    for name, value in _logs.compute(fused.metrics).items():
        np.testing.assert_allclose(value, looped[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(looped["loss"], np.mean(values), rtol=1e-6)
    assert looped["last"] == values[-1]


def test_begin_takes_shapes_and_measures_nothing() -> None:
    shapes = eqx.filter_eval_shape(logs_of, jnp.float32(1))
    begun = et.LearnerState().begin(shapes)
    assert all(jnp.isnan(value) for value in _logs.compute(begun.metrics).values())
    assert begun.step == 0
    once = begun.advance(logs_of(jnp.float32(0.5)))
    kinds = lambda state: jax.tree.map(jax.typeof, eqx.filter(state, eqx.is_array))
    assert eqx.tree_equal(kinds(once), kinds(begun))


def test_bare_scalars_stand_for_the_weight_they_are_given() -> None:
    state = et.LearnerState().advance({"a": jnp.float32(1)}, weight=3)
    state = state.advance({"a": jnp.float32(9)}, weight=jnp.int32(1))
    state = state.advance({"a": jnp.float32(jnp.nan)}, weight=0)
    assert state.metrics["a"].compute() == 3 and state.step == 3


def test_emissions_are_kept_by_a_loop_of_ones_own() -> None:
    state = et.LearnerState().advance({"g": Gather.of(jnp.array([1.0, 2.0]))})
    state = state.advance({"g": Gather.of(jnp.array([3.0]))})
    assert state.metrics["g"].compute().tolist() == [1, 2, 3]


def test_advance_refuses_what_cannot_be_folded() -> None:
    with pytest.raises(TypeError, match="`advance` logs `a` as a `float`"):
        et.LearnerState().advance({"a": 1.0})
    with pytest.raises(ValueError, match="`b` is gone"):
        state = et.LearnerState().advance({"a": jnp.float32(1), "b": jnp.float32(1)})
        state.advance({"a": jnp.float32(1)})


@pytest.mark.usefixtures("unchecked")
def test_states_of_a_wrong_kind_get_a_sentence_each() -> None:
    made = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="batch")
    wrong: Any = {"mean": jnp.zeros(3)}
    with pytest.raises(TypeError, match=r"`model_state` is a `dict`, not .*make_with_state"):
        learner(model_state=wrong)
    wrong = learner().init().state
    with pytest.raises(TypeError, match=r"`model_state` is a `LearnerState`.*goes to `state`"):
        learner(model_state=wrong)
    with pytest.raises(TypeError, match=r"`state` is a `State`.*goes to `model_state`"):
        learner(state=made[1])
    with pytest.raises(TypeError, match=r"`model` is the pair .*unpack it"):
        learner(made)
    assert learner(made[0], model_state=made[1]).model_state is made[1]
