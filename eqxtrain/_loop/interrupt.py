"""Ctrl-C: once to end a run cleanly, twice to end it at once."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """A context in which the first Ctrl-C only sets `requested`; the second raises.

    If Ctrl-C raised between a compiled call and the assignment of its result, the state would be
    lost for good, since the call has donated the old one. So the loop looks at `requested` between
    calls instead. Outside the main thread (where Python allows no handlers), and where other code
    already handles the signal, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._old: Any = None
        self._pid = os.getpid()

    def keep_waiting(self) -> bool:
        """Whether to go on waiting for data."""
        return not self.requested

    def is_requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self.requested

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
        if self.requested:
            self._restore()
            raise KeyboardInterrupt
        self.requested = True
        text = "Stopping after the current steps; press Ctrl-C again to stop immediately."
        if os.getpid() == self._pid:  # a forked worker gets the signal too, and should not print
            # `print` raises a RuntimeError if the signal arrives while stderr is being written.
            with contextlib.suppress(RuntimeError):
                print(f"\n{text}", file=sys.stderr)


def in_ipython() -> bool:
    """Whether this is an IPython shell or a notebook, where users carry on after an interrupt."""
    if "IPython" not in sys.modules:
        return False
    return sys.modules["IPython"].get_ipython() is not None
