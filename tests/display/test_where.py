"""Who watches decides what is shown."""

import sys
import types
from typing import Any

import pytest

import eqxtrain as et
from eqxtrain._display.sinks import Cell, Lines, PassLines, Terminal
from eqxtrain._display.where import choose_sink


class ZMQInteractiveShell: ...


class SpyderShell(ZMQInteractiveShell): ...


COLAB = type("Shell", (), {"__module__": "google.colab._shell"})()


@pytest.mark.parametrize(
    ("terminal", "term", "shell", "sink"),
    [
        (True, "xterm-256color", None, Terminal),
        (True, "dumb", None, Lines),
        (False, "xterm-256color", None, Lines),
        (False, "xterm-256color", ZMQInteractiveShell(), Cell),
        (True, "xterm-256color", SpyderShell(), Terminal),
        (True, "xterm-256color", COLAB, Cell),
    ],
)
def test_who_watches_decides_what_is_shown(
    terminal: bool, term: str, shell: Any, sink: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    ipython: Any = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert type(choose_sink("auto")) is sink and type(choose_sink(1)) is sink
    assert type(choose_sink(2)) is PassLines


def test_without_a_standard_output_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert type(choose_sink("auto")) is Lines


def test_a_plot_without_a_notebook_is_refused() -> None:
    with pytest.raises(ValueError, match="is none: choose another `verbose`, and call"):
        et.callbacks.Progress("plot")


def test_a_plot_without_matplotlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ZMQInteractiveShell()
    ipython: Any = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'eqxtrain\[plot\]'"):
        et.callbacks.Progress("plot")
