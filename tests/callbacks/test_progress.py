"""What people watch: lines in files, a bar in terminals, nothing when asked for nothing."""

import re
import sys
import types
from typing import Any

import pytest
from helpers import data, learner

from eqxtrain.callbacks import _progress


@pytest.mark.parametrize("verbose", [2, "auto", 1])
def test_where_nothing_can_be_overwritten_there_is_one_line_an_epoch(
    verbose: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = data()
    learner().fit(x, y, epochs=2, batch_size=7, validation_data=(x, y), verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.match(r"Epoch 1/2  3/3  \S+  loss: \d.\d{4}  accuracy: .*val_loss: ", lines[0])
    assert "\r" not in "".join(lines) and "\x1b" not in "".join(lines)


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = learner().fit(*data(), verbose=0)
    made.evaluate(*data())
    made.predict(data()[0])
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_evaluate_shows_its_own_line_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    learner().evaluate(*data(), verbose=2)
    assert capsys.readouterr().out.startswith("Evaluating  1/1")


def test_a_terminal_has_a_bar_that_is_overwritten_and_then_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "_choose", lambda verbose: _progress._Bar())
    monkeypatch.setattr(_progress._Bar, "interval", 0.0)
    learner().fit(*data(), batch_size=7)
    out = capsys.readouterr().out
    assert out.count("\rEpoch 1/1") == 3 and "━" in out and "left" in out
    assert out.rstrip("\n").split("\r")[-1].startswith("Epoch 1/1  3/3")


def test_clocks_are_short() -> None:
    assert [_progress._clock(s) for s in (0.04, 12.3, 75.0, 3700.0)] == [
        "0.0s", "12s", "1:15", "1:01:40",
    ]  # fmt: skip


def test_a_bar_is_as_wide_as_the_terminal_and_no_wider(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = _progress._Bar()
    for columns in ("40", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        bar.update("x" * 100)
    bar.line("done")
    shown = capsys.readouterr().out.split("\r")
    assert [len(text) for text in shown] == [0, 39, 59, 59, 5] and shown[-1] == "done\n"


class ZMQInteractiveShell: ...


class SpyderShell(ZMQInteractiveShell): ...


@pytest.mark.parametrize(
    ("terminal", "term", "shell", "sink"),
    [
        (True, "xterm-256color", None, _progress._Bar),
        (True, "dumb", None, _progress._Lines),
        (False, "xterm-256color", None, _progress._Lines),
        (False, "xterm-256color", ZMQInteractiveShell(), _progress._Cell),
        (True, "xterm-256color", SpyderShell(), _progress._Bar),
        (True, "xterm-256color", type("Shell", (), {"__module__": "google.colab._shell"})(),
         _progress._Cell),
    ],
)  # fmt: skip
def test_who_watches_decides_what_is_shown(
    terminal: bool, term: str, shell: Any, sink: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    ipython: Any = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert type(_progress._choose("auto")) is sink and type(_progress._choose(1)) is sink
    assert type(_progress._choose(2)) is _progress._Epochs


@pytest.mark.parametrize(("interval", "updates"), [(0.0, 121), (1e9, 1)])
def test_a_notebook_has_one_cell_that_is_updated_and_kept(
    interval: float, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    handle = types.SimpleNamespace(update=shown.append)
    fake: Any = types.SimpleNamespace(
        HTML=str, display=lambda page, display_id: shown.append(page) or handle
    )
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(_progress, "_choose", lambda verbose: _progress._Cell())
    monkeypatch.setattr(_progress._Cell, "interval", interval)
    learner().fit(*data(), epochs=40, batch_size=7)
    last = shown[-1].splitlines()
    assert last[0].endswith("(10 earlier lines)") and last[-1].startswith("Epoch 40/40")
    assert len(last) == 31 and len(shown) == updates
