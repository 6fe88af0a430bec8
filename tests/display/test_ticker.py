"""A clock in a thread."""

import bdb
import contextvars
import threading
from typing import Any

import pytest

from eqxtrain._display.ticker import Ticker, _is_debugged


def test_it_ticks_until_it_is_stopped_and_no_longer() -> None:
    ticks: list[int] = []
    three = threading.Event()

    def tick() -> None:
        ticks.append(threading.get_ident())
        if len(ticks) == 3:
            three.set()

    ticker = Ticker(tick, 0.001)
    three.wait()
    ticker.stop()
    count = len(ticks)
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    assert len(ticks) == count and threading.get_ident() not in ticks


def test_what_fails_is_not_tried_again() -> None:
    calls: list[int] = []

    def tick() -> None:
        calls.append(1)
        raise RuntimeError

    ticker = Ticker(tick, 0.001)
    ticker._thread.join()
    ticker.stop()
    assert calls == [1]


def test_it_has_the_context_of_its_maker() -> None:
    variable = contextvars.ContextVar("cell", default="")
    variable.set("mine")
    seen: list[str] = []
    done = threading.Event()
    ticker = Ticker(lambda: (seen.append(variable.get()), done.set())[0], 0.001)
    done.wait()
    ticker.stop()
    assert set(seen) == {"mine"}


def test_a_debugger_is_noticed() -> None:
    me = threading.get_ident()
    assert not _is_debugged(me)
    debugger: Any = bdb.Bdb()
    assert debugger.runcall(lambda: _is_debugged(me))
    assert not _is_debugged(me)


def test_it_pauses_while_its_maker_is_in_a_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[int] = []
    asked = threading.Event()

    def is_debugged(thread: int) -> bool:
        asked.set()
        return thread == me

    me = threading.get_ident()
    monkeypatch.setattr("eqxtrain._display.ticker._is_debugged", is_debugged)
    ticker = Ticker(lambda: ticks.append(1), 0.001)
    asked.wait()
    ticker.stop()
    assert ticks == []
