"""The calls of a pass that are under way, and what those that are over have emitted."""

import collections
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import _placement, _tree
from .._types import PyTree
from ..metrics import _logs
from .step import CallOutput


class _InFlight(NamedTuple):
    called: CallOutput
    emitted_static: _tree.Static
    span: tuple[int, int]


class CallQueue:
    """A queue of calls: bounded, so that the host does not run ahead without end.

    **Arguments:**

    - `most`: how many calls may be under way before the next one waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self._fetched: list[PyTree] = []
        self._last: CallOutput | None = None

    def __len__(self) -> int:
        return len(self._in_flight)

    def make_room(self) -> None:
        """Wait until another call may begin."""
        while len(self._in_flight) >= self._most:
            self._finish_one()

    def add(self, called: CallOutput, emitted_static: _tree.Static, span: tuple[int, int]) -> None:
        """Take a call in that has begun.

        **Arguments:**

        - `emitted_static`: all but the arrays of what a step emits.
        - `span`: the first batch of the stack that it runs, and the one behind its last.
        """
        self._last = called
        self._in_flight.append(_InFlight(called, emitted_static, span))

    def wait(self) -> None:
        """Wait for all of them, and for what went wrong in them."""
        while self._in_flight:
            self._finish_one()

    def forget(self) -> None:
        """Begin anew."""
        self.wait()
        self._fetched.clear()

    def trail(self, after: int, metrics: list[Any]) -> list[Any]:
        """The accumulators as they were after one batch of the last call.

        **Arguments:**

        - `after`: which batch of the stack.
        - `metrics`: the accumulators as they are.
        """
        rows = None if self._last is None else self._last.trail
        if not rows:
            return metrics
        return _tree.unpack(jax.tree.map(lambda row: np.asarray(row)[after], rows), metrics)

    def with_emitted(self, metrics: PyTree) -> PyTree:
        """Accumulators with what was emitted in its place; waits for all calls."""
        self.wait()
        return (
            _logs.restore_gathers(metrics, _logs.concatenate_gathers(self._fetched))
            if self._fetched
            else metrics
        )

    def _finish_one(self) -> None:
        called, static, (start, stop) = self._in_flight.popleft()
        _placement.wait(called.done)
        if not called.emitted:
            return
        fetched = static.merge(_placement.fetch(called.emitted))
        ran = slice(start, stop) if called.trail is not None else slice(None)
        self._fetched.append(jax.tree.map(lambda leaf: _rows(leaf, ran), fetched))


def _rows(leaf: np.ndarray, steps: slice) -> np.ndarray:
    """What some steps emitted, one row an example; a copy where it is a part of what was."""
    part = leaf[steps] if len(leaf[steps]) == len(leaf) else leaf[steps].copy()
    return part.reshape(part.shape[0] * part.shape[1], *part.shape[2:])
