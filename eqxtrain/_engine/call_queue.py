"""The calls of the device that have not been waited for, and what earlier ones emitted."""

import collections
from typing import NamedTuple

import jax
import numpy as np

from .. import _placement, _tree
from .._types import PyTree
from ..metrics import _logs
from .device_watch import DeviceWatch
from .loops import CallOutput


class Call(NamedTuple):
    """A call that has begun; see `CallQueue.add`."""

    output: CallOutput
    emitted_static: _tree.Static
    step_range: tuple[int, int]


class CallQueue:
    """A bounded queue of calls, so that the host does not run ahead of the device without end.

    **Arguments:**

    - `max_in_flight`: how many calls may be in flight before the next one waits.

    **Attributes:**

    - `last`: the call that was added last.
    - `watch`: told of each call; None if nobody wants to know when calls end.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._in_flight: collections.deque[Call] = collections.deque()
        self._fetched: list[PyTree] = []
        self.last: Call | None = None
        self.watch: DeviceWatch | None = None

    def __len__(self) -> int:
        return len(self._in_flight)

    def make_room(self) -> None:
        """Wait until another call may begin."""
        while len(self._in_flight) >= self._max_in_flight:
            self._finish_oldest()

    def add(
        self, output: CallOutput, emitted_static: _tree.Static, step_range: tuple[int, int]
    ) -> None:
        """Add a call that has begun.

        **Arguments:**

        - `emitted_static`: all but the arrays of what a step emits.
        - `step_range`: the steps of the stack that it runs, half open.
        """
        self.last = Call(output, emitted_static, step_range)
        if self.watch is not None:
            self.watch.add(output.done)
        self._in_flight.append(self.last)

    def wait(self) -> None:
        """Wait for all calls, and raise what went wrong in them."""
        while self._in_flight:
            self._finish_oldest()

    def clear(self) -> None:
        """Wait for all calls, and drop what they emitted."""
        self.wait()
        self._fetched.clear()
        self.last = None

    def with_emitted(self, metrics: PyTree) -> PyTree:
        """Restore what was emitted to its place in the accumulators; waits for all calls."""
        self.wait()
        if not self._fetched:
            return metrics
        return _logs.restore_gathers(metrics, _logs.concatenate_gathers(self._fetched))

    def _finish_oldest(self) -> None:
        output, static, (start, stop) = self._in_flight.popleft()
        _placement.wait(output.done)
        if not output.emitted:
            return
        fetched = static.merge(_placement.fetch(output.emitted))
        # A fused call has a row for each batch of the stack; those outside of its range are empty.
        ran = slice(None) if output.metrics_per_step is None else slice(start, stop)
        self._fetched.append(jax.tree.map(lambda leaf: _examples(leaf, ran), fetched))


def _examples(leaf: np.ndarray, steps: slice) -> np.ndarray:
    """Flatten what some steps emitted to one row an example.

    A part is copied, or it would keep the memory of the whole alive.
    """
    part = leaf[steps] if len(leaf[steps]) == len(leaf) else leaf[steps].copy()
    return part.reshape(part.shape[0] * part.shape[1], *part.shape[2:])
