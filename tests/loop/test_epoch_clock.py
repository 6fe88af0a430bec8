"""What the steps of an epoch did, and where their time went."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import CROSS_ENTROPY, data, learner

import eqxtrain as et
from eqxtrain import _data
from eqxtrain._engine.device_watch import DeviceWatch
from eqxtrain._history import PassTiming
from eqxtrain._loop import epoch_clock, training
from eqxtrain._loop.epoch_clock import EpochClock

X, Y = data(21)


class Clock:
    """Stands in for the clock, the compiler and the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.compiled = 0.0
        self.idle_since: float | None = None
        monkeypatch.setattr(epoch_clock.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(epoch_clock, "seconds_spent", lambda: self.compiled)

    def work(self, seconds: float, *, compiling: float = 0.0) -> None:
        self.now += seconds
        self.compiled += compiling


def test_compiles_and_validations_are_no_time_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, timing = Clock(monkeypatch), PassTiming()
    measured = EpochClock(timing, None)
    clock.work(3.0, compiling=2.0)
    measured.count(4, 30, 8.0)
    clock.work(0.5)
    measured.lap()
    clock.work(7.0)  # a validation
    measured.skip()
    clock.work(0.25)
    measured.count(1, 2, 2.0)
    assert timing == PassTiming(5, 32, 10.0, seconds=1.75, compile_wait=2.0)


def test_the_device_is_idle_from_its_last_call_to_the_next_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, timing = Clock(monkeypatch), PassTiming()
    watch = DeviceWatch()
    monkeypatch.setattr(DeviceWatch, "idle_since", property(lambda _: clock.idle_since))
    stack = _data.Stack((X[None],), 1)

    def slow() -> Iterator[_data.Stack]:
        clock.idle_since = 0.0  # nothing has begun yet
        clock.work(1.0)
        yield stack
        clock.idle_since = None  # the call takes longer than the batch
        clock.work(2.0)
        yield stack
        clock.work(3.0, compiling=1.0)
        clock.idle_since = clock.now - 0.5  # it ended while the batch was awaited
        yield stack

    for _ in EpochClock(timing, watch).timed(slow()):
        clock.work(10.0)
    assert timing.waiting == 5.0 and timing.idle == 1.5
    assert timing.seconds == 35.0 and timing.compile_wait == 1.0


@pytest.mark.parametrize(
    ("options", "steps", "examples"),
    [({}, 3, 21), ({"remainder": "pad"}, 3, 21), ({"remainder": "drop"}, 2, 16)],
)
@pytest.mark.parametrize("batched", [False, True])
def test_padding_is_no_example(options: Any, steps: int, examples: int, batched: bool) -> None:
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in (0, 8, 16)]
    arrays: Any = (batches,) if batched else (X, Y)
    size = {} if batched else {"batch_size": 8}
    _, history = learner().fit(*arrays, epochs=2, verbose=0, **size, **options)
    passes = history.timing.passes
    assert [(p.steps, p.examples, p.idle) for p in passes] == [(steps, examples, None)] * 2
    assert all(0 <= p.waiting <= p.seconds for p in passes)
    assert len(history.timing.epochs) == 2
    if not options and not batched:
        whole, rest = (learner().forecast(X, Y, batch_size=n).flops for n in (8, 5))
        assert passes[0].flops == 2 * whole + rest


def test_the_first_epoch_of_new_code_has_waited_for_the_compiler() -> None:
    def loss(y_pred: Any, y_true: Any) -> Any:  # of a program that no other test has compiled
        return 1.25 * CROSS_ENTROPY(y_pred, y_true)

    made = learner(loss=loss).init()
    _, history = made.fit(X, Y, epochs=2, batch_size=21, verbose=0)
    first, second = history.timing.passes
    assert first.compile_wait > 0 == second.compile_wait
    assert first.seconds + first.compile_wait <= history.timing.epochs[0]


def test_a_slow_iterator_leaves_the_device_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    watches: list[Any] = []

    class Watch(DeviceWatch):
        def __init__(self) -> None:
            super().__init__()
            watches.append(self)

    def batches() -> Iterator[Any]:
        for _ in range(4):
            while watches and watches[-1].idle_since is None:
                time.sleep(1e-3)
            time.sleep(0.01)
            yield X, Y

    class Asks(et.Callback):
        times_device = True

    monkeypatch.setattr(training, "DeviceWatch", Watch)
    _, history = learner().init(X, Y).fit(batches, epochs=2, verbose=0, callbacks=Asks())
    idle = [timing.idle or 0.0 for timing in history.timing.passes]
    for seconds, timing in zip(idle, history.timing.passes, strict=True):
        assert seconds <= timing.waiting <= timing.seconds
    assert sum(idle) > 0
