"""Where progress is shown, on the screen of a terminal and elsewhere."""

import io
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from screens import screen

from eqxtrain._display import sinks
from eqxtrain._display.line import cut
from eqxtrain._display.sinks import Cell, Lines, PassLines, Sink, Terminal


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(sinks.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def says(text: str) -> Callable[[int | None], str]:
    return lambda width: text if width is None else cut(text, width)


def test_a_terminal_has_the_live_line_beneath_the_others() -> None:
    with screen(20) as shown:
        sink = Terminal(shown.stream)
        sink.redraws_every = 0.0
        sink.open()
        for i in range(3):
            sink.update(says(f"live {i} and a long text"))
            sink.update(says(f"live {i}"))
            assert shown.lines() == [*(f"done {j}" for j in range(i)), f"live {i}"]
            sink.line(says(f"done {i}"))
            assert shown.lines() == [f"done {j}" for j in range(i + 1)]
        sink.close()
        assert shown.cursor() == (3, 0, True) and not shown.wraps()
        assert "\x1b" not in shown.written


def test_a_live_line_stays_where_the_run_ended() -> None:
    with screen(40) as shown:
        sink = Terminal(shown.stream)
        sink.open()
        sink.update(says("step 3 of 7"))
        sink.close()
        sink.close()
        sink.update(says("too late"))
        sink.line(says("too late"))
        assert shown.lines() == ["step 3 of 7"] and shown.cursor() == (1, 0, True)


def test_a_terminal_may_be_resized_meanwhile() -> None:
    text = "0123456789" * 12
    with screen(60) as shown:
        sink = Terminal(shown.stream)
        sink.redraws_every = 0.0
        sink.open()
        for columns in (60, 25, 90, 10, 40):
            shown.resize(columns)
            sink.update(says(text))
            assert shown.lines() == [text[: columns - 2] + "…"]
        sink.line(says("done"))
        assert shown.lines() == ["done"]


@pytest.mark.parametrize(
    "text", ["精度: 0.5 精度精度精度", "e\u0301 précision très haute, trop haute"]
)
def test_wide_characters_leave_nothing_over(text: str) -> None:
    with screen(20) as shown:
        sink = Terminal(shown.stream)
        sink.redraws_every = 0.0
        sink.open()
        sink.update(says(text))
        assert shown.lines()[0].endswith("…")
        sink.update(says("short"))
        assert shown.lines() == ["short"]
        sink.close()


def test_a_terminal_of_no_size_is_taken_for_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    with screen(0) as shown:
        assert Terminal(shown.stream)._width() == 29


@pytest.mark.parametrize(
    ("make", "seconds"), [(Terminal, 0.1), (lambda stream: Cell(), 0.25), (Lines, 30.0)]
)
def test_redraws_are_limited(
    make: Any, seconds: float, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    sink: Sink = make(io.StringIO())
    monkeypatch.setattr(sink, "_draw", drawn.append)
    sink.open()
    for i in range(6000):
        clock.now += seconds / 100
        sink.update(says(f"{i}"))
    assert 58 <= len(drawn) <= 61
    sink.update(lambda width: None)  # nothing to show takes no turn
    assert len(drawn) <= 61


def test_what_has_not_changed_is_not_written_again(clock: Clock) -> None:
    stream = io.StringIO()
    sink = Terminal(stream)
    sink.open()
    for _ in range(5):
        clock.now += 1
        sink.update(says("same"))
    assert stream.getvalue() == "same"


def test_one_line_for_each_pass_has_none_in_between(clock: Clock) -> None:
    stream = io.StringIO()
    sink = PassLines(stream)
    sink.open()
    for i in range(3):
        clock.now += 1e9
        sink.update(says("live"))
        sink.line(says(f"done {i}"))
    assert stream.getvalue() == "done 0\ndone 1\ndone 2\n"


def test_plain_lines_come_once_in_a_while_after_the_last(clock: Clock) -> None:
    stream = io.StringIO()
    sink = Lines(stream)
    sink.open()
    for seconds in (29, 2, 20, 9, 1):
        clock.now += seconds
        sink.update(says("live"))
        if seconds == 20:
            sink.line(says("done"))
    assert stream.getvalue() == "live\ndone\n"


@pytest.mark.parametrize("make", [Lines, Terminal])
def test_what_a_stream_cannot_encode_is_replaced(make: Any) -> None:
    raw = io.BytesIO()
    sink: Sink = make(io.TextIOWrapper(raw, encoding="ascii", newline="\n"))
    sink.open()
    sink.line(says("━━╺╺ 精: 1…"))
    assert raw.getvalue() == b"==-- ?: 1.\n"


def test_without_a_standard_output_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    sink = Lines(None)
    sink.open()
    sink.line(says("nobody reads this"))


def test_a_terminal_that_is_gone_does_not_end_the_run() -> None:
    with screen(40) as shown:
        sink = Terminal(shown.stream)
        sink.open()
        sink._stream = types.SimpleNamespace(encoding="utf-8", write=fails, fileno=fails)
        sink.line(says("nobody reads this"))
        sink.close()


def fails(*_: Any) -> None:
    raise OSError(5, "Input/output error")


def test_a_cell_keeps_its_last_lines_and_escapes_them(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, str]] = []
    handle = types.SimpleNamespace(update=lambda data, raw: shown.append(data))
    fake: Any = types.SimpleNamespace(
        display=lambda data, raw, display_id: shown.append(data) or handle
    )
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    cell = Cell()
    cell.open()
    for i in range(40):
        cell.update(says("live"))
        cell.line(says(f"<{i}>"))
        clock.now += 0.1
    cell.close()
    last = shown[-1]["text/plain"].splitlines()
    assert last == ["(10 earlier lines)", *(f"<{i}>" for i in range(10, 40))]
    assert shown[-1]["text/html"].endswith("&lt;38&gt;\n&lt;39&gt;</pre>")
    assert shown[0]["text/plain"] == "live" and len(shown) == 15
