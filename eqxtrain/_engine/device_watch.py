"""Since when the device has had nothing to do."""

import contextlib
import queue
import threading
import time

import jax

from .. import _placement


class DeviceWatch:
    """Notes when each call of the device ends, from a thread that waits for it.

    The thread that trains never waits here. Leaving this context manager ends the thread after the
    last call.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[jax.Array | None] = queue.SimpleQueue()
        self._begun = self._ended = 0
        self._last_end = time.perf_counter()

    def __enter__(self) -> "DeviceWatch":
        threading.Thread(target=self._wait_for_calls, name="eqxtrain-device", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(None)

    def add(self, done: jax.Array) -> None:
        """Take a call that has begun, as an array that arrives when it is over."""
        self._begun += 1
        self._calls.put(done)

    @property
    def idle_since(self) -> float | None:
        """When the last call ended, by `time.perf_counter`; None while one is under way."""
        return self._last_end if self._ended == self._begun else None

    def _wait_for_calls(self) -> None:
        while (done := self._calls.get()) is not None:
            with contextlib.suppress(Exception):  # raised where the call is waited for as well
                _placement.wait(done)
            self._last_end = time.perf_counter()
            self._ended += 1
