"""A terminal to test with: a real pseudo-terminal, and an emulation of its screen."""

import codecs
import fcntl
import os
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from helpers import library

_MARK = "\x1b[0m"
"""What changes nothing on the screen, and nobody but this file writes."""


class Screen:
    """A pseudo-terminal. What a program writes to `stream` is drawn by pyte, as it would be seen.

    **Attributes:**

    - `stream`: the program's end.
    - `shots`: what the screen showed after each piece of it that arrived.
    """

    def __init__(self, columns: int, rows: int = 50) -> None:
        pyte: Any = library("pyte")
        self._screen = pyte.Screen(columns, rows)
        self._parser = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._main, program = os.openpty()
        self.stream: TextIO = os.fdopen(program, "w", encoding="utf-8")
        self._rows = rows
        self._received = ""
        self._marks = 0
        self.shots: list[list[str]] = []
        self._lock = threading.Lock()
        self._set_size(columns)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                received = os.read(self._main, 4096)
            except OSError:  # the other end was closed
                return
            with self._lock:
                self._parser.feed(text := self._decoder.decode(received))
                self.shots.append(self._lines())
                self._received += text

    @property
    def written(self) -> str:
        """Everything that was written, as the terminal received it."""
        self._wait_for_all()
        return self._received.replace(_MARK, "")

    def resize(self, columns: int) -> None:
        """Make it wider or narrower, as a user would."""
        self._wait_for_all()
        with self._lock:
            self._screen.resize(columns=columns)
            self._set_size(columns)

    def _set_size(self, columns: int) -> None:
        size = struct.pack("HHHH", self._rows, columns, 0, 0)
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, size)

    def lines(self) -> list[str]:
        """What it shows now, down to the last line that is not empty."""
        self._wait_for_all()
        with self._lock:
            return self._lines()

    def wait_until(self, holds: Callable[[list[str]], bool]) -> None:
        """Wait until something holds of what it shows; what never does runs into a time limit."""
        while not holds(self.lines()):
            time.sleep(0.002)

    def cursor(self) -> tuple[int, int, bool]:
        """The row and the column of the cursor, and whether it is visible."""
        self._wait_for_all()
        at = self._screen.cursor
        return at.y, at.x, not at.hidden

    def wraps(self) -> bool:
        """Whether any line that it has shown reached the last column."""
        return any(len(line) >= self._screen.columns for shot in self.shots for line in shot)

    def _lines(self) -> list[str]:
        shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def _wait_for_all(self) -> None:
        """Wait until everything that was written has been drawn, told by a mark after it."""
        self.stream.flush()
        self._marks += 1
        os.write(self.stream.fileno(), _MARK.encode())
        while self._received.count(_MARK) < self._marks:
            time.sleep(0.0005)

    def close(self) -> None:
        """Close both of its ends."""
        self.stream.close()
        self._reader.join()
        os.close(self._main)


@contextmanager
def screen(columns: int, rows: int = 50) -> Iterator[Screen]:
    """A screen of so many columns, closed at the end."""
    opened = Screen(columns, rows)
    try:
        yield opened
    finally:
        opened.close()
