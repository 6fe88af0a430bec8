"""The progress of a run, for whoever watches: a bar, a notebook cell, or plain lines.

The bar is drawn by hand: `rich.progress` takes 1.2 ms for an update that takes 0.02 ms here, and
shows nothing in a notebook without `ipywidgets`.
"""

import html
import importlib
import os
import shutil
import sys
import time
from typing import Any, Literal, final

from .._format import format_value
from ._base import Callback
from ._run import Run

_REFRESH = 0.25
"""Seconds between updates of the bar: rare, as reading the numbers waits for the device."""

_LINE_EVERY = 30.0
"""Seconds between lines within an epoch, where lines can't be overwritten."""

_CELL_LINES = 30
"""How many lines a notebook cell shows."""


@final
class Progress(Callback):
    """Shows how training is going. `fit` adds one unless `verbose=0`.

    **Arguments:**

    - `verbose`: 1 or `"auto"` for a live bar (in a terminal or notebook; elsewhere plain lines), 2
        for one line per epoch.
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()

    def __init__(self, verbose: Literal[1, 2, "auto"] = "auto") -> None:
        self._verbose: Literal[1, 2, "auto"] = verbose
        self._sink: _Lines = _Lines()
        self._began = self._drawn = self._after_first = 0.0
        self._batch = 0
        self._kind = "train"

    def on_train_begin(self, run: Run) -> None:
        self._open()

    def on_epoch_begin(self, run: Run) -> None:
        self._restart("train")

    def on_train_batch_end(self, run: Run) -> None:
        self._batch_end(run)

    def on_epoch_end(self, run: Run) -> None:
        self._sink.line(self._text(run, done=True))

    def on_train_end(self, run: Run) -> None:
        self._sink.close()

    def on_exception(self, run: Run) -> None:
        self._sink.close()

    def on_test_begin(self, run: Run) -> None:
        if "epochs" not in run.params:
            self._open()
            self._restart("test")

    def on_test_batch_end(self, run: Run) -> None:
        if "epochs" not in run.params:
            self._batch_end(run)

    def on_test_end(self, run: Run) -> None:
        if "epochs" not in run.params:
            self._sink.line(self._text(run, done=True))
            self._sink.close()

    def _open(self) -> None:
        self._sink = _choose(self._verbose)

    def _restart(self, kind: str) -> None:
        self._kind, self._batch = kind, 0
        self._began = self._drawn = time.monotonic()

    def _batch_end(self, run: Run) -> None:
        self._batch += 1
        now = time.monotonic()
        if self._batch == 1:  # its time is mostly the compiler's
            self._after_first = now
        if now - self._drawn >= self._sink.interval and self._batch != run.params["steps"]:
            self._drawn = now
            self._sink.update(self._text(run, done=False))

    def _text(self, run: Run, *, done: bool) -> str:
        steps: int | None = run.params["steps"]  # None where the data don't tell
        elapsed = time.monotonic() - self._began
        if self._kind == "train":
            epochs: int | None = run.params["epochs"]
            head = f"Epoch {run.epoch + 1}" + ("" if epochs is None else f"/{epochs}")
        else:
            head = "Evaluating"
        bar = "" if done or not self._sink.live else _bar(self._batch, steps)
        count = f"{self._batch}" if steps is None else f"{self._batch}/{steps}"
        pieces = [f"{head}  {bar}{count}  {_clock(elapsed)}{'' if done else self._left(steps)}"]
        pieces += [f"{name}: {format_value(value)}" for name, value in run.logs.items()]
        return "  ".join(pieces)

    def _left(self, steps: int | None) -> str:
        if steps is None or self._batch < 2:
            return ""
        each = (time.monotonic() - self._after_first) / (self._batch - 1)
        return f", {_clock(each * (steps - self._batch))} left"


class _Lines:
    """Plain lines, for files and pipes."""

    live = False
    interval = _LINE_EVERY

    def update(self, text: str) -> None:
        self.line(text)

    def line(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None: ...


class _Epochs(_Lines):
    """One line an epoch and nothing between."""

    interval = float("inf")


class _Bar(_Lines):
    """One line of a terminal, overwritten."""

    live = True
    interval = _REFRESH

    def __init__(self) -> None:
        self._open = False

    def update(self, text: str) -> None:
        width = _line_width()
        sys.stdout.write("\r" + text[:width].ljust(width))
        sys.stdout.flush()
        self._open = True

    def line(self, text: str) -> None:
        if self._open:
            sys.stdout.write("\r" + " " * _line_width() + "\r")
            self._open = False
        print(text, flush=True)

    def close(self) -> None:
        if self._open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open = False


class _Cell(_Lines):
    """One output of a notebook cell, updated in place, and kept in the saved file."""

    live = True
    interval = _REFRESH

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._shown = 0.0
        self._handle: Any = None

    def update(self, text: str) -> None:
        self._show([*self._lines, text])

    def line(self, text: str) -> None:
        self._lines.append(text)
        if time.monotonic() - self._shown >= self.interval:
            self._show(self._lines)

    def close(self) -> None:
        self._show(self._lines)

    def _show(self, lines: list[str]) -> None:
        ipython: Any = importlib.import_module("IPython.display")
        self._shown = time.monotonic()
        hidden = len(lines) - _CELL_LINES
        above = [f"({hidden} earlier lines)"] if hidden > 0 else []
        body = html.escape("\n".join([*above, *lines[-_CELL_LINES:]]))
        shown = ipython.HTML(f"<pre style='margin:0'>{body}</pre>")
        if self._handle is None:
            self._handle = ipython.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def _choose(verbose: Literal[1, 2, "auto"]) -> _Lines:
    if verbose == 2:
        return _Epochs()
    if _in_notebook():
        return _Cell()
    is_terminal = getattr(sys.stdout, "isatty", bool)()
    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    return _Bar() if is_terminal and not is_dumb else _Lines()


def _in_notebook() -> bool:
    """Whether what is displayed goes to a notebook, by the class of IPython's shell.

    Spyder's shell has a kernel as well, but shows no HTML.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return False
    in_colab = type(shell).__module__.startswith("google.colab")
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    return type(shell).__name__ == "ZMQInteractiveShell" or in_colab or on_databricks


def _line_width() -> int:
    """How many characters fit a line. One stays free, as some terminals wrap after the last."""
    return max(shutil.get_terminal_size().columns - 1, 20)


def _bar(done: int, total: int | None, width: int = 20) -> str:
    if total is None:
        return ""
    filled = width * done // total
    return "━" * filled + "╺" * (width - filled) + " "


def _clock(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}" if minutes else f"{seconds}s"
