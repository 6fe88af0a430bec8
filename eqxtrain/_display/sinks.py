"""Where progress is shown: lines of a file, a line of a terminal, a cell of a notebook."""

import abc
import contextlib
import html
import importlib
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, final

from .guard import Guard
from .line import width_of

Text = Callable[[int | None], str | None]
"""The text of a line, given how many columns it may take (None for as many as it likes); it returns
None if there is no such line."""


class Sink(abc.ABC):
    """Shows lines that stay, and below them perhaps a live one, which changes.

    Two threads may use it: the one that trains, and a ticker's.

    **Attributes:**

    - `is_live`: whether a live line can be redrawn in its place.
    - `looks_every`: how many seconds may pass until newer numbers are looked at.
    - `redraws_every`: how many seconds pass between two redraws, at least.
    """

    is_live: bool = False
    looks_every: float = 1.0
    redraws_every: float = 0.1

    def __init__(self) -> None:
        # Reentrant, since a signal's handler prints while its thread may be drawing.
        self._lock: threading.RLock = threading.RLock()
        self._is_open: bool = False
        self._drawn_at: float = -math.inf

    def open(self) -> None:
        """Begin to show something."""
        self._is_open = True

    def update(self, text: Text) -> None:
        """Show the live line, if it is time to redraw it."""
        with self._lock:
            now = time.monotonic()
            if self._is_open and now - self._drawn_at >= self.redraws_every:
                line = text(self._width())
                if line is not None:
                    self._drawn_at = now
                    self._draw(line)

    def line(self, text: Text) -> None:
        """Show a line that stays, in place of the live one."""
        with self._lock:
            line = text(self._width()) if self._is_open else None
            if line is not None:
                self._keep(line)

    def close(self) -> None:
        """Leave everything in order, and show nothing from now on. The last live line stays."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._end()

    def _width(self) -> int | None:
        return None

    @abc.abstractmethod
    def _draw(self, line: str) -> None: ...

    @abc.abstractmethod
    def _keep(self, line: str) -> None: ...

    def _end(self) -> None:
        return


class Lines(Sink):
    """Plain lines, for files and pipes: one for each pass, and one in a while in between."""

    redraws_every = 30.0

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._drawn_at = time.monotonic()

    def _draw(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a pipe that was closed should not end the run
            print(_encodable(line, self._stream), file=self._stream, flush=True)

    def _keep(self, line: str) -> None:
        self._draw(line)
        self._drawn_at = time.monotonic()


@final
class PassLines(Lines):
    """One line for each pass, and nothing in between."""

    looks_every = redraws_every = math.inf


@final
class Terminal(Sink):
    """The lines of a terminal, the last of which is overwritten.

    It uses no escape codes, which some terminals do not know, and never hides the cursor. What
    others print stands above the live line.
    """

    is_live = True
    looks_every = 0.1

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._live = ""
        self._is_interrupted = False  # by somebody who has not ended the line
        self._guard = Guard(self._makes_way)

    def open(self) -> None:
        super().open()
        self._guard.begin()

    def _width(self) -> int:
        """How many columns a line may take, as of now. Some terminals wrap after the last one."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return max((columns or shutil.get_terminal_size().columns) - 1, 1)

    def _draw(self, line: str) -> None:
        if line != self._live and not self._is_interrupted:
            self._overwrite(line)
            self._live = line

    def _keep(self, line: str) -> None:
        if self._is_interrupted:
            self._write("\n")
        self._overwrite(line, end="\n")
        self._live, self._is_interrupted = "", False

    def _end(self) -> None:
        self._guard.end()
        if self._live:
            self._write("\n")

    @contextlib.contextmanager
    def _makes_way(self, text: str) -> Iterator[None]:
        """Let others write."""
        with self._lock:
            if self._live and not text.startswith("\n"):
                self._overwrite("", end="\r")
            if text:
                self._live, self._is_interrupted = "", not text.endswith("\n")
            yield

    def _overwrite(self, line: str, end: str = "") -> None:
        # Spaces up to the end of what was there, and no further: a terminal that is made narrower
        # would wrap them. One that was made narrower may show it up to the last column.
        rest = min(width_of(self._live), self._width() + 1) - width_of(line)
        begin = "\r" if self._live else ""
        self._write(f"{begin}{line}{' ' * rest}{end}")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed should not end the run
            self._stream.write(_encodable(text, self._stream))
            self._stream.flush()


_KEPT_LINES = 30
"""How many lines a notebook shows."""


@final
class Cell(Sink):
    """One output of a notebook's cell, updated in its place, and kept in the saved file.

    **Arguments:**

    - `kept_lines`: how many of the lines that stay are shown. The earlier ones are only counted,
        or with `kept_lines=1` not even that.
    """

    is_live = True
    looks_every = redraws_every = 0.25

    def __init__(self, kept_lines: int = _KEPT_LINES) -> None:
        super().__init__()
        self._kept_lines = kept_lines
        self._lines: list[str] = []
        self._live: str | None = None
        self._shown = ""
        self._output = Output()

    def _draw(self, line: str) -> None:
        self._live = line
        self._show()

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._live = None

    def _end(self) -> None:
        self._show()

    def _show(self) -> None:
        hidden = max(len(self._lines) - self._kept_lines, 0)
        above = [f"({hidden} earlier lines)"] if hidden and self._kept_lines > 1 else []
        below = [] if self._live is None else [self._live]
        text = "\n".join([*above, *self._lines[hidden:], *below])
        if text != self._shown:
            self._shown = text
            body = f"<pre style='margin:0'>{html.escape(text)}</pre>"
            self._output.show({"text/html": body, "text/plain": text})


@final
class Output:
    """One output of a notebook's cell, which can be replaced, and is in the file when it is saved.

    It needs nothing of the page but what shows any output, so widgets may be missing.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, data: dict[str, Any]) -> None:
        """Show some data, in several formats, in place of what was shown before."""
        if self._handle is None:
            ipython: Any = importlib.import_module("IPython.display")
            self._handle = ipython.display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


_ASCII = str.maketrans("━╺…", "=-.")


def _encodable(text: str, stream: Any) -> str:
    """The text, without what the stream cannot write."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text
