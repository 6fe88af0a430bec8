"""Where the time of an epoch's steps goes."""

import time
from collections.abc import Iterator

from .. import _data as data
from .._engine.compile import seconds_spent
from .._engine.device_watch import DeviceWatch
from .._history import PassTiming


class EpochClock:
    """Adds up what the steps of an epoch did, and how long they took.

    It looks at the time once for each call of the device and twice for each stack.

    **Arguments:**

    - `timing`: what it adds to.
    - `watch`: knows when the device is idle; None if nobody asks.
    """

    def __init__(self, timing: PassTiming, watch: DeviceWatch | None) -> None:
        self._timing = timing
        self._watch = watch
        if watch is not None:
            timing.idle = timing.idle or 0.0
        self.skip()

    def skip(self) -> None:
        """Leave out what happened since the last lap."""
        self._now, self._compiling = time.perf_counter(), seconds_spent()

    def lap(self) -> float:
        """Count the time since the last lap; returns its seconds without those of compiles."""
        before, compiled_before = self._now, self._compiling
        self.skip()
        compiling = self._compiling - compiled_before
        seconds = self._now - before - compiling
        self._timing.seconds += seconds
        self._timing.compile_wait += compiling
        return seconds

    def timed(self, stacks: Iterator[data.Stack]) -> Iterator[data.Stack]:
        """The same stacks; counts the time until each is there as waiting."""
        while True:
            self.lap()
            stack = next(stacks, None)
            waited = self.lap()
            self._timing.waiting += waited
            self._count_idle(waited)
            if stack is None:
                return
            yield stack

    def _count_idle(self, waited: float) -> None:
        """Of the wait that has just ended, count what came after the device's last call."""
        since = None if self._watch is None else self._watch.idle_since
        if since is not None:
            assert self._timing.idle is not None
            self._timing.idle += min(waited, self._now - since)

    def count(self, steps: int, examples: int, flops: float) -> None:
        """Count the steps of a call that has begun, and what they did."""
        self._timing.steps += steps
        self._timing.examples += examples
        self._timing.flops += flops
        self.lap()
