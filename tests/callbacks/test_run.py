"""`Run`: what a callback sees of a run, and what it may do to it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import data, learner, same

import eqxtrain as et


@pytest.mark.slow
def test_logs_run_on_within_an_epoch_and_are_whole_at_its_end() -> None:
    seen: list[Any] = []

    class Reads(et.Callback):
        def on_train_batch_begin(self, run: et.Run) -> None:
            seen.append(dict(run.logs))

        def on_train_batch_end(self, run: et.Run) -> None:
            seen.append(run.logs["loss"])

        def on_epoch_end(self, run: et.Run) -> None:
            seen.append(dict(run.logs))

    x, y = data(10)
    made = learner(optimizer=optax.sgd(0.0))
    _, history = made.fit(
        x, y, batch_size=5, shuffle=False, callbacks=Reads(), validation_data=(x, y), verbose=0
    )
    first = made.evaluate(x[:5], y[:5])["loss"]
    whole = made.evaluate(x, y)
    assert seen[0] == seen[2] == {}
    assert seen[1] == pytest.approx(first, rel=1e-6)
    assert seen[3] == pytest.approx(whole["loss"], rel=1e-6)
    assert seen[4] == {name: column[0] for name, column in history.items()}


@pytest.mark.slow
def test_what_run_hands_out_survives_the_next_step() -> None:
    kept: list[Any] = []

    class Keeps(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.learner is run.learner and run.state is run.learner.state
            assert int(run.state.step) == run.step
            kept.append(run.learner)

    x, y = data(21)
    fitted, _ = learner().fit(x, y, batch_size=7, callbacks=Keeps(), verbose=0)
    assert same(kept[-1].model, fitted.model) and not same(kept[0].model, kept[1].model)
    again, _ = learner().fit(x, y, batch_size=7, verbose=0)
    assert same(again, fitted)


@pytest.mark.slow
def test_between_epochs_the_learner_has_no_accumulators(tmp_path: Any) -> None:
    class Saves(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            eqx.tree_serialise_leaves(tmp_path / "l.eqx", run.learner)

    fitted, _ = learner().fit(*data(), callbacks=Saves(), verbose=0)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", learner().init())
    assert same(loaded, fitted)


@pytest.mark.slow
def test_stopping_ends_after_the_step_and_the_epoch_is_recorded() -> None:
    class Stops(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 4:
                run.stop("enough")

    x, y = data(21)
    fitted, history = learner().fit(
        x, y, epochs=5, batch_size=7, callbacks=Stops(), validation_data=(x, y), verbose=0
    )
    assert fitted.state is not None and int(fitted.state.step) == 4
    assert history.epochs == 2 and history.stopped == "enough"
    assert np.isfinite(history["val_loss"][1])


@pytest.mark.slow
def test_a_replaced_learner_goes_on_in_the_middle_of_a_pass() -> None:
    class Replaces(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 1:
                zeros = jax.tree.map(lambda a: a * 0, eqx.filter(run.learner.model, eqx.is_array))
                model = eqx.combine(zeros, run.learner.model)
                run.replace(run.learner.replace(model=model, optimizer=optax.sgd(0.0)))

    x, y = data(21)
    fitted, history = learner(optimizer=optax.sgd(0.1)).fit(
        x, y, batch_size=7, callbacks=Replaces(), verbose=0, shuffle=False
    )
    assert not np.any(np.asarray(fitted.model.weight))
    first = learner().evaluate(x[:7], y[:7])["loss"]
    assert history["loss"][0] == pytest.approx((first + 2 * np.log(3)) / 3, rel=1e-5)


def test_params_and_counters_say_where_the_run_is() -> None:
    seen: list[tuple[int, int]] = []

    class Looks(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.params["epochs"] == 2 and run.params["steps"] == 3
            seen.append((run.epoch, run.step))

    made, _ = learner().fit(*data(), batch_size=7, verbose=0)
    made.fit(*data(), epochs=2, batch_size=7, callbacks=Looks(), verbose=0)
    assert seen == [(0, 4), (0, 5), (0, 6), (1, 7), (1, 8), (1, 9)]


def test_logs_can_be_read_after_every_batch_of_every_epoch() -> None:
    seen: list[float] = []

    class Reads(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            seen.append(run.logs["loss"])

    x, y = data()
    learner().fit(x, y, epochs=3, callbacks=Reads(), verbose=0, validation_data=(x, y))
    assert len(seen) == 3 and np.isfinite(seen).all()


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin"])
def test_stopping_before_a_step_takes_none(hook: str) -> None:
    stops = type("Stops", (et.Callback,), {hook: lambda self, run: run.stop("early")})
    made = learner().init()
    fitted, history = made.fit(*data(), epochs=3, callbacks=stops(), verbose=0)
    assert same(fitted, made) and (history.epochs, history.stopped) == (0, "early")


@pytest.mark.parametrize("method", ["stop", "replace"])
def test_evaluate_and_predict_can_not_be_stopped_nor_given_another_learner(method: str) -> None:
    def act(self: Any, run: et.Run) -> None:
        run.stop() if method == "stop" else run.replace(run.learner)

    told = type("Acts", (et.Callback,), {"on_test_begin": act, "on_predict_begin": act})()
    for call in (learner().evaluate, learner().predict):
        with pytest.raises(RuntimeError, match=rf"`run\.{method}` is for `fit`"):
            call(data()[0], callbacks=told)


def test_a_learner_put_in_place_must_fit() -> None:
    def replacing(made: Any) -> et.Callback:
        act = lambda self, run: run.replace(made)
        return type("Replaces", (et.Callback,), {"on_epoch_begin": act})()

    with pytest.raises(ValueError, match="without a state"):
        learner().fit(*data(), callbacks=replacing(learner()), verbose=0)
    with pytest.raises(TypeError, match=r"takes a learner; got a `Linear`"):
        learner().fit(*data(), callbacks=replacing(learner().model), verbose=0)
    foreign = learner(optimizer=optax.sgd(0.1)).init().replace(state=learner().init().state)
    with pytest.raises(ValueError, match="belongs to another model"):
        learner().fit(*data(), callbacks=replacing(foreign), verbose=0)


@pytest.mark.slow
def test_evaluating_a_learner_from_the_middle_of_a_pass_starts_anew() -> None:
    results: list[Any] = []
    x, y = data(21)

    class Evaluates(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            clean = run.learner.replace(state=run.state.update(metrics={}))
            results.append((run.learner.evaluate(x, y), clean.evaluate(x, y)))
            run.learner.predict(x)
            assert run.learner.train_on_batch(x, y)[1] == clean.train_on_batch(x, y)[1]

    learner().fit(x, y, batch_size=7, callbacks=Evaluates(), verbose=0)
    assert len(results) == 3 and all(a == b for a, b in results)


def test_a_learner_saved_after_a_batch_loads_into_a_fresh_init(tmp_path: Any) -> None:
    class Saves(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            eqx.tree_serialise_leaves(tmp_path / f"{run.step}.eqx", run.learner)

    learner().fit(*data(21), batch_size=7, callbacks=Saves(), verbose=0)
    for step in (1, 2, 3):
        loaded = eqx.tree_deserialise_leaves(tmp_path / f"{step}.eqx", learner().init())
        assert loaded.state is not None and int(loaded.state.step) == step


def test_a_callback_that_reads_logs_alone_is_refused_the_state() -> None:
    class Looks(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.logs
            assert run.state

    with pytest.raises(RuntimeError, match='declare `reads = "state"`'):
        learner().fit(*data(), callbacks=Looks(), verbose=0)


def test_numbers_that_a_callback_logs_become_floats() -> None:
    class Logs(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs.update(a=jnp.asarray(0.5), b=np.float32(1), c=2)

    _, history = learner().fit(*data(), callbacks=Logs(), verbose=0)
    assert [history[name] for name in "abc"] == [[0.5], [1.0], [2.0]]
    assert all(type(history[name][0]) is float for name in "abc")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("", 2.0), (3, 2.0), ("said", "fine")])
def test_what_no_history_can_hold_is_refused_and_the_epoch_kept(name: Any, value: Any) -> None:
    class Adds(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs[name] = value

    with pytest.raises(TypeError, match=r"A callback added .* names are strings") as raised:
        learner().fit(*data(), callbacks=Adds(), verbose=0)
    history: et.History = vars(raised.value)["history"]
    assert list(history) == ["loss", "accuracy"] and str(history)
