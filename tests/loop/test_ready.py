"""Making the state of a learner, and keeping it in step with the learner."""

import importlib
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import (
    CROSS_ENTROPY,
    Normed,
    arrays,
    data,
    learner,
    linear,
    normed,
    same,
)
from jaxtyping import Array

import eqxtrain as et


def test_init_moves_the_model_state_so_that_no_leaf_stands_twice() -> None:
    made = normed().init()
    assert made.model_state is None and made.state is not None
    assert made.state.model_state is not None


@pytest.mark.slow
def test_init_anew_starts_from_the_model_and_refuses_to_lose_a_model_state() -> None:
    x, y = data()
    fitted, _ = learner().fit(x, y, verbose=0)
    anew = fitted.init(key=jr.key(5))
    assert same(anew.model, fitted.model)
    assert anew.state is not None and int(anew.state.step) == 0
    stateful, _ = normed().fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="would lose the `model_state`"):
        stateful.init()
    assert stateful.state is not None
    again = stateful.replace(state=None, model_state=stateful.state.model_state).init()
    assert again.state is not None
    assert same(again.state.model_state, stateful.state.model_state)


def test_a_stateful_model_without_its_state_is_refused_by_path() -> None:
    model, _ = eqx.nn.make_with_state(Normed)(jr.key(0))
    with pytest.raises(ValueError, match=r"model\.norm.*make_with_state"):
        learner(model).init()


def test_the_key_is_raw_data_folded_so_that_it_differs_from_the_users() -> None:
    state = learner().init(key=jr.key(7)).state
    assert state is not None and state.key.dtype == jnp.uint32
    assert not np.array_equal(np.asarray(state.key), np.asarray(jr.key_data(jr.key(7))))
    raw = learner().init(key=jr.PRNGKey(7)).state
    assert same(state, raw)


@pytest.mark.usefixtures("unchecked")
def test_keys_of_another_kind_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="one key"):
        learner().init(key=jr.split(jr.key(0)))
    with pytest.raises(ValueError, match="jax_default_prng_impl"):
        learner().init(key=jr.key(0, impl="rbg"))


@pytest.mark.slow
def test_replace_keeps_the_optimizer_state_while_its_structure_stays() -> None:
    x, y = data()
    fitted, _ = learner().fit(x, y, verbose=0)
    assert fitted.state is not None
    other = fitted.replace(optimizer=optax.adam(1e-4))
    assert same(other.state, fitted.state)
    renewed = fitted.replace(optimizer=optax.sgd(1e-2, momentum=0.9))
    assert renewed.state is not None
    assert int(renewed.state.step) == int(fitted.state.step)
    assert same(renewed.state.key, fitted.state.key)
    assert not any(np.any(a) for a in arrays(renewed.state.opt_state))
    renewed.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "change",
    [
        {"model": eqx.nn.Linear(4, 3, use_bias=False, key=jr.key(0))},
        {"optimizer": optax.sgd(0.1)},
        {"trainable": et.freeze(lambda m: m.bias)},
    ],
)
def test_a_state_of_another_model_or_optimizer_is_refused_by_path(change: dict[str, Any]) -> None:
    state = learner().init().state
    fields: dict[str, Any] = {"model": linear(), "optimizer": optax.adam(1e-2)} | change
    other: et.Learner[Any] = et.Learner(**fields, loss=CROSS_ENTROPY, state=state)
    with pytest.raises(ValueError, match=r"belongs to another model.*state\.opt_state"):
        other.fit(*data(), verbose=0)


def test_a_model_that_shares_an_array_is_trained_apart_with_a_warning() -> None:
    first = linear()
    tied = {"a": first, "b": eqx.tree_at(lambda m: m.weight, linear(1), first.weight)}

    class Both(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Any) -> Any:
            return jax.vmap(model["a"])(x) + jax.vmap(model["b"])(x), state

    x, y = data()
    with pytest.warns(UserWarning, match=r"model\['b'\].weight.*eqx\.nn\.Shared"):
        fitted, _ = Both(tied, optax.adam(0.1), loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    assert not same(fitted.model, tied)


def test_typed_keys_in_the_state_get_a_sentence() -> None:
    class Keyed(et.LearnerState):
        noise: Any = None

    class Bad(et.Learner[Any]):
        def states_step(self, model: Any, key: Any) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            return Keyed.from_state(state, noise=key)

    with pytest.raises(TypeError, match=r"state\.noise.*key_data"):
        Bad(linear(), None).init()


@pytest.mark.slow
def test_replace_moves_a_model_state_into_the_state() -> None:
    x, y = data()
    trained, _ = normed().fit(x, y, epochs=2, verbose=0)
    fresh = normed().init()
    assert fresh.state is not None
    changed = trained.replace(model_state=fresh.state.model_state)
    assert changed.model_state is None and changed.state is not None
    assert same(changed.state.model_state, fresh.state.model_state)
    assert jax.tree.structure(changed) == jax.tree.structure(trained)
    assert changed.evaluate(x, y) != trained.evaluate(x, y)
    assert same(trained.replace(model_state=None), trained)


def test_replace_keeps_a_state_that_the_learner_makes_itself() -> None:
    class Own(et.Learner[Any]):
        def init_step(self, model: Any, key: Any) -> Any:
            state = self.states_step(model=model, key=key)
            return model, state.update(opt_state={"mine": jnp.ones(3)})

    made = Own(linear(), None).init()
    changed = made.replace(model=linear(1))
    assert changed.state is not None and "mine" in changed.state.opt_state


@pytest.mark.slow
def test_replacing_the_optimizer_makes_its_state_anew_where_states_are_ones_own() -> None:
    class Two(et.LearnerState):
        other: Any = None

    class Own(et.Learner[Any]):
        second: Any = None

        def states_step(self, model: Any, key: Any) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            params = eqx.filter(model, eqx.is_inexact_array)
            return Two.from_state(state, other=self.second.init(params))

    x, y = data()
    made = Own(linear(), optax.adam(0.1), loss=CROSS_ENTROPY, second=optax.adam(0.1))
    fitted, _ = made.fit(x, y, verbose=0)
    changed = fitted.replace(optimizer=optax.sgd(0.1, momentum=0.9))
    assert isinstance(changed.state, Two) and isinstance(fitted.state, Two)
    assert same(changed.state.other, fitted.state.other)
    assert int(changed.state.step) == 1 and same(changed.state.key, fitted.state.key)
    changed.fit(x, y, verbose=0)
    both = fitted.replace(optimizer=optax.sgd(0.1), second=optax.sgd(0.1))
    assert isinstance(both.state, Two) and not jax.tree.leaves(both.state.other)


@pytest.mark.usefixtures("unchecked")
def test_a_key_that_is_no_key_gets_a_sentence() -> None:
    wrong: Any = 3
    made: Any = learner()
    with pytest.raises(TypeError, match="give a random key"):
        made.init(key=wrong)


def test_weights_that_a_step_would_lose_are_warned_of() -> None:
    class Loses(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            y_pred, state = self.pred_step(model=model, state=state, x=x)
            loss, logs = self.measure(y_pred=y_pred, y_true=y_true)
            return loss, logs, state

    x, y = data()
    made = Loses(linear(), None, loss=CROSS_ENTROPY)
    with pytest.warns(UserWarning, match=r"`Loses.test_step` does not ask for `sample_weight`"):
        made.evaluate(x, y, sample_weight=np.ones(21, np.float32))
    batch = {"x": x, "y_true": y, "sample_weight": np.ones(21, np.float32)}
    with pytest.warns(UserWarning, match=r"does not ask for `sample_weight`"):
        made.evaluate(batch)


def test_a_model_state_of_another_model_is_refused_by_path() -> None:
    class Wrapped(eqx.Module):
        inner: Normed

        def __init__(self, key: Any) -> None:
            self.inner = Normed(key)

        def __call__(self, x: Any, state: Any) -> Any:
            return self.inner(x, state)

    x, y = data()
    fitted, _ = normed().fit(x, y, verbose=0)
    model, model_state = eqx.nn.make_with_state(Wrapped)(jr.key(1))
    stateless, _ = learner().fit(x, y, verbose=0)
    for foreign in (fitted.replace(model=model), stateless.replace(model=model)):
        for call in (foreign.fit, foreign.evaluate):
            with pytest.raises(ValueError, match=r"no `model_state` for `model\.inner\.norm"):
                call(x, y, verbose=0)
        foreign.replace(model_state=model_state).fit(x, y, verbose=0)


def test_predicting_does_not_warn_of_weights_that_only_a_test_step_would_use() -> None:
    class Own(et.Learner[eqx.nn.Linear]):
        def test_step(self, model: eqx.nn.Linear, state: Any, x: Array, y_true: Array) -> Any:
            return jnp.mean((jax.vmap(model)(x) - y_true) ** 2), {}, state

    x, _ = data()
    made = Own(linear(), optax.sgd(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.predict({"x": x, "sample_weight": np.ones(len(x), np.float32)})


def test_init_takes_sparse_matrices_as_fit_does() -> None:
    class Made(et.Learner[Any]):
        def init_step(self, x: Array, key: Array) -> Any:
            model = eqx.nn.Linear(x.shape[-1], 1, key=key)
            return model, self.states_step(model=model, key=key)

    x, _ = data()
    sparse = importlib.import_module("scipy.sparse").csr_matrix(x)
    assert same(
        Made(None, optax.sgd(0.1)).init(sparse).model, Made(None, optax.sgd(0.1)).init(x).model
    )
