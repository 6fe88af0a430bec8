"""The curves of a run, redrawn while it goes on."""

import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from eqxtrain._display import plot, sinks

Frames = list[tuple[float, str]]


class Figure:
    """A figure that takes some time to draw."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw

    def savefig(self, file: Any, format: str) -> None:
        self._draw()
        file.write(format.encode())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only moves when a test says so."""
    time = [0.0]
    monkeypatch.setattr(plot.time, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def frames(now: list[float], monkeypatch: pytest.MonkeyPatch) -> Frames:
    """What was shown, and when."""
    shown: Frames = []

    def show(self: sinks.Output, data: dict[str, Any]) -> None:
        assert data["image/png"] == b"png"
        shown.append((now[0], data["text/plain"]))

    monkeypatch.setattr(sinks.Output, "show", show)
    return shown


@pytest.mark.parametrize(("seconds", "every"), [(0.0, 1.0), (0.05, 1.05), (0.5, 5.5)])
def test_it_is_redrawn_once_a_second_at_most_and_takes_a_tenth_of_the_time(
    seconds: float, every: float, now: list[float], frames: Frames
) -> None:
    def draw() -> None:
        now[0] += seconds

    curves = plot.Plot()
    for epoch in range(1, 1001):
        curves.show(lambda: Figure(draw), epoch)
        now[0] += 0.01
    times = [at for at, _ in frames]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert frames[0][1] == "The curves after epoch 1" and min(gaps) >= every - 1e-9
    assert len(frames) >= 9 / every


def test_the_last_epoch_is_always_drawn_but_none_twice(now: list[float], frames: Frames) -> None:
    curves = plot.Plot()
    draw = lambda: Figure(lambda: None)
    curves.show(draw, 0, is_last=True)  # there is nothing to see
    assert frames == []
    curves.show(draw, 1)
    now[0] += 0.5
    curves.show(draw, 2)
    curves.show(draw, 2, is_last=True)
    now[0] += 5
    curves.show(draw, 2, is_last=True)
    assert frames == [(0.0, "The curves after epoch 1"), (0.5, "The curves after epoch 2")]


def test_an_output_is_displayed_once_and_then_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    handle = types.SimpleNamespace(update=lambda data, raw: sent.append(("update", data)))
    fake: Any = types.SimpleNamespace(
        display=lambda data, raw, display_id: sent.append(("display", data)) or handle
    )
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    output = sinks.Output()
    for text in ("a", "b", "c"):
        output.show({"text/plain": text})
    assert [(kind, data["text/plain"]) for kind, data in sent] == [
        ("display", "a"), ("update", "b"), ("update", "c"),
    ]  # fmt: skip
