"""The hooks: their order, what they see, and what they may do."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import data, learner, same

import eqxtrain as et
from eqxtrain.callbacks._base import HOOKS


class Tape(et.Callback):
    """Records every hook."""

    def __init__(self) -> None:
        self.hooks: list[str] = []


for _hook in HOOKS:
    setattr(Tape, _hook, lambda self, run, hook=_hook: self.hooks.append(hook))


@pytest.mark.slow
def test_the_order_of_hooks_is_that_of_keras() -> None:
    tape = Tape()
    x, y = data(10)
    learner().fit(x, y, batch_size=8, callbacks=[tape], validation_data=(x[:4], y[:4]), verbose=0)
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    test = ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"]
    assert tape.hooks == [
        "on_train_begin", "on_epoch_begin", *batch, *batch, *test, "on_epoch_end", "on_train_end",
    ]  # fmt: skip


@pytest.mark.slow
def test_evaluate_and_predict_tell_their_own_hooks() -> None:
    x, y = data(10)
    for name, call in (
        ("test", lambda tape: learner().evaluate(x, y, callbacks=tape)),
        ("predict", lambda tape: learner().predict(x, callbacks=tape)),
    ):
        tape = Tape()
        call(tape)
        moments = ("begin", "batch_begin", "batch_end", "end")
        assert tape.hooks == [f"on_{name}_{moment}" for moment in moments]


@pytest.mark.slow
def test_the_users_list_is_never_changed_and_may_be_used_again() -> None:
    told: list[et.Callback] = [Tape()]
    made = learner()
    made.fit(*data(), callbacks=told, verbose=2)
    made.fit(*data(), callbacks=told, verbose=2)
    assert len(told) == 1


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


def test_every_thins_the_hooks_of_batches_and_epochs() -> None:
    steps, epochs = Tape(), Tape()
    steps.every, epochs.every = et.Every(steps=4), et.Every(epochs=2)
    learner().fit(*data(21), epochs=3, batch_size=7, callbacks=[steps, epochs], verbose=0)
    assert steps.hooks.count("on_train_batch_end") == 2 == steps.hooks.count("on_train_batch_begin")
    assert epochs.hooks.count("on_epoch_end") == 1 and epochs.hooks.count("on_train_batch_end") == 9
    for wrong in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="takes either `steps` or `epochs`"):
            et.Every(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_every_counts_in_whole_numbers() -> None:
    number: Any
    for number in (0, True, 1.0):
        with pytest.raises(ValueError, match=r"`Every\(epochs\)` is a whole number, 1 or more"):
            et.Every(epochs=number)
    number = np.int64(3)
    assert type(et.Every(steps=number).steps) is int


def test_a_callback_that_reads_logs_alone_is_refused_the_state() -> None:
    class Looks(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.logs
            assert run.state

    with pytest.raises(RuntimeError, match='declare `reads = "state"`'):
        learner().fit(*data(), callbacks=Looks(), verbose=0)


@pytest.mark.usefixtures("unchecked")
def test_misspelt_hooks_and_things_that_are_no_callbacks_get_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"`Typo.on_epoch_ends` is not a hook"):
        type("Typo", (et.Callback,), {"on_epoch_ends": lambda self, run: None})
    for wrong, message in ((Tape, "the class `Tape`"), (print, "built-in function print")):
        with pytest.raises(TypeError, match=message):
            learner().fit(*data(), callbacks=[wrong], verbose=0)  # pyright: ignore[reportArgumentType]
    given: Any = Tape
    with pytest.raises(TypeError, match=r"the class `Tape`; .* an instance, `Tape\(\.\.\.\)`\."):
        learner().fit(*data(), callbacks=given, verbose=0)
    given = lambda run: None
    with pytest.raises(TypeError, match=r"contains <function .*: subclass it"):
        learner().fit(*data(), callbacks=given, verbose=0)


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
    foreign = learner(optimizer=optax.sgd(0.1)).init().replace(state=learner().init().state)
    with pytest.raises(ValueError, match="belongs to another model"):
        learner().fit(*data(), callbacks=replacing(foreign), verbose=0)


def test_hooks_set_on_the_instance_are_called() -> None:
    seen: list[int] = []
    told = et.Callback()
    told.on_epoch_end = lambda run: seen.append(run.epoch)
    learner().fit(*data(), callbacks=told, verbose=0)
    assert seen == [0]


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


def test_what_is_declared_wrong_gets_a_sentence() -> None:
    def told(**body: Any) -> et.Callback:
        return type("Wrong", (et.Callback,), body)()

    keras = lambda self, epoch, logs: None
    optional = lambda self, epoch, logs=None: None
    alone = lambda self, logs=None: None
    for callback, message in (
        (told(reads="log"), '"state" or "logs"'),
        (told(every=3), r"`Every\(steps=\.\.\.\)`"),
        (told(on_epoch_end=keras), r"must take one argument, the run"),
        (told(on_epoch_end=optional), r"the run: .*, not \(epoch, logs=None\); `run.epoch`"),
        (told(on_train_end=alone), r"the run: .*, not \(logs=None\); `run.epoch`"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            learner().fit(*data(), callbacks=callback, verbose=0)


def test_numbers_that_a_callback_logs_become_floats() -> None:
    class Logs(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs.update(a=jnp.asarray(0.5), b=np.float32(1), c=2)

    _, history = learner().fit(*data(), callbacks=Logs(), verbose=0)
    assert [history[name] for name in "abc"] == [[0.5], [1.0], [2.0]]
    assert all(type(history[name][0]) is float for name in "abc")
