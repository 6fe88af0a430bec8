"""The statistics of BatchNorm, recomputed from data, against NumPy and PyTorch's `update_bn`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, library, same

import eqxtrain as et


class TwoNorms(eqx.Module):
    first: eqx.nn.BatchNorm
    linear: eqx.nn.Linear
    second: eqx.nn.BatchNorm

    def __init__(self, mode: Any) -> None:
        self.first = eqx.nn.BatchNorm(4, "batch", mode=mode)
        self.linear = eqx.nn.Linear(4, 3, key=jr.key(0))
        self.second = eqx.nn.BatchNorm(3, "batch", mode=mode)

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.first(x, state)
        return self.second(self.linear(x), state)


def predicted(learner: et.Learner[Any], x: np.ndarray) -> np.ndarray:
    with jax.numpy_dtype_promotion("standard"):  # BatchNorm raises a float to an integer power
        return learner.predict(x)


def state_of(learner: et.Learner[Any]) -> et.LearnerState:
    assert learner.state is not None
    return learner.state


def made(mode: str = "batch") -> et.Learner[Any]:
    model, model_state = eqx.nn.make_with_state(TwoNorms)(mode)
    return et.Learner(model, optax.sgd(0.1), loss=CROSS_ENTROPY, model_state=model_state, ema=0.9)


def by_hand(model: Any, x: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, ...]:
    """Mean and variance of what both layers see, as means over the batches by their rows."""
    found: list[list[np.ndarray]] = []
    for rows in np.split(x, np.cumsum(sizes)[:-1]):
        mean, var = rows.mean(0), rows.var(0)
        out = (rows - mean) / np.sqrt(var + 1e-5) @ np.asarray(model.linear.weight).T
        out = out + np.asarray(model.linear.bias)
        found.append([mean, var, out.mean(0), out.var(0)])
    return tuple(np.average(column, axis=0, weights=sizes) for column in zip(*found, strict=True))


def normalised(model: Any, x: np.ndarray, statistics: tuple[np.ndarray, ...]) -> np.ndarray:
    mean, var, mean2, var2 = statistics
    out = (x - mean) / np.sqrt(var + 1e-5) @ np.asarray(model.linear.weight).T
    return (out + np.asarray(model.linear.bias) - mean2) / np.sqrt(var2 + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_each_layer_has_the_mean_over_the_batches(mode: str) -> None:
    x, _ = data(21)
    x = 3 * x + 1
    fresh = made(mode).init()  # whose scales are 1 and shifts 0, so that NumPy need not know them
    after = fresh.recompute_statistics(x, batch_size=8)
    statistics = by_hand(fresh.model, x, [8, 8, 5])
    np.testing.assert_allclose(
        predicted(after, x), normalised(fresh.model, x, statistics), rtol=2e-4, atol=2e-4
    )
    assert same(after.model, fresh.model) and int(state_of(after).step) == 0
    assert same(state_of(after).key, state_of(fresh).key)
    again = after.recompute_statistics(x, batch_size=8)  # what was there before plays no part
    assert same(state_of(again).model_state, state_of(after).model_state)
    two = fresh.recompute_statistics(((x[i : i + 8],) for i in (0, 8)), steps=2)
    statistics = by_hand(fresh.model, x[:16], [8, 8])
    np.testing.assert_allclose(
        predicted(two, x), normalised(fresh.model, x, statistics), rtol=2e-4, atol=2e-4
    )


@pytest.mark.slow
def test_averaged_weights_get_statistics_of_their_own() -> None:
    x, y = data(24)
    fitted, _ = made().fit(x, y, batch_size=8, epochs=2, verbose=0)
    averaged = fitted.averaged().recompute_statistics(x, batch_size=8)
    assert same(averaged.model, fitted.averaged().model)
    assert not same(state_of(averaged).model_state, state_of(fitted).model_state)
    assert same(state_of(averaged).opt_state, state_of(fitted).opt_state)
    predicted(fitted, x)  # the learner stays usable


@pytest.mark.slow
def test_it_agrees_with_update_bn() -> None:
    torch = library("torch")
    x, _ = data(24)
    fresh = made().init()
    layer = torch.nn.BatchNorm1d(4)
    batches = [torch.tensor(rows) for rows in np.split(x, 3)]
    torch.optim.swa_utils.update_bn(batches, layer)
    after = fresh.recompute_statistics(x, batch_size=8)
    model_state: Any = state_of(after).model_state
    kept = model_state.get(after.model.first.batch_state_index)
    mean, var = (leaf / (1 - 0.99) for leaf in kept)  # of one update, with a momentum of 0.99
    np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-4, atol=1e-6)
    biased = layer.running_var.numpy() * 7 / 8  # PyTorch divides by one less than the rows
    np.testing.assert_allclose(var, biased, rtol=1e-4)


def test_a_model_without_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a `Linear`, has no `eqx.nn.BatchNorm` layer"):
        learner().recompute_statistics(jnp.zeros((8, 4)))


def test_layers_that_are_not_trained_keep_their_statistics() -> None:
    x, y = data(24)
    fitted, _ = made().fit(x, y, batch_size=8, verbose=0)
    frozen = eqx.tree_at(lambda m: m.first, fitted.model, replace_fn=eqx.nn.inference_mode)
    still = fitted.replace(model=frozen)
    with jax.numpy_dtype_promotion("standard"):  # a frozen BatchNorm needs it
        after = still.recompute_statistics(3 * x, batch_size=8)
    before_state, after_state = state_of(still).model_state, state_of(after).model_state
    assert before_state is not None and after_state is not None
    first, second = frozen.first.batch_state_index, frozen.second.batch_state_index
    assert same(after_state.get(first), before_state.get(first))
    assert not same(after_state.get(second), before_state.get(second))


class CallsOne(TwoNorms):
    def __call__(self, x: Any, state: Any) -> Any:
        return self.second(self.linear(x), state)


def test_a_layer_that_is_never_called_keeps_its_statistics() -> None:
    make: Any = CallsOne
    model, model_state = eqx.nn.make_with_state(make)("batch")
    begun = et.Learner(model, optax.sgd(0.1), loss=CROSS_ENTROPY, model_state=model_state).init()
    after = begun.recompute_statistics(data(24)[0], batch_size=8)
    before_state, after_state = state_of(begun).model_state, state_of(after).model_state
    assert before_state is not None and after_state is not None
    index = model.first.batch_state_index
    assert same(after_state.get(index), before_state.get(index))
