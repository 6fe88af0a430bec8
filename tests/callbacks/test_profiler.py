"""Traces, read back from the files that Perfetto opens."""

import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from helpers import data, learner

import eqxtrain as et

X, Y = data(21)
Profiler = et.callbacks.Profiler


def names(folder: Path) -> list[str]:
    """What happened, by the one trace in a folder."""
    (path,) = folder.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [event["name"] for event in events if event.get("ph") == "X"]


def calls(folder: Path) -> int:
    """How many calls of the training step there were, with one step each."""
    found = names(folder)
    assert "PjitFunction(jit(train_step))" in found
    return sum(re.match(r"\$runner\.py:\d+ run$", name) is not None for name in found)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(1, 2), (4, 6)])
def test_a_trace_has_the_steps_from_the_first_to_the_last(
    steps: tuple[int, int], tmp_path: Path
) -> None:
    profiler = Profiler(tmp_path / "new", steps=steps)
    assert "nothing is recorded yet" in repr(profiler)
    trained, _ = learner().fit(X, Y, batch_size=3, verbose=0)  # steps count from this `fit` on
    _, history = trained.fit(X, Y, batch_size=3, steps_per_call=1, verbose=0, callbacks=profiler)
    assert calls(tmp_path) == 1 + steps[1] - steps[0]
    assert history.epochs == 1 and f"recorded in {tmp_path / 'new'}" in repr(profiler)
    assert profiler.peak_memory is None and "'cpu' does not tell" in repr(profiler)


@pytest.mark.slow
def test_calls_are_cut_at_the_ends_of_the_trace_and_nowhere_else(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, steps=(3, 5))
    options: dict[str, Any] = {"batch_size": 3, "steps_per_call": 7, "verbose": 0}
    watched, _ = learner().fit(X, Y, **options, callbacks=profiler)
    alone, _ = learner().fit(X, Y, **options)
    assert calls(tmp_path) == 1
    assert (watched.model.weight == alone.model.weight).all()


@pytest.mark.parametrize("ends", ["exception", "stop", "interrupt", "the data"])
def test_whatever_ends_the_run_ends_the_trace(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    stopped: list[int] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path, **_: began.append(path))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: stopped.append(1))

    def end(run: et.Run) -> None:
        if ends == "exception":
            raise OSError("the disk is full")
        if ends == "interrupt":
            raise KeyboardInterrupt
        if ends == "stop":
            run.stop()

    profiler = Profiler(tmp_path, steps=(2, 9))
    other = et.callbacks.Lambda(on_train_batch_end=end, every=et.Every(steps=3))
    try:
        learner().fit(X, Y, batch_size=3, verbose=0, callbacks=[profiler, other])
    except (OSError, KeyboardInterrupt) as error:
        assert ends in ("exception", "interrupt"), error
    assert began == [str(tmp_path)] and stopped == [1]


def test_a_run_that_is_too_short_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"steps=\(10, 20\)\)` has recorded nothing"):
        learner().fit(X, Y, batch_size=7, verbose=0, callbacks=Profiler(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_trace_that_is_under_way_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Profile has already been started.")

    monkeypatch.setattr(jax.profiler, "start_trace", refuse)
    with pytest.raises(RuntimeError, match="another one is under way"):
        learner().fit(X, Y, verbose=0, callbacks=Profiler(tmp_path, steps=(1, 1)))


def test_the_peak_of_the_memory_is_that_of_the_fullest_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [
        SimpleNamespace(memory_stats=lambda n=n: {"peak_bytes_in_use": n * 2**30}) for n in (1, 3)
    ]
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    profiler = Profiler(tmp_path, steps=(1, 1))
    learner().fit(X, Y, verbose=0, callbacks=profiler)
    assert profiler.peak_memory == 3 * 2**30 and "at most 3.0 GiB" in repr(profiler)


@pytest.mark.usefixtures("unchecked")
def test_steps_that_are_none_are_refused() -> None:
    wrong: Any
    for wrong in ((0, 5), (6, 5), (1, 2, 3), (1.0, 2)):
        with pytest.raises(ValueError, match="the first and the last step of the trace"):
            Profiler(steps=wrong)
