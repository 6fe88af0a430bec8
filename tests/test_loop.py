"""`fit`: its laws, its numbers against loops by hand, interruption and failure."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, data, learner, linear, normed, same
from jax.core import Tracer
from jaxtyping import Array

import eqxtrain as et


def dropped(**fields: Any) -> et.Learner[Any]:
    return learner(Dropped(jr.key(0)), **fields)


@pytest.mark.parametrize("make", [dropped, normed])
def test_fitting_twice_for_two_epochs_equals_fitting_once_for_four(make: Any) -> None:
    x, y = data(21)
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0}
    whole, history = make().fit(x, y, epochs=4, **options)
    half, first = make().fit(x, y, epochs=2, **options)
    again, second = half.fit(x, y, epochs=2, **options)
    assert same(whole, again)
    for name in history:
        assert history[name] == first[name] + second[name]


def test_a_second_fit_sees_a_new_order_and_a_rerun_the_same() -> None:
    class Orders(et.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_end(self, run: et.Run) -> None:
            self.seen.append(run.logs["first"])

    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"first": et.metrics.Last.of(x[0, 0])}, state

    x = np.arange(40, dtype=np.float32).reshape(10, 4)

    def orders(key: int, fits: int) -> list[float]:
        told = Orders()
        made = Reports(linear(), optax.sgd(0.0)).init(key=jr.key(key))
        for _ in range(fits):
            made, _ = made.fit(x, batch_size=1, verbose=0, callbacks=told)
        return told.seen

    twice = orders(0, fits=2)
    assert sorted(twice[:10]) == sorted(x[:, 0]) == sorted(twice[10:])
    assert twice[:10] != twice[10:]
    assert orders(0, fits=1) == twice[:10] != orders(1, fits=1)


def test_the_numbers_are_those_of_a_loop_by_hand() -> None:
    x, y = data(21)
    fitted, history = learner(optimizer=optax.sgd(0.1)).fit(
        x, y, epochs=2, batch_size=8, shuffle=False, verbose=0
    )
    weight, bias = np.asarray(linear().weight, np.float64), np.asarray(linear().bias, np.float64)
    for epoch in range(2):
        total, right = 0.0, 0
        for start in range(0, 21, 8):
            a, b = x[start : start + 8], y[start : start + 8]
            logits = a @ weight.T + bias
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total += -np.log(p[np.arange(len(b)), b]).sum()
            right += (logits.argmax(1) == b).sum()
            grad = (p - np.eye(3)[b]) / len(b)
            weight, bias = weight - 0.1 * grad.T @ a, bias - 0.1 * grad.sum(0)
        assert history["loss"][epoch] == pytest.approx(total / 21, rel=1e-5)
        assert history["accuracy"][epoch] == pytest.approx(right / 21, rel=1e-6)
    assert np.asarray(fitted.model.weight) == pytest.approx(weight, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 8, 21, 100])
def test_no_split_into_batches_changes_what_is_evaluated(batch_size: int) -> None:
    x, y = data(21)
    whole = learner().evaluate(x, y, batch_size=21)
    assert learner().evaluate(x, y, batch_size=batch_size) == pytest.approx(whole, rel=1e-5)


def test_weights_count_in_the_loss_and_not_in_the_metrics() -> None:
    x, y = data(21)
    w = np.linspace(0, 2, 21).astype(np.float32)
    result = learner().evaluate(x, y, sample_weight=w, batch_size=8)
    losses = CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y))
    assert result["loss"] == pytest.approx(float(np.mean(np.asarray(losses) * w)), rel=1e-5)
    assert result["accuracy"] == learner().evaluate(x, y)["accuracy"]


def test_class_weights_count_in_training_and_not_in_validation() -> None:
    x, y = data(21)
    weights = {0: 5.0, 2: 0.5}
    table = np.asarray([5.0, 1.0, 0.5])[y]
    losses = np.asarray(CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y)))
    made = learner(optimizer=optax.sgd(0.0))
    for given in (weights, [5.0, 1.0, 0.5]):
        _, history = made.fit(x, y, class_weight=given, validation_data=(x, y), verbose=0)
        assert history["loss"][0] == pytest.approx(np.mean(table * losses), rel=1e-5)
        assert history["val_loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    weighted = made.evaluate(x, y, class_weight=weights)
    assert weighted["loss"] == pytest.approx(np.mean(table * losses), rel=1e-5)


def test_validation_is_what_evaluate_gives() -> None:
    x, y = data(21)
    fitted, history = dropped().fit(x, y, validation_data=(x[:5], y[:5]), verbose=0)
    expected = fitted.evaluate(x[:5], y[:5])
    assert {name: history[f"val_{name}"][0] for name in expected} == expected


def test_the_split_takes_the_last_fraction_before_shuffling() -> None:
    x, y = data(21)
    by_split, split = learner().fit(x, y, validation_split=0.3, verbose=0)
    by_hand, hand = learner().fit(x[:14], y[:14], validation_data=(x[14:], y[14:]), verbose=0)
    assert same(by_split, by_hand) and dict(split) == dict(hand)


def test_named_validation_sets_have_their_own_names() -> None:
    x, y = data(21)
    sets = {"near": (x, y), "far": (x[:4], y[:4], np.ones(4, np.float32))}
    _, history = learner().fit(x, y, validation_data=sets, verbose=0)
    assert {"val_near_loss", "val_far_accuracy"} <= set(history)


def test_history_has_nan_where_nothing_was_measured() -> None:
    class Once(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            if run.epoch == 1:
                run.logs["extra"] = 3.0

    _, history = learner().fit(*data(), epochs=3, callbacks=Once(), verbose=0)
    assert np.isnan(history["extra"][0]) and history["extra"][1] == 3.0
    assert np.isnan(history["extra"][2])


def test_nan_in_the_inputs_is_not_an_error() -> None:
    x, y = data()
    with pytest.warns(UserWarning, match="`accuracy` is nan: .* a score was nan"):
        _, history = learner().fit(np.full_like(x, np.nan), y, verbose=0)
    assert np.isnan(history["loss"][0]) and np.isnan(history["accuracy"][0])


def test_eager_runs_plain_python_with_the_same_numbers() -> None:
    values: list[Any] = []

    class Looks(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss = CROSS_ENTROPY(jax.vmap(model)(x), y_true).mean()
            if not isinstance(x, Tracer):
                values.append(float(x[0, 0]))
            return loss, {"rows": et.metrics.Gather.of(x[:, 0])}, state

    x, y = data()
    made = Looks(linear(), optax.sgd(0.1))
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
    compiled, history = made.fit(x, y, **options)
    assert not values
    eager, other = made.fit(x, y, eager=True, **options)
    assert values == [float(x[0, 0]), float(x[8, 0]), float(x[16, 0])]
    assert other["loss"] == pytest.approx(history["loss"], rel=1e-5)
    assert np.array_equal(other["rows"][0], history["rows"][0])
    assert eqx.tree_equal(eager.model, compiled.model, rtol=1e-5)
    assert made.evaluate(x, y, eager=True)["loss"] == pytest.approx(made.evaluate(x, y)["loss"])
    assert np.allclose(made.predict(x, eager=True), made.predict(x), rtol=1e-5)


def test_what_is_gathered_comes_in_order_and_once() -> None:
    x, y = data()
    made = learner(metrics=[et.metrics.Gather(), et.metrics.Accuracy()])
    result = made.evaluate(x, y, batch_size=4)
    assert np.array_equal(result["gather"], made.predict(x, batch_size=4))
    assert isinstance(result["accuracy"], float)
    _, history = made.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert [column.shape for column in history["gather"]] == [(21, 3), (21, 3)]


def test_zero_epochs_change_nothing() -> None:
    made = learner().init()
    fitted, history = made.fit(*data(), epochs=0, verbose=0)
    assert same(fitted, made) and history.epochs == 0
    with pytest.raises(ValueError, match="`epochs`"):
        made.fit(*data(), epochs=-1)


@pytest.mark.usefixtures("unchecked")
def test_verbose_that_is_none_of_the_known_gets_a_sentence() -> None:
    wrong: Any = 7
    with pytest.raises(ValueError, match='0, 1, 2 or "auto"'):
        learner().fit(*data(), verbose=wrong)
