"""Where the user's own iterators stand, from one run to the next in a process."""

import collections
import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

from .batch import drop_padding
from .cursor import StreamPosition
from .feed import Feed, Item

_MAX_HELD = 4
"""How many iterators are held that can't be referred to weakly, such as those of lists."""


@dataclasses.dataclass
class IteratorState:
    """What became of an iterator so far.

    **Arguments:**

    - `position`: behind what was consumed of it.
    - `rows`: how many rows its first batch had; 0 if that was not seen.
    - `unread`: what was taken from it beyond those, in order: whoever reads it next begins there.
    - `error`: what it raised when it was asked for more.
    - `abandoned_feed`: who still waits for a batch of it, in a thread that nobody waited for.
    """

    position: StreamPosition = dataclasses.field(default_factory=StreamPosition)
    rows: int = 0
    unread: collections.deque[Item] = dataclasses.field(default_factory=collections.deque)
    error: BaseException | None = None
    abandoned_feed: Feed | None = None

    def take_unread(self) -> Iterator[Item]:
        """What was taken before, and then what was raised."""
        self._wait()
        while self.unread:
            yield self.unread.popleft()
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                del error  # whose traceback holds this frame

    def discard_unread(self) -> None:
        """Drop what was taken: the iterator is put to a position of its own."""
        self._wait()
        self.unread.clear()
        self.error = None

    def _wait(self) -> None:
        if self.abandoned_feed is not None:
            feed, self.abandoned_feed = self.abandoned_feed, None
            feed.join()
            self._keep(feed, at_end=True)

    def record(self, position: StreamPosition, rows: int, feed: Feed) -> None:
        """Remember where a reader left it, which had these in hand."""
        self.position, self.rows = position, rows
        self._keep(feed, at_end=False)
        if feed.is_alive:
            self.abandoned_feed = feed

    def _keep(self, feed: Feed, *, at_end: bool) -> None:
        items = [item._replace(batch=drop_padding(item.batch)) for item in feed.close()]
        self.unread = collections.deque(
            [*self.unread, *items] if at_end else [*items, *self.unread]
        )
        self.error = feed.error or self.error


_states_by_weakref: dict[int, tuple[Any, IteratorState]] = {}
_states_held: dict[int, tuple[Any, IteratorState]] = {}


def state_of(iterator: Any) -> IteratorState:
    """Where the iterator was left; at its beginning, as far as we know, if nobody left it."""
    key = id(iterator)
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
