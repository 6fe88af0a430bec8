"""Whole runs as callbacks see them: which hooks, in which order, and what the run shows in each.

The traces are those of the table in docs/guide/callbacks.md.
"""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear

import eqxtrain as et
from eqxtrain.callbacks._base import HOOKS

TRAINED = ("accuracy", "loss")
BOTH = (*TRAINED, "val_accuracy", "val_loss")

Act = Callable[[str, et.Run], None]


class Recorder(et.Callback):
    """Writes a line at every hook: its name, epoch, step, and the names of the logs."""

    def __init__(self, name: str = "", act: Act = lambda hook, run: None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        for hook in HOOKS:
            setattr(self, hook, self.make_hook(name, hook, act))

    def make_hook(self, name: str, hook: str, act: Act) -> Callable[[et.Run], None]:
        def record(run: et.Run) -> None:
            line = (hook, run.epoch, run.step, tuple(sorted(run.logs)))
            self.lines.append((name, *line) if name else line)
            act(hook, run)

        return record


def steps(epoch: int, first: int, count: int) -> list[tuple[Any, ...]]:
    """The hooks of some training steps."""
    return [
        line
        for step in range(first, first + count)
        for line in (
            ("on_train_batch_begin", epoch, step, ()),
            ("on_train_batch_end", epoch, step + 1, TRAINED),
        )
    ]


def validation(epoch: int, step: int, batches: int = 1) -> list[tuple[Any, ...]]:
    inner = [
        line
        for _ in range(batches)
        for line in (
            ("on_test_batch_begin", epoch, step, ()),
            ("on_test_batch_end", epoch, step, TRAINED),
        )
    ]
    return [
        ("on_test_begin", epoch, step, ()), *inner, ("on_test_end", epoch, step, TRAINED)
    ]  # fmt: skip


def traced(act: Act = lambda hook, run: None, **options: Any) -> tuple[list[Any], Any]:
    recorder = Recorder(act=act)
    x, y = data(8)
    options = {"batch_size": 4, "epochs": 2, "verbose": 0, "callbacks": recorder} | options
    return recorder.lines, learner().fit(x, y, **options)


def test_a_fit_with_validation_every_second_epoch() -> None:
    lines, _ = traced(validation_data=data(8), validation_freq=2)
    assert lines == [
        ("on_train_begin", 0, 0, ()),
        ("on_epoch_begin", 0, 0, ()),
        *steps(0, 0, 2),
        ("on_epoch_end", 0, 2, TRAINED),
        ("on_epoch_begin", 1, 2, ()),
        *steps(1, 2, 2),
        *validation(1, 4, batches=2),
        ("on_epoch_end", 1, 4, BOTH),
        ("on_train_end", 1, 4, BOTH),
    ]


def test_a_fit_with_validation_by_steps_and_of_two_sets() -> None:
    sets = {"a": data(4), "b": data(4)}
    every = et.Every(steps=1)
    lines, _ = traced(validation_data=sets, validation_freq=every, epochs=1)
    names = tuple(sorted([*TRAINED, *(f"val_{of}_{name}" for of in "ab" for name in TRAINED)]))
    first, second = steps(0, 0, 1), steps(0, 1, 1)
    assert lines == [
        ("on_train_begin", 0, 0, ()),
        ("on_epoch_begin", 0, 0, ()),
        *first, *validation(0, 1), *validation(0, 1),
        *second, *validation(0, 2), *validation(0, 2),
        ("on_epoch_end", 0, 2, names),
        ("on_train_end", 0, 2, names),
    ]  # fmt: skip


def test_evaluate_and_predict() -> None:
    made = learner().init()
    x, y = data(8)
    passes: list[tuple[Callable[..., Any], str, tuple[str, ...]]] = [
        (lambda **options: made.evaluate(x, y, **options), "test", TRAINED),
        (lambda **options: made.predict(x, **options), "predict", ()),
    ]
    for method, kind, logs in passes:
        recorder = Recorder()
        method(batch_size=4, callbacks=recorder)
        batch = [(f"on_{kind}_batch_begin", 0, 0, ()), (f"on_{kind}_batch_end", 0, 0, logs)]
        ends = (f"on_{kind}_begin", 0, 0, ()), (f"on_{kind}_end", 0, 0, logs)
        assert recorder.lines == [ends[0], *batch, *batch, ends[1]]


def test_several_callbacks_are_called_in_order_at_each_hook() -> None:
    lines: list[Any] = []
    recorders = [Recorder("first"), Recorder("second")]
    for recorder in recorders:
        recorder.lines = lines
    learner().fit(*data(4), callbacks=recorders, verbose=0)
    assert [line[0] for line in lines] == ["first", "second"] * (len(lines) // 2)
    assert [line[1:] for line in lines[::2]] == [line[1:] for line in lines[1::2]]


@pytest.mark.parametrize(
    ("hook", "at", "expected"),
    [
        ("on_train_begin", 0, [("on_train_begin", 0, 0, ()), ("on_train_end", 0, 0, ())]),
        (
            "on_epoch_begin",
            0,
            [
                ("on_train_begin", 0, 0, ()),
                ("on_epoch_begin", 0, 0, ()),
                ("on_epoch_end", 0, 0, ()),
                ("on_train_end", 0, 0, ()),
            ],
        ),
        (
            "on_train_batch_end",
            1,
            [
                ("on_train_begin", 0, 0, ()),
                ("on_epoch_begin", 0, 0, ()),
                *steps(0, 0, 1),
                *validation(0, 1),
                ("on_epoch_end", 0, 1, BOTH),
                ("on_train_end", 0, 1, BOTH),
            ],
        ),
        (
            "on_epoch_end",
            2,
            [
                ("on_train_begin", 0, 0, ()),
                ("on_epoch_begin", 0, 0, ()),
                *steps(0, 0, 2),
                *validation(0, 2),
                ("on_epoch_end", 0, 2, BOTH),
                ("on_train_end", 0, 2, BOTH),
            ],
        ),
    ],
)
def test_a_run_that_a_callback_stops(hook: str, at: int, expected: list[Any]) -> None:
    def act(name: str, run: et.Run) -> None:
        if name == hook and run.step == at:
            run.stop("enough")

    lines, (_, history) = traced(act, validation_data=data(4))
    assert lines == expected and history.stopped == "enough"


def test_a_run_that_ctrl_c_ends() -> None:
    """The step under way is taken, nothing is validated, and the epoch is not recorded."""

    def act(name: str, run: et.Run) -> None:
        if name == "on_train_batch_begin" and run.step == 2:
            signal.raise_signal(signal.SIGINT)

    lines, (_, history) = traced(act, validation_data=data(4), on_interrupt="return", epochs=9)
    assert lines == [
        ("on_train_begin", 0, 0, ()),
        ("on_epoch_begin", 0, 0, ()),
        *steps(0, 0, 2),
        *validation(0, 2),
        ("on_epoch_end", 0, 2, BOTH),
        ("on_epoch_begin", 1, 2, ()),
        *steps(1, 2, 1),
        ("on_train_end", 1, 3, TRAINED),
    ]
    assert history.stopped == "interrupted" and history.epochs == 1


class Broken(Exception): ...


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end", "on_test_end"])
def test_a_hook_that_raises(hook: str) -> None:
    seen: list[Any] = []

    def act(name: str, run: et.Run) -> None:
        if name == hook:
            raise Broken
        if name == "on_exception":
            seen.append(type(run.exception))

    recorder = Recorder(act=act)
    with pytest.raises(Broken):
        learner().fit(
            *data(8), batch_size=4, epochs=2, verbose=0, callbacks=recorder,
            validation_data=data(4),
        )  # fmt: skip
    whole = [
        ("on_train_begin", 0, 0, ()), ("on_epoch_begin", 0, 0, ()), *steps(0, 0, 2),
        *validation(0, 2),
    ]  # fmt: skip
    upto = whole[: [line[0] for line in whole].index(hook) + 1]
    assert recorder.lines[:-1] == upto
    assert recorder.lines[-1][0] == "on_exception" and seen == [Broken]


def test_data_that_raise() -> None:
    def batches() -> Iterator[Any]:
        x, y = data(8)
        yield x[:4], y[:4]
        raise Broken

    recorder = Recorder()
    made = et.Learner(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(Broken):
        made.fit(batches(), verbose=0, callbacks=recorder)
    assert [line[0] for line in recorder.lines] == [
        "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end",
        "on_exception",
    ]  # fmt: skip
    assert recorder.lines[-1] == ("on_exception", 0, 1, ("loss",))


def test_a_callback_follows_what_an_earlier_one_has_added() -> None:
    class Adds(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs["score"] = [3.0, 2.0, 2.5, 2.6][run.epoch]

    stop = et.callbacks.EarlyStopping("score", mode="min", patience=1)
    _, history = learner().fit(*data(4), epochs=4, verbose=0, callbacks=[Adds(), stop])
    assert history["score"] == [3.0, 2.0, 2.5] and stop.best_epoch == 1
    with pytest.raises(ValueError, match=r"follows what this run does not measure"):
        learner().fit(*data(4), epochs=4, verbose=0, callbacks=[stop])


def test_logs_of_the_device_are_plain_numbers_in_hooks() -> None:
    kinds: set[type] = set()

    def act(name: str, run: et.Run) -> None:
        kinds.update(map(type, run.logs.values()))
        assert all(np.isfinite(v) for v in run.logs.values())

    traced(act)
    assert kinds == {float}
