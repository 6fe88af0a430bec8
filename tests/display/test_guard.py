"""What others print while a live line is on the screen."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from screens import Screen, screen

from eqxtrain._display.sinks import Terminal


@contextmanager
def live_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Screen, Terminal]]:
    """A live line on a screen that has standard output and standard error."""
    with screen(40) as shown:
        monkeypatch.setattr(sys, "stdout", shown.stream)
        monkeypatch.setattr(sys, "stderr", shown.stream)
        sink = Terminal(shown.stream)
        sink.redraws_every = 0.0
        sink.open()
        sink.update(lambda width: "a live line")
        yield shown, sink
        sink.close()


def test_what_is_printed_stands_above_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_line(monkeypatch) as (shown, sink):
        print("hello")
        assert shown.lines() == ["hello"]
        sink.update(lambda width: "live again")
        assert shown.lines() == ["hello", "live again"]
        print("UserWarning: careful", file=sys.stderr)
        sink.line(lambda width: "done")
        assert shown.lines() == ["hello", "UserWarning: careful", "done"]


def test_a_line_that_somebody_has_begun_is_not_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_line(monkeypatch) as (shown, sink):
        print("working", end="")
        sink.update(lambda width: "live")
        assert shown.lines() == ["working"]
        print(" ...", end="", file=sys.stderr)
        sys.stdout.writelines([" done", "\n"])
        sink.update(lambda width: "live")
        assert shown.lines() == ["working ... done", "live"]
        print("working", end="")
        sink.line(lambda width: "epoch")
        assert shown.lines() == ["working ... done", "working", "epoch"]


def test_a_text_that_ends_the_line_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_line(monkeypatch) as (shown, sink):
        print("\nStopping")
        sink.update(lambda width: "live")
        assert shown.lines() == ["a live line", "Stopping", "live"]


def test_the_streams_are_as_before_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_line(monkeypatch) as (shown, sink):
        assert sys.stdout is not shown.stream and sys.stdout.isatty()
        assert sys.stdout.fileno() == shown.stream.fileno()
        kept = sys.stdout
        sink.close()
        assert sys.stdout is shown.stream and sys.stderr is shown.stream
        print("late", file=kept)
        assert shown.lines() == ["a live line", "late"]


def test_who_stands_before_them_by_then_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with live_line(monkeypatch) as (shown, sink):
        mine = object()
        monkeypatch.setattr(sys, "stdout", mine)
        sink.close()
        assert sys.stdout is mine and sys.stderr is shown.stream
