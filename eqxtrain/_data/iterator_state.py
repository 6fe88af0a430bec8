"""Where the user's own iterators stand, remembered from one run to the next in a process."""

import collections
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

from .batch import drop_padding
from .cursor import StreamPosition
from .feed import Feed, Item

_MAX_HELD = 4
"""How many iterators we keep alive that have no weak references, such as those of lists."""


@dataclasses.dataclass
class IteratorState:
    """How far we have read a user's iterator.

    **Arguments:**

    - `position`: where the consumed batches end.
    - `rows`: how many rows its first batch had; 0 if we did not see it.
    - `unread`: batches taken from it but not consumed, in order. The next reader starts with them.
    - `error`: the exception that it raised when asked for more.
    - `abandoned_feed`: a feed whose thread outlived its run and still holds the iterator.
    """

    position: StreamPosition = dataclasses.field(default_factory=StreamPosition)
    rows: int = 0
    unread: collections.deque[Item] = dataclasses.field(default_factory=collections.deque)
    error: BaseException | None = None
    abandoned_feed: Feed | None = None

    def take_unread(self) -> Iterator[Item]:
        """The batches that were taken but not consumed, then the exception that was not raised."""
        self._wait()
        while self.unread:
            yield self.unread.popleft()
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: a reference cycle

    def discard_unread(self) -> None:
        """Drop the unread batches, since the iterator is about to restore a position."""
        self._wait()
        self.unread.clear()
        self.error = None

    def _wait(self) -> None:
        """Wait for an abandoned thread, since two threads must not share an iterator."""
        if self.abandoned_feed is not None:
            feed, self.abandoned_feed = self.abandoned_feed, None
            feed.join()
            self._collect(feed, at_end=True)

    def record(self, position: StreamPosition, rows: int, feed: Feed) -> None:
        """Record where a reader stopped, and take over what its feed holds."""
        self.position, self.rows = position, rows
        self._collect(feed, at_end=False)
        if feed.is_alive:
            self.abandoned_feed = feed

    def _collect(self, feed: Feed, *, at_end: bool) -> None:
        """Add what a feed holds to the unread batches: before them, or after them (`at_end`)."""
        # Unpadded, since the next run may have another `batch_size` or `remainder`.
        items = [item._replace(batch=drop_padding(item.batch)) for item in feed.close()]
        self.unread = collections.deque(
            [*self.unread, *items] if at_end else [*items, *self.unread]
        )
        self.error = feed.error or self.error


_states_by_weakref: dict[int, tuple[Any, IteratorState]] = {}
_states_held: dict[int, tuple[Any, IteratorState]] = {}


def state_of(iterator: Any) -> IteratorState:
    """How far the iterator was read; as far as we know, not at all, if we never saw it."""
    key = id(iterator)  # iterators need not be hashable, and must not be compared
    if (found := _states_by_weakref.get(key) or _states_held.get(key)) is not None:
        return found[1]
    made = IteratorState()
    try:
        _states_by_weakref[key] = (
            weakref.ref(iterator, lambda _: _states_by_weakref.pop(key, None)),
            made,
        )
    except TypeError:
        _states_held[key] = (iterator, made)
        while len(_states_held) > _MAX_HELD:
            _states_held.pop(next(iter(_states_held)))
    return made
