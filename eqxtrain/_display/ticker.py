"""A clock that has a display redrawn while the main thread waits."""

import contextvars
import sys
import threading
from collections.abc import Callable


class Ticker:
    """Calls a function again and again, in a thread, until it is stopped.

    It pauses while a debugger talks to whoever made it.

    **Arguments:**

    - `tick`: what to call; nothing of JAX's, as its thread must not wait for the device.
    - `seconds`: how long to wait between two calls.
    """

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick = tick
        self._seconds = seconds
        self._maker = threading.get_ident()
        self._stopped = threading.Event()
        # A notebook finds the cell that displays something by a context variable.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="progress", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                if not _is_debugged(self._maker):
                    self._tick()
            except Exception:  # what cannot be displayed now need not be; the run goes on
                return

    def stop(self) -> None:
        """Stop it: when this returns, the last call is over."""
        self._stopped.set()
        self._thread.join()


def _is_debugged(thread: int) -> bool:
    """Whether a thread is in a debugger: in `breakpoint()`, for one."""
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_globals.get("__name__") != "bdb":
        frame = frame.f_back
    return frame is not None
