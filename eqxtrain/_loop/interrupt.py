"""Ctrl-C: once to end a run cleanly, twice to end it at once."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first Ctrl-C only sets `asked`; the second raises.

    A `KeyboardInterrupt` between a compiled call and the assignment of what it returned would lose
    the state for good, since the old one was donated. Outside the main thread, and where somebody
    else handles the signal, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._old: Any = None
        self._pid = os.getpid()

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            old = signal.getsignal(signal.SIGINT)
            if old is signal.default_int_handler:
                self._old = old
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *details: object) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
            self._old = None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.asked:
            self._restore()
            raise KeyboardInterrupt
        self.asked = True
        text = "Stopping after the current steps; press Ctrl-C again to stop immediately."
        if os.getpid() == self._pid:  # and no worker that was forked from it
            with contextlib.suppress(RuntimeError):  # it may be in the middle of a line
                print(f"\n{text}", file=sys.stderr)


def in_ipython() -> bool:
    """Whether this is an IPython shell or a notebook, where people go on after an interrupt."""
    if "IPython" not in sys.modules:
        return False
    return sys.modules["IPython"].get_ipython() is not None
