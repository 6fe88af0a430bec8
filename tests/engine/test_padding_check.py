"""Padding changes no number: steps that look across a padded batch are found out."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, data, learner, linear, normed, same
from jaxtyping import Array

import eqxtrain as et


def contrast(y_pred: Array, y_true: Array) -> Array:
    """Each example against all others of the batch."""
    similar = y_pred @ y_pred.T
    return optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(similar)))


def masked_contrast(y_pred: Array, y_true: Array, mask: Any = None) -> Array:
    similar = y_pred @ y_pred.T
    if mask is not None:
        similar = jnp.where(mask[None], similar, -jnp.inf)
    losses = optax.softmax_cross_entropy_with_integer_labels(similar, jnp.arange(len(similar)))
    return losses if mask is None else jnp.where(mask, losses, 0)


def centred(y_pred: Array, y_true: Array) -> Array:
    return CROSS_ENTROPY(y_pred - y_pred.mean(0, keepdims=True), y_true)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [contrast, centred])
def test_a_loss_across_a_padded_batch_is_refused_before_it_is_trained_on(loss: Any) -> None:
    steps: list[int] = []

    class Counts(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            steps.append(run.step)

    x, y = data(21)
    made = et.Learner(linear(), optax.sgd(0.1), loss=loss)
    for fails in (
        lambda: made.evaluate(x, y, batch_size=8, remainder="pad"),
        lambda: made.evaluate(x, y, batch_size=8, remainder="pad", eager=True),
        lambda: made.fit(x, y, batch_size=8, remainder="pad", callbacks=Counts(), verbose=0),
    ):
        with pytest.raises(ValueError, match=r"`loss` depends on the padding.*`mask`"):
            fails()
    assert not steps  # though the padded batch is the last one
    for remainder in ("keep", "drop"):
        made.evaluate(x, y, batch_size=8, remainder=remainder)
    made.evaluate(x[:16], y[:16], batch_size=8, remainder="pad")  # where nothing is padded


@pytest.mark.slow
def test_a_loss_across_an_iterables_padded_batch_is_refused_when_that_comes() -> None:
    x, y = data(21)
    made = et.Learner(linear(), optax.sgd(0.1), loss=contrast)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in (0, 8)]
    made.evaluate(batches, remainder="pad")
    with pytest.raises(ValueError, match="depends on the padding"):
        made.evaluate([*batches, (x[16:], y[16:])], remainder="pad")


@pytest.mark.slow
def test_a_loss_that_heeds_the_mask_gives_what_the_real_rows_give() -> None:
    x, y = data(21)
    made = et.Learner(linear(), optax.sgd(0.1), loss=masked_contrast)
    padded = made.evaluate(x, y, batch_size=8, remainder="pad")["loss"]
    parts = [made.evaluate(x[i : i + 8], y[i : i + 8])["loss"] for i in (0, 8, 16)]
    assert padded == pytest.approx(np.dot(parts, [8, 8, 5]) / 21, rel=1e-5)


def test_a_metric_or_a_step_that_ignores_the_mask_is_named() -> None:
    class Forgets(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, mask: Any) -> Any:
            return jnp.mean(x), {"spread": jnp.std(x)}, state

    x, _ = data(21)
    with pytest.raises(ValueError, match=r"`(loss|spread)` depends.*`Forgets\.test_step`"):
        Forgets(linear(), None).evaluate(x, batch_size=8, remainder="pad")


@pytest.mark.slow
def test_steps_that_look_at_rows_alone_pass() -> None:
    x, y = data(21)
    metrics = {
        "accuracy": et.metrics.Accuracy(),
        "all": et.metrics.Gather(),
        "f1": et.metrics.F1(),
    }
    for made in (learner(Dropped(jr.key(0)), metrics=metrics), learner(metrics=metrics)):
        fitted, history = made.fit(x, y, batch_size=8, remainder="pad", epochs=2, verbose=0)
        assert len(history["loss"]) == 2
        whole = fitted.evaluate(x, y, batch_size=8)
        padded = fitted.evaluate(x, y, batch_size=8, remainder="pad")
        assert padded["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    with pytest.warns(UserWarning, match="padding"):
        normed().fit(x, y, batch_size=8, remainder="pad", verbose=0)


@pytest.mark.slow
def test_looking_for_it_changes_no_bit_and_compiles_nothing() -> None:
    x, y = data(21)
    made = learner(Dropped(jr.key(0)))
    first, history = made.fit(x, y, batch_size=8, remainder="pad", verbose=0)
    with et.max_compiles(0):
        second, again = made.fit(x, y, batch_size=8, remainder="pad", verbose=0)
    assert history["loss"] == again["loss"]
    assert same(first, second)


def test_a_model_that_begins_with_zeros_hides_nothing() -> None:
    x, y = data(21)
    zeros = jax.tree.map(jnp.zeros_like, linear())
    for model in (zeros, linear()):
        made = et.Learner(model, optax.sgd(0.1), loss=contrast)
        with pytest.raises(ValueError, match="depends on the padding"):
            made.evaluate(x, y, batch_size=8, remainder="pad")
        same_rows = [(x[:8], y[:8]), (np.ones((3, 4), np.float32), y[:3])]
        with pytest.raises(ValueError, match="depends on the padding"):
            made.evaluate(same_rows, remainder="pad")


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_predictions_across_a_padded_batch_are_refused(eager: bool) -> None:
    class Centres(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            y_pred = jax.vmap(model)(x)
            return y_pred - jnp.mean(y_pred, axis=0)[None], state

    x, _ = data(21)
    with pytest.raises(ValueError, match=r"`y_pred` depends on.*`Centres\.pred_step`"):
        Centres(linear(), None).predict(x, batch_size=8, remainder="pad", eager=eager)
    made = learner()
    padded = made.predict(x, batch_size=8, remainder="pad", eager=eager)
    np.testing.assert_allclose(padded, made.predict(x, batch_size=8), rtol=1e-5, atol=1e-6)


class Careless(et.Learner[Any]):
    """Reports a loss that heeds the mask, and differentiates one that doesn't."""

    def train_step(self, model: Any, state: Any, x: Array, y_true: Array, mask: Any = None) -> Any:
        def mean(model: Any) -> Any:
            losses = CROSS_ENTROPY(jax.vmap(model)(x), y_true)
            return losses.mean(), losses

        grads, losses = eqx.filter_grad(mean, has_aux=True)(model)
        logs, model, state = self.apply_gradients(model=model, state=state, grads=grads)
        real = jnp.ones(len(x), bool) if mask is None else mask
        return logs | {"loss": jnp.mean(losses, where=real)}, model, state


def only_its_gradient(y_pred: Array, y_true: Array) -> Array:
    mean = y_pred.mean()
    return CROSS_ENTROPY(y_pred, y_true) + mean - jax.lax.stop_gradient(mean)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_a_gradient_across_the_padding_is_refused_though_no_log_shows_it(eager: bool) -> None:
    x, y = data(21)
    warmup = optax.adam(optax.linear_schedule(0.0, 0.1, 10))  # its first step changes no weight
    for made in (
        Careless(linear(), warmup),
        et.Learner(linear(), optax.sgd(0.1), loss=only_its_gradient),
    ):
        with pytest.raises(ValueError, match="the change of model and state depends on the pad"):
            made.fit(x, y, batch_size=8, remainder="pad", verbose=0, eager=eager)
