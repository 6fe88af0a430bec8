"""Callbacks that steer a run, beside Keras's own."""

import datetime
import math
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, arrays, data, learner, library, linear, normed, same
from hypothesis import assume, given, settings, strategies as st

import eqxtrain as et

C = et.callbacks
ADAM = optax.inject_hyperparams(optax.adam)(learning_rate=0.5)
SCORES = st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, math.nan]), min_size=1, max_size=8)
X, Y = data(8)


class Scripted(et.Callback):
    """Adds `score` to the logs, and keeps the weights of each epoch."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores
        self.weights: list[Any] = []

    def on_epoch_end(self, run: et.Run) -> None:
        run.logs["score"] = self.scores[run.epoch]
        self.weights.append(np.asarray(run.learner.model.weight))


def keras_stops(scores: list[float], **options: Any) -> tuple[int | None, int | None]:
    """After which epoch Keras stops, and the weights of which one it ends with."""
    model = SimpleNamespace(stop_training=False, now=0, restored=None)
    model.get_weights = lambda: model.now
    model.set_weights = lambda weights: setattr(model, "restored", weights)
    callback = library("keras").callbacks.EarlyStopping("score", **options)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, score in enumerate(scores):
        model.now = epoch
        callback.on_epoch_end(epoch, {"score": score})
        if model.stop_training:
            break
    callback.on_train_end()
    return (callback.stopped_epoch if model.stop_training else None), model.restored


@settings(max_examples=20)
@given(
    scores=SCORES,
    patience=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
    min_delta=st.sampled_from([0.0, 0.07]),
    baseline=st.sampled_from([None, 0.3]),
    start=st.integers(0, 2),
)
def test_early_stopping_stops_and_restores_as_keras_does(
    scores: list[float], patience: int, mode: Any, min_delta: float, baseline: Any, start: int
) -> None:
    options: Any = {
        "patience": patience, "mode": mode, "min_delta": min_delta, "baseline": baseline,
        "start_from_epoch": start, "restore_best_weights": True,
    }  # fmt: skip
    assume(not math.isnan([*scores, 0.0, 0.0][start]))  # to Keras, a first nan is the best for ever
    stopped, restored = keras_stops(scores, **options)
    script, stopping = Scripted(scores), C.EarlyStopping("score", **options)
    fitted, history = learner(optimizer=optax.sgd(0.1)).fit(
        X, Y, epochs=len(scores), verbose=0, callbacks=[script, stopping]
    )
    assert stopping.stopped_epoch == stopped
    assert history.epochs == (len(scores) if stopped is None else stopped + 1)
    expected = len(script.weights) - 1 if restored is None else restored
    assert np.array_equal(fitted.model.weight, script.weights[expected])
    assert fitted.state is not None and int(fitted.state.step) == history.epochs


def test_nan_is_no_improvement_even_on_nothing() -> None:
    scores = [math.nan, 1.0, math.nan, 0.5]
    script, stopping = Scripted(scores), C.EarlyStopping("score", mode="min", patience=3)
    learner(optimizer=optax.sgd(0.1)).fit(X, Y, epochs=4, verbose=0, callbacks=[script, stopping])
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (0.5, 3, None)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of Keras, with NumPy 2
@settings(max_examples=20)
@given(
    scores=SCORES,
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 2),
    min_lr=st.sampled_from([0.0, 0.03]),
)
def test_the_rate_falls_on_plateaus_as_keras_has_it_fall(
    scores: list[float], patience: int, cooldown: int, min_lr: float
) -> None:
    assume(not math.isnan(scores[0]))
    options: Any = {"patience": patience, "cooldown": cooldown, "min_lr": min_lr, "factor": 0.25}
    keras = library("keras")
    theirs = keras.callbacks.ReduceLROnPlateau("score", mode="min", **options)
    optimizer = keras.optimizers.SGD(0.5)
    theirs.set_model(SimpleNamespace(optimizer=optimizer))
    theirs.on_train_begin()
    rates: list[float] = []
    for epoch, score in enumerate(scores):
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
        theirs.on_epoch_end(epoch, {"score": score})
    made = learner(optimizer=ADAM).init()
    callbacks = [Scripted(scores), C.ReduceLROnPlateau("score", mode="min", **options)]
    _, history = made.fit(X, Y, epochs=len(scores), verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)


@pytest.mark.slow
def test_a_rate_is_set_wherever_it_stands_and_nothing_is_compiled_again() -> None:
    inner = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    parts = optax.multi_transform({"a": inner, "b": ADAM}, {"weight": "a", "bias": "b"})
    model = {"weight": jnp.ones(4), "bias": jnp.zeros(())}

    class Linear(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Any, y_true: Any) -> Any:
            error = x @ model["weight"] + model["bias"] - y_true.astype(jnp.float32)
            return jnp.mean(error**2), {}, state

    made, _ = Linear(model, parts).fit(X, Y, verbose=0)
    with et.max_compiles(0):
        fitted, history = made.fit(
            X, Y, epochs=3, verbose=0, callbacks=C.LearningRateScheduler(lambda e: 0.01 * (e + 1))
        )
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.02, 0.03], rtol=1e-6)
    rates = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(fitted.state)
        if "learning_rate" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(rates, [0.03, 0.03], rtol=1e-6)


@pytest.mark.slow
def test_a_scheduled_run_is_the_one_with_an_optax_schedule() -> None:
    by_callback = learner(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=1.0))
    scheduler = C.LearningRateScheduler(lambda epoch, rate: rate / 2)
    fitted, history = by_callback.fit(
        *data(), epochs=3, batch_size=7, shuffle=False, verbose=0, callbacks=scheduler
    )
    assert history["learning_rate"] == [0.5, 0.25, 0.125]
    schedule = lambda step: 0.5 ** (step // 3 + 1)
    by_optax = learner(optimizer=optax.sgd(schedule))
    expected, _ = by_optax.fit(*data(), epochs=3, batch_size=7, shuffle=False, verbose=0)
    assert eqx.tree_equal(fitted.model, expected.model, rtol=1e-5, atol=1e-6)


def test_what_is_not_measured_is_refused_before_the_first_step() -> None:
    steps: list[int] = []
    watch = C.Lambda(on_train_batch_end=lambda run: steps.append(run.step))
    for monitor, match in (
        ("val_loss", "It measures `loss`, `accuracy`.*pass `validation_data`"),
        ("acuracy", "Did you mean `accuracy`"),
    ):
        stopping = C.EarlyStopping(monitor)
        with pytest.raises(ValueError, match=f"monitor='{monitor}'.*{match}"):
            learner().fit(X, Y, verbose=0, callbacks=[watch, stopping])
    assert steps == []
    with pytest.raises(ValueError, match="does not measure"):  # known only at an epoch's end
        learner().fit(X, Y, verbose=0, callbacks=[Scripted([1.0]), C.EarlyStopping("scores")])


@pytest.mark.slow
def test_only_epochs_that_were_validated_count() -> None:
    stopping = C.EarlyStopping("val_loss", patience=2, min_delta=1e9)
    _, history = learner().fit(
        X, Y, epochs=20, validation_data=(X, Y), validation_freq=3, verbose=0, callbacks=stopping
    )
    assert history.epochs == 9 and stopping.best_epoch == 2
    assert history.stopped == "`val_loss` has not improved for 2 epochs"


@pytest.mark.slow
def test_the_direction_is_the_metrics_own() -> None:
    seen: dict[str, Any] = {}
    metrics = [
        et.metrics.Accuracy(), et.metrics.On(et.metrics.LogLoss(from_logits=True), ()),
        et.metrics.ConfusionMatrix(num_classes=3), et.metrics.AUROC(from_logits=True, bins=None),
    ]  # fmt: skip
    look = C.Lambda(on_train_begin=lambda run: seen.update(run.directions))
    made = learner(metrics=[*metrics, lambda y_pred: y_pred.mean()])
    _, history = made.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=look)
    assert seen.keys() == history.keys()
    assert {n: d for n, d in seen.items() if not n.startswith("val_")} == {
        "loss": "min", "accuracy": "max", "log_loss": "min", "confusion_matrix": None,
        "auroc": "max", "4": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"best is not known: say so, .*mode=\"max\""):
        learner().fit(X, Y, verbose=0, callbacks=[Scripted([1.0]), C.EarlyStopping("score")])
    with pytest.raises(TypeError, match="neither better nor worse"):
        made.fit(X, Y, verbose=0, callbacks=C.EarlyStopping("confusion_matrix", mode="max"))


@pytest.mark.slow
def test_the_best_weights_come_with_their_batch_statistics() -> None:
    kept: list[Any] = []
    script = Scripted([0.0, 1.0, 2.0])
    script.on_epoch_end = lambda run: (  # pyright: ignore[reportAttributeAccessIssue]
        kept.append(run.learner),
        run.logs.update(score=float(run.epoch)),
    )
    stopping = C.EarlyStopping("score", mode="min", patience=1, restore_best_weights=True)
    fitted, _ = normed().fit(*data(), epochs=3, verbose=0, callbacks=[script, stopping])
    assert fitted.state is not None and same(fitted.model, kept[0].model)
    assert same(fitted.state.model_state, kept[0].state.model_state)
    assert int(fitted.state.step) == int(kept[1].state.step)


@pytest.mark.slow
def test_what_is_remembered_carries_on_in_another_run() -> None:
    scores = [1.0, 0.5, 0.7, 0.6, 0.8]
    build = lambda: C.EarlyStopping("score", mode="min", patience=3, restore_best_weights=True)
    whole = build()
    fitted, _ = learner().fit(
        X, Y, epochs=5, shuffle=False, verbose=0, callbacks=[Scripted(scores), whole]
    )
    first, second = build(), build()
    script = Scripted(scores[:3])
    kept: list[Any] = []
    script.on_train_end = lambda run: kept.append(run.learner)
    learner().fit(X, Y, epochs=3, shuffle=False, verbose=0, callbacks=[script, first])
    second.load_state_dict(first.state_dict())
    again, _ = kept[0].fit(
        X, Y, epochs=2, shuffle=False, verbose=0, callbacks=[Scripted(scores[3:]), second]
    )
    assert whole.best == second.best == 0.5 and same(again.model, fitted.model)
    assert whole.stopped_epoch == 4 and second.stopped_epoch == 1


def test_a_rate_that_can_not_be_set_gets_a_sentence() -> None:
    for callback in (C.LearningRateScheduler(lambda e: 0.1), C.ReduceLROnPlateau("loss")):
        with pytest.raises(ValueError, match=r"optax.inject_hyperparams\(optax.adam\)"):
            learner().fit(X, Y, verbose=0, callbacks=callback)
        scheduled = optax.inject_hyperparams(optax.adam)(learning_rate=optax.constant_schedule(0.1))
        with pytest.raises(ValueError, match="from a schedule at every step"):
            learner(optimizer=scheduled).fit(X, Y, verbose=0, callbacks=callback)


@pytest.mark.usefixtures("unchecked")
def test_options_out_of_range_get_a_sentence() -> None:
    wrong: Any = "up"
    for make, match in (
        (lambda: C.EarlyStopping(patience=-1), r"`EarlyStopping\(patience\)` must be a whole"),
        (lambda: C.EarlyStopping(mode=wrong), r'must be "auto", "min" or "max"'),
        (lambda: C.ReduceLROnPlateau(factor=1.0), "must be below 1"),
        (lambda: C.LearningRateScheduler(wrong), "must be a function of the epoch"),
        (lambda: C.Timeout(), "either `seconds` or `until`"),
        (lambda: C.Timeout(until="soon"), 'a time such as "07:30"'),
        (lambda: C.EarlyStopping(cast(Any, 3)), "must be the name of a log"),
        (lambda: C.Lambda(on_epoch_ends=print), "is not a hook. The hooks are on_train_begin"),
    ):
        with pytest.raises((TypeError, ValueError), match=match):
            make()
    assert C.Timeout(until="7:30").until == datetime.time(7, 30)


@pytest.mark.slow
def test_a_run_ends_when_its_time_is_up() -> None:
    began = time.monotonic()
    _, history = learner().fit(X, Y, epochs=10**6, verbose=0, callbacks=C.Timeout(0.5))
    assert history.stopped == "the time is up" and time.monotonic() - began < 30
    soon = datetime.datetime.now() + datetime.timedelta(seconds=0.5)
    _, history = learner().fit(X, Y, epochs=10**6, verbose=0, callbacks=C.Timeout(until=soon))
    assert history.stopped == "the time is up"
    later = (datetime.datetime.now() + datetime.timedelta(hours=1)).time()
    _, history = learner().fit(X, Y, epochs=2, verbose=0, callbacks=C.Timeout(until=later))
    assert history.stopped is None and history.epochs == 2


@pytest.mark.slow
def test_functions_make_a_callback() -> None:
    seen: list[Any] = []
    hear = C.Lambda(
        on_epoch_end=lambda run: seen.append(run.epoch),
        on_train_batch_end=lambda run: seen.append(run.logs["loss"]),
        reads="logs",
        every=et.Every(steps=2),
    )
    learner(linear(), loss=CROSS_ENTROPY).fit(X, Y, batch_size=2, verbose=0, callbacks=hear)
    assert len(seen) == 3 and seen[-1] == 0


def test_each_of_several_rates_is_scheduled_from_its_own() -> None:
    labels = {"weight": "a", "bias": "b"}
    parts: dict[Any, Any] = {
        "a": optax.inject_hyperparams(optax.sgd)(learning_rate=0.5),
        "b": optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3),
    }
    by_name = lambda tree: jax.tree.map_with_path(lambda path, _: labels[path[-1].name], tree)
    made = learner(
        optimizer=optax.multi_transform(parts, by_name), metrics=et.metrics.LearningRate()
    )
    callback = et.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    _, history = made.fit(*data(8), epochs=2, verbose=0, callbacks=callback)
    assert history["learning_rate/a"] == pytest.approx([0.25, 0.125])
    assert history["learning_rate/b"] == pytest.approx([5e-4, 2.5e-4])


@pytest.mark.parametrize("returned", [None, "0.1", float("nan")])
def test_a_schedule_that_returns_no_rate_gets_a_sentence(returned: Any) -> None:
    callback = et.callbacks.LearningRateScheduler(lambda epoch: returned)
    made = learner(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    if returned == "0.1":
        made.fit(*data(8), verbose=0, callbacks=callback)  # `float` reads it
        return
    with pytest.raises(ValueError, match="must return the learning rate"):
        made.fit(*data(8), verbose=0, callbacks=callback)


def test_an_epoch_without_steps_counts_for_nothing(tmp_path: Path) -> None:
    class Stops(et.Callback):
        def on_epoch_begin(self, run: et.Run) -> None:
            if run.epoch == 2:
                run.stop("budget")

    stopping = et.callbacks.EarlyStopping("loss", min_delta=10.0, patience=2)
    logger = et.callbacks.CSVLogger(tmp_path / "log.csv")
    _, history = learner().fit(*data(8), epochs=5, verbose=0, callbacks=[Stops(), stopping, logger])
    assert history.stopped == "budget" and history.epochs == 2
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]
    assert "nan" not in rows[-1]


def test_what_early_stopping_remembers_can_be_pickled() -> None:
    x, y = data(16)
    options: dict[str, Any] = {"validation_data": (x, y), "verbose": 0}
    stopping = et.callbacks.EarlyStopping(restore_best_weights=True, patience=9)
    model = eqx.nn.MLP(4, 3, 4, 1, key=jr.key(0))  # which holds functions
    first, _ = learner(model).fit(x, y, epochs=2, callbacks=stopping, **options)
    again = et.callbacks.EarlyStopping(restore_best_weights=True, patience=9)
    again.load_state_dict(pickle.loads(pickle.dumps(stopping.state_dict())))
    after, _ = first.replace(optimizer=optax.sgd(1e3)).fit(x, y, callbacks=again, **options)
    for a, b in zip(arrays(after.model), arrays(first.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_scalar_array_that_a_callback_adds_is_a_number(tmp_path: Path) -> None:
    class Adds(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs["a"], run.logs["b"] = np.float32(2), jnp.asarray(1.0)

    logger = et.callbacks.CSVLogger(tmp_path / "log.csv")
    stopping = et.callbacks.EarlyStopping("b", mode="min")
    _, history = learner(metrics=None).fit(
        *data(8), epochs=4, verbose=0, callbacks=[Adds(), logger, stopping]
    )
    assert history.epochs == 2
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,step,loss,a,b" and all(row.endswith(",2.0,1.0") for row in rows)


def test_fit_adds_no_second_progress(capsys: pytest.CaptureFixture[str]) -> None:
    learner().fit(*data(8), callbacks=et.callbacks.Progress())
    assert len(capsys.readouterr().out.splitlines()) == 1
