"""The loop's side of a run: what callbacks see of it, and where it stands."""

import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, learner, linear, same

import eqxtrain as et
from eqxtrain import _placement
from eqxtrain._loop.run_control import RunControl
from eqxtrain._loop.run_state import RunState

PUBLIC = {
    *("epoch", "step", "history", "params", "exception", "learner", "state", "position", "logs"),
    *("stop", "stopped", "replace", "directions", "recent_logs", "replay", "steps_of_pass"),
    *("timing", "validation_prefixes"),
}


def test_a_run_shows_what_a_callback_may_use_and_nothing_else() -> None:
    shown: list[set[str]] = []

    class Looks(et.Callback):
        def on_train_begin(self, run: et.Run) -> None:
            shown.append({name for name in dir(run) if not name.startswith("_")})
            with pytest.raises(AttributeError):
                setattr(run, "step", 3)  # noqa: B010

    learner().fit(*data(8), callbacks=Looks(), verbose=0)
    assert shown == [PUBLIC]


class Fails(et.Learner[Any]):
    def train_step(self, **available: Any) -> Any:
        raise ZeroDivisionError("here")


def test_few_frames_stand_between_fit_and_a_step() -> None:
    made = Fails(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(ZeroDivisionError) as raised:
        made.fit(*data(8), eager=True, verbose=0)
    frames = traceback.extract_tb(raised.value.__traceback__)
    package = str(Path(et.__file__).parent)
    ours = [frame for frame in frames if frame.filename.startswith(package)]
    between = ours[1:]  # without `Learner.fit` itself
    assert ours[0].name == "fit" and frames[-1].name == "train_step"
    assert len(between) <= 10 and len({frame.filename for frame in between}) <= 6


def test_where_a_run_stands_is_captured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[RunState] = []
    begin = RunControl.__init__
    controls: list[RunControl] = []

    def remember(self: RunControl, *args: Any, **given: Any) -> None:
        begin(self, *args, **given)
        controls.append(self)

    class Counts(et.Callback):
        seen = 0

        def on_train_batch_end(self, run: et.Run) -> None:
            self.seen += 1
            if run.step == 5:
                captured.append(controls[0].capture(within_pass=True))

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

    monkeypatch.setattr(RunControl, "__init__", remember)
    x, y = data(24)
    made = learner()
    made.fit(x, y, epochs=3, batch_size=8, callbacks=Counts(), verbose=0, validation_split=0.0)
    (state,) = captured
    assert (state.step, state.epoch, state.steps_taken, state.steps_of_epoch) == (5, 1, 5, 2)
    assert state.callbacks == ({"seen": 5},) and state.metrics is not None
    assert isinstance(state.learner.model.weight, np.ndarray)
    expected, history = made.fit(x, y, steps=5, batch_size=8, verbose=0)
    assert same(state.learner.model, expected.model)
    assert state.position == history.position
    assert float(state.metrics["loss"].compute()) == pytest.approx(history["loss"][-1], rel=1e-6)


def test_a_replacement_in_the_last_hook_leaves_the_logs_to_the_next() -> None:
    seen: list[Any] = []

    class Replaces(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            self.run = run
            run.replace(run.learner)

    class Looks(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            run.logs["own"] = 1.0

        def on_train_end(self, run: et.Run) -> None:
            seen.append((sorted(run.logs), run is replaces.run, run.stopped))

    replaces = Replaces()
    _, history = learner().fit(*data(8), callbacks=[replaces, Looks()], verbose=0)
    assert seen == [(["accuracy", "loss", "own"], True, None)] and history["own"] == [1.0]


@pytest.mark.parametrize("eager", [False, True])
def test_recent_logs_are_those_after_some_step_of_the_pass(eager: bool) -> None:
    recent: list[float] = []
    exact: list[float] = []

    class Watches(et.Callback):
        reads = "logs"

        def on_epoch_begin(self, run: et.Run) -> None:
            exact.clear()
            assert run.recent_logs == {}

        def on_train_batch_end(self, run: et.Run) -> None:
            recent_logs = dict(run.recent_logs)
            exact.append(run.logs["loss"])
            while run.step % 6 == 5 and not recent_logs:
                time.sleep(0.001)  # they arrive without anybody waiting for them
                recent_logs = dict(run.recent_logs)
            if recent_logs:
                assert sorted(recent_logs) == ["accuracy", "loss"]
                recent.append(recent_logs["loss"])
                assert recent_logs["loss"] in exact

        def on_epoch_end(self, run: et.Run) -> None:
            assert run.recent_logs is run.logs

    x, y = data(24)
    options: dict[str, Any] = {"verbose": 0, "eager": eager, "steps_per_call": 1}
    learner().fit(x, y, epochs=2, batch_size=4, callbacks=Watches(), **options)
    assert len(recent) >= 2


def test_recent_logs_arrive_though_the_last_batch_is_short() -> None:
    class Waits(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            while not run.recent_logs:
                time.sleep(0.001)

    forget_programs()  # or the full batches might have a program to compute with
    learner().fit(*data(11), batch_size=4, callbacks=Waits(), verbose=0, steps_per_call=1)


def test_recent_logs_never_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    fetched: list[Any] = []
    fetch = _placement.fetch
    monkeypatch.setattr(_placement, "is_ready", lambda tree: False)

    class Looks(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(_placement, "fetch", lambda t: fetched.append(t) or fetch(t))
                seen.append(run.recent_logs)

    learner().fit(*data(16), batch_size=4, callbacks=Looks(), verbose=0)
    assert seen == [{}] * 4 and fetched == []
