"""A `train_step` of one's own and `trainable`: the helper that heeds it, and who does not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import same
from jaxtyping import Array

import eqxtrain as et

X = np.ones((4, 2), np.float32)
FREEZE = et.freeze(lambda model: model.layers[0])


def mlp() -> eqx.nn.MLP:
    return eqx.nn.MLP(2, 2, width_size=3, depth=1, key=jr.key(0))


def error(model: Any, x: Array, y: Array) -> Array:
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


class Heedless(et.Learner[eqx.nn.MLP]):
    """It trains everything by itself, at a rate for each layer."""

    rates: tuple[float, float] = (0.1, 0.1)

    def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        loss, grads = eqx.filter_value_and_grad(error)(model, x, y_true)
        scaled = (
            jax.tree.map(lambda g, rate=rate: -rate * g, layer)
            for layer, rate in zip(grads.layers, self.rates, strict=True)
        )
        updates = eqx.tree_at(lambda m: m.layers, grads, tuple(scaled))
        return {"loss": loss}, eqx.apply_updates(model, updates), state


class Heeding(et.Learner[eqx.nn.MLP]):
    """It differentiates what is trainable, and updates it by itself."""

    def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        params, rest = self.partition(model)

        def loss_of(params: Any) -> Array:
            return error(eqx.combine(params, rest), x, y_true)

        loss, grads = eqx.filter_value_and_grad(loss_of)(params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        params = eqx.apply_updates(params, updates)
        return {"loss": loss}, eqx.combine(params, rest), state.update(opt_state=opt_state)


class Following(et.Learner[eqx.nn.MLP]):
    """Its first layer is frozen, and follows the last one by its own rule."""

    def train_step(self, **available: Any) -> Any:
        logs, model, state = super().train_step(**available)
        follow = lambda bias: bias + 0.1 * model.layers[1].bias.mean()
        return logs, eqx.tree_at(lambda m: m.layers[0].bias, model, replace_fn=follow), state


def fit(kind: type[Any], **options: Any) -> Any:
    learner = kind(mlp(), optax.sgd(0.1), loss=optax.squared_error, trainable=FREEZE, **options)
    return learner.fit(X, X, epochs=2, verbose=0).learner.model


@pytest.mark.parametrize("again", [False, True])
def test_a_frozen_leaf_that_a_step_of_ones_own_changes_is_told_by_path(again: bool) -> None:
    """Also by a program that was compiled before."""
    match = r"`Heedless.train_step` changes `model.layers\[0\].weight`, .*bias`.*self.partition"
    with pytest.warns(UserWarning, match=match) as told:
        fit(Heedless)
    assert len(told) == 1


def test_a_step_that_returns_frozen_values_anew_but_the_same_is_not_blamed() -> None:
    assert same(fit(Heedless, rates=(0.0, 0.1)).layers[0], mlp().layers[0])


def test_a_step_whose_first_update_is_zero_is_told_of_at_the_end_of_the_epoch() -> None:
    class Warming(Heedless):
        def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss, grads = eqx.filter_value_and_grad(error)(model, x, y_true)
            rate = jnp.where(state.step == 0, 0.0, 0.1)
            updates = jax.tree.map(lambda g: -rate * g, grads)
            return {"loss": loss}, eqx.apply_updates(model, updates), state

    learner = Warming(mlp(), optax.sgd(0.1), trainable=FREEZE)
    with pytest.warns(UserWarning, match="which `trainable` freezes") as told:
        learner.fit(X, X, epochs=3, batch_size=1, steps_per_call=1, verbose=0)
    assert len(told) == 1


@pytest.mark.slow
def test_eagerly_it_is_told_as_well() -> None:
    learner = Heedless(mlp(), optax.sgd(0.1), trainable=FREEZE)
    with pytest.warns(UserWarning, match="which `trainable` freezes"):
        learner.fit(X, X, eager=True, verbose=0)


def test_the_helper_heeds_trainable() -> None:
    model = fit(Heeding)
    assert same(model.layers[0], mlp().layers[0])
    assert not same(model.layers[1], mlp().layers[1])


def test_what_a_step_that_heeds_trainable_does_besides_is_its_own_affair() -> None:
    model = fit(Following)
    assert not same(model.layers[0].bias, mlp().layers[0].bias)


def test_partition_gives_the_trainable_leaves_and_the_rest() -> None:
    learner = et.Learner(mlp(), None, trainable=FREEZE)
    params, rest = learner.partition(learner.model)
    assert jax.tree.leaves(params.layers[0]) == [] and len(jax.tree.leaves(params)) == 2
    assert same(eqx.combine(params, rest), learner.model)


@pytest.mark.slow
def test_a_run_that_donates_is_told_as_well() -> None:
    learner = Heedless(mlp(), optax.sgd(0.1), trainable=FREEZE)
    with pytest.warns(UserWarning, match="which `trainable` freezes"):
        learner.fit(X, X, donate=True, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_that_updates_frozen_leaves_by_a_state_without_them_is_told_how(eager: bool) -> None:
    class Ported(et.Learner[eqx.nn.MLP]):
        def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss, grads = eqx.filter_value_and_grad(error)(model, x, y_true)
            updates, opt_state = self.optimizer.update(grads, state.opt_state, model)
            return (
                {"loss": loss},
                eqx.apply_updates(model, updates),
                state.update(opt_state=opt_state),
            )

    for optimizer in (optax.adam(0.1), optax.sgd(0.1, momentum=0.9)):
        learner = Ported(mlp(), optimizer, trainable=FREEZE)
        with pytest.raises((TypeError, ValueError)) as raised:
            learner.fit(X, X, verbose=0, eager=eager)
        assert any("had not asked what `trainable` freezes" in n for n in raised.value.__notes__)


def test_another_error_of_such_a_step_gets_no_hint() -> None:
    class Wrong(et.Learner[eqx.nn.MLP]):
        def train_step(self, model: Any, state: Any, x: Array) -> Any:
            raise TypeError("expected a number, got None")

    with pytest.raises(TypeError, match="got None") as raised:
        Wrong(mlp(), optax.adam(0.1), trainable=FREEZE).fit(X, X, verbose=0)
    assert "trainable" not in "".join(raised.value.__notes__)
