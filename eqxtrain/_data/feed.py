"""The batches of a pass that come one by one: made in a thread, stacked as many as are there."""

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from .batch import Batch
from .cursor import StreamPosition
from .prefetch import PrefetchIterator
from .stack import Stack, stack_batches

_MAX_AHEAD = 16
"""How many batches may be ready, and how many of them a stack takes."""


_MAX_STACK_WAIT = 1e-3
"""Seconds for which a stack waits for more than its first batch: a call for each batch of a fast
source would cost more than making it. The device has work meanwhile, and no throughput is lost."""


class Item(NamedTuple):
    """A batch, and where the source stands behind it.

    **Arguments:**

    - `position_after`: where the source stands then.
    """

    batch: Batch
    position_after: StreamPosition


class Feed:
    """The batches of one pass, a bounded number ahead.

    **Arguments:**

    - `items`: makes the iterator of them; called in the thread.
    - `keep_waiting`: whether to go on waiting for the next one.
    - `max_batches`: how many will be asked for at most.
    """

    def __init__(
        self,
        items: Callable[[], Generator[Item, None, None]],
        keep_waiting: Callable[[], bool],
        max_batches: int | None,
    ) -> None:
        wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

        def make() -> Iterator[Item]:
            # the thread has no part in a `with jax.enable_x64(...)` of the one that trains
            with jax.enable_x64(wide), contextlib.closing(items()) as made:
                yield from itertools.islice(made, max_batches)

        self._ready = PrefetchIterator(
            make, ahead=1, keep_waiting=keep_waiting, name="eqxtrain-data"
        )
        self._keep_waiting = keep_waiting
        self.ended = False  # whether `stacks` came to the end, wherever the thread already is
        self._peeked: collections.deque[Item] = collections.deque()
        self._given: collections.deque[Item] = collections.deque()

    def peek(self) -> Item | None:
        """The next batch, which `stacks` will give all the same; None if there is none."""
        if not self._peeked:
            item = self._ready.take(wait=True)
            if item is None:
                return None
            self._peeked.append(item)
        return self._peeked[0]

    def stacks(
        self, capacity: Callable[[Batch], int], max_batches: int | None
    ) -> Generator[Stack, None, None]:
        """The next batches, as many in a stack as are there when one is wanted.

        A source that is slower than the device is waited for hardly longer than for one batch; the
        number of steps in a call changes no bit.
        """
        given = 0
        while max_batches is None or given < max_batches:
            first = self._peeked.popleft() if self._peeked else self._ready.take(wait=True)
            if first is None:
                self.ended = self._keep_waiting()
                return
            room = capacity(first.batch)
            here = (
                min(room, _MAX_AHEAD)
                if max_batches is None
                else min(room, _MAX_AHEAD, max_batches - given)
            )
            self._ready.ahead = max(min(room, _MAX_AHEAD), 2)
            items, like = [first], _shapes_and_dtypes(first.batch)
            if here > 1:
                self._ready.wait_for_items(here - 1, _MAX_STACK_WAIT)
            fits = lambda other, like=like: _shapes_and_dtypes(other.batch) == like
            while len(items) < here:
                another = self._ready.take(wait=False, fits=fits)
                if another is None:
                    break
                items.append(another)
            given += len(items)
            self._given.extend(items)
            yield stack_batches([item.batch for item in items], room)

    def consume(self, steps: int) -> Item:
        """Count so many batches as consumed; gives the last of them."""
        for _ in range(steps - 1):
            self._given.popleft()
        return self._given.popleft()

    @property
    def error(self) -> BaseException | None:
        """What was raised where the batches are made, and not yet here."""
        return self._ready.error

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._ready.is_alive

    def join(self) -> None:
        """Wait for the thread, however long it takes."""
        self._ready.join()

    def close(self) -> list[Item]:
        """End the thread; gives what was made and not consumed, in order."""
        left = [*self._given, *self._peeked, *self._ready.close()]
        self._given.clear()
        self._peeked.clear()
        return left


def _shapes_and_dtypes(batch: Batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
