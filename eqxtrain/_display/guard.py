"""What others print while a live line is on the screen."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

MakesWay = Callable[[str], AbstractContextManager[None]]
"""Given a text that somebody writes, a context to write it in."""


class Guard:
    """Has a live line make way for what is written to standard output and standard error.

    **Arguments:**

    - `makes_way`: the context in which others write.
    """

    def __init__(self, makes_way: MakesWay) -> None:
        self._makes_way = makes_way
        self._guarded: dict[str, _Guarded] = {}

    def begin(self) -> None:
        """Stand before both, as far as they are terminals."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if getattr(stream, "isatty", bool)():
                guarded = _Guarded(stream, self._makes_way)
                self._guarded[name] = guarded
                setattr(sys, name, guarded)

    def end(self) -> None:
        """Step aside, as soon as nobody else stands before them."""
        for name, guarded in self._guarded.items():
            guarded.makes_way = None
            stream = getattr(sys, name)
            while isinstance(stream, _Guarded) and stream.makes_way is None:
                stream = stream.stream
            setattr(sys, name, stream)
        self._guarded = {}


class _Guarded:
    """A stream whose `write` is preceded by a live line making way."""

    def __init__(self, stream: Any, makes_way: MakesWay) -> None:
        self.stream = stream
        self.makes_way: MakesWay | None = makes_way

    def write(self, text: str) -> int:
        if self.makes_way is None:
            return self.stream.write(text)
        with self.makes_way(text):
            return self.stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
