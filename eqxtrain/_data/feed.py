"""The batches of one pass, made in a thread and stacked, as many as are ready."""

import collections
import contextlib
import functools
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
"""How many batches may be ready at once, and how many a stack holds at most."""

_MAX_STACK_WAIT = 1e-3
"""Seconds that a stack waits for more batches after its first. With a fast source, one call per
batch would cost more than making the batch; meanwhile the device still works on the last call."""


class Item(NamedTuple):
    """A batch, and where its source stands once it was read."""

    batch: Batch
    position_after: StreamPosition


class Feed:
    """The batches of one pass, read a bounded number ahead.

    **Arguments:**

    - `make_items`: makes the iterator over them; called in the thread.
    - `keep_waiting`: whether to go on waiting for the next batch.
    - `max_batches`: reads no more than this many, even if there are more.
    """

    def __init__(
        self,
        make_items: Callable[[], Generator[Item, None, None]],
        keep_waiting: Callable[[], bool],
        max_batches: int | None,
    ) -> None:
        # `with jax.enable_x64(...)` holds for one thread only, so we carry it over to ours.
        x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

        def make() -> Iterator[Item]:
            with jax.enable_x64(x64), contextlib.closing(make_items()) as items:
                # A user's own iterator must not lose batches that nobody will ask for.
                yield from itertools.islice(items, max_batches)

        self._ready = PrefetchIterator(make, keep_waiting=keep_waiting)
        self._keep_waiting = keep_waiting
        # The thread may have finished long before: this is about what `stacks` has yielded.
        self.ended = False
        self._peeked: collections.deque[Item] = collections.deque()
        # Stacked, but not consumed yet: after an interruption these go back to the source.
        self._unconsumed: collections.deque[Item] = collections.deque()

    def peek(self) -> Item | None:
        """The next batch, which `stacks` will still yield; None if there is none."""
        if not self._peeked:
            item = self._ready.take(wait=True)
            if item is None:
                return None
            self._peeked.append(item)
        return self._peeked[0]

    def stacks(
        self, plan_stack: Callable[[Batch], int], max_batches: int | None
    ) -> Generator[Stack, None, None]:
        """The next batches, stacked, as many as are ready when the stack is asked for.

        So a slow source never holds the device up for a full stack. How many steps share a call
        depends on timing then, but changes no bit of the result.
        """
        count = 0
        while max_batches is None or count < max_batches:
            first = self._peeked.popleft() if self._peeked else self._ready.take(wait=True)
            if first is None:
                # Either the pass is over, or we were told to stop waiting.
                self.ended = self._keep_waiting()
                return
            room = plan_stack(first.batch)
            wanted = min(room, _MAX_AHEAD)
            if max_batches is not None:
                wanted = min(wanted, max_batches - count)
            # Two at least, so that one batch is made while the other is computed with.
            self._ready.ahead = max(min(room, _MAX_AHEAD), 2)
            items = [first]
            if wanted > 1:
                self._ready.wait_for_items(wanted - 1, _MAX_STACK_WAIT)
            # A batch of another shape, such as the short last one, begins a stack of its own.
            fits = functools.partial(_has_shapes, _shapes_and_dtypes(first.batch))
            while len(items) < wanted:
                another = self._ready.take(wait=False, fits=fits)
                if another is None:
                    break
                items.append(another)
            count += len(items)
            self._unconsumed.extend(items)
            yield stack_batches([item.batch for item in items], room)

    def consume(self, steps: int) -> Item:
        """Count `steps` batches as consumed; returns the last of them."""
        for _ in range(steps - 1):
            self._unconsumed.popleft()
        return self._unconsumed.popleft()

    @property
    def error(self) -> BaseException | None:
        """The exception raised in the thread, if it was not raised here yet."""
        return self._ready.error

    @property
    def is_alive(self) -> bool:
        """Whether the thread is still running."""
        return self._ready.is_alive

    def join(self) -> None:
        """Wait for the thread, however long it takes."""
        self._ready.join()

    def close(self) -> list[Item]:
        """End the thread; returns the batches that were made but not consumed, in order."""
        left = [*self._unconsumed, *self._peeked, *self._ready.close()]
        self._unconsumed.clear()
        self._peeked.clear()
        return left


def _has_shapes(expected: Any, item: Item) -> bool:
    return _shapes_and_dtypes(item.batch) == expected


def _shapes_and_dtypes(batch: Batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
