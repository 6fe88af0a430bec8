"""An iterable as a source of batches."""

import contextlib
import copy
import inspect
import math
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from .._placement import as_numpy
from .batch import Batch, num_rows, pad_batch
from .coerce import as_batch
from .cursor import Cursor, StreamPosition, is_indexed, is_persistent, open_at, state_methods
from .feed import Feed, Item
from .iterator_state import IteratorState, state_of
from .order import Order
from .source import Batching, Position, Reader, ReadOptions, Source, check_position
from .stack import Stack

_REMEDY = (
    "pass a list of batches, an object with `__iter__`, or a generator function, which is called "
    "at the start of each pass"
)

_EMPTY = (
    "There is no data: the iterable yielded no batch in this pass. (An iterator yields its "
    f"batches only once: {_REMEDY}.)"
)


_RETURNS_ITSELF = (Iterator.__iter__.__code__.co_code, (lambda self: self).__code__.co_code)
"""The bytecode of an `__iter__` that returns `self`."""


class IterableSource(Source):
    """An iterable of batches, each a tuple `(x,)`, `(x, y)`, ..., a mapping, or an input.

    **Arguments:**

    - `batches`: an iterable, an indexed container, or a function that makes one for each pass.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._is_factory = not hasattr(batches, "__iter__") and not is_indexed(batches)
        self.is_one_shot = not self._is_factory and _is_once(batches)
        self.passes = 0

    def num_batches(self, batching: Batching) -> int | float | None:
        """How many batches a pass has: `math.inf` if it never ends, None if that is unknown."""
        return None if self._is_factory else _length(self._batches)

    def check_passes(self, passes: int, name: str) -> None:
        """Refuse more passes than the iterable can give."""
        if self.is_one_shot and passes > 1:
            raise ValueError(
                f"`{name}` is an iterator, which yields its batches only once, but {passes} passes "
                f"are needed: {_REMEDY}."
            )

    def check_apart(self, other: Source, name: str) -> None:
        """Refuse an `other` source that shares the position of this one.

        **Arguments:**

        - `name`: what the user calls the other one.
        """
        same = isinstance(other, IterableSource) and other._batches is self._batches
        has_one = self.is_one_shot or state_methods(self._batches) or is_persistent(self._batches)
        if same and has_one:
            raise ValueError(
                f"`x` and `{name}` are the same `{type(self._batches).__name__}`, which keeps a "
                "single position, but both are read at once: make a second one for validation."
            )

    def _open_reader(self, options: ReadOptions) -> "IterableReader":
        return IterableReader(self, options)

    def items(self, position: StreamPosition, *, sought: bool) -> Generator[Item, None, None]:
        """The batches of a pass, checked and copied, from `position` on.

        **Arguments:**

        - `sought`: whether the user asked for this position. Otherwise, an iterator of theirs
            already stands there.
        """
        if self.is_one_shot and self.passes:
            raise ValueError(
                "The data are an iterator, which yields its batches only once, but a second pass "
                f"is needed: {_REMEDY}."
            )
        self.passes += 1
        # `start` is relative to the iterable that we open, `reached` counts from its beginning.
        start, reached = position, position
        if self.is_one_shot and sought and position.state is not None:
            # The iterator is about to restore a state, so what we read ahead no longer follows.
            state_of(self._batches).discard_unread()
        elif self.is_one_shot:
            # The iterator goes on where the last run left it. What that run read ahead but did not
            # use comes first, less what a position further on skips.
            start = StreamPosition(self._distance_to(position))
            for item in state_of(self._batches).take_unread():
                if start.batches > 0:
                    start = StreamPosition(start.batches - 1)
                else:
                    reached = item.position_after
                    yield item
        yield from self._read_from(open_at(self._open_iterable(), start), reached)

    def _read_from(self, cursor: Cursor, position: StreamPosition) -> Generator[Item, None, None]:
        """The batches of a cursor that stands at `position`."""
        count, state, state_at = position
        try:
            for batch in cursor.items:
                count += 1
                # Asked for here, in the thread, since the iterator is ahead of what is consumed.
                if cursor.state is not None and (count - 1) % cursor.snapshot_every == 0:
                    state, state_at = copy.deepcopy(cursor.state()), count
                yield Item(as_batch(batch), StreamPosition(count, state, state_at))
        finally:
            is_ours = cursor.items is not self._batches  # the user may go on with their own
            if is_ours and hasattr(cursor.items, "close"):
                cursor.items.close()  # pyright: ignore[reportAttributeAccessIssue]

    def _open_iterable(self) -> Any:
        batches = self._batches() if self._is_factory else self._batches
        if self._is_factory and not (hasattr(batches, "__iter__") or is_indexed(batches)):
            raise TypeError(
                f"The function that was passed as data returned a `{type(batches).__name__}`: it "
                "is called at the start of each pass, and must return an iterable of batches."
            )
        return batches

    def _distance_to(self, position: StreamPosition) -> int:
        """How many batches lie between the user's own iterator and `position`."""
        taken = state_of(self._batches).position.batches
        if position.batches < taken:
            raise ValueError(
                f"`position` is after batch {position.batches}, but {taken} batches were already "
                "taken from this iterator, which can't go back: make a new one."
            )
        return position.batches - taken

    @property
    def start(self) -> tuple[StreamPosition, int]:
        """Where the first pass starts, and how many rows its first batch had."""
        where = state_of(self._batches) if self.is_one_shot else IteratorState()
        return where.position, where.rows

    def hand_back(self, position: StreamPosition, rows: int, feed: Feed) -> None:
        """Take back what a reader read ahead, for the next reader of the user's own iterator."""
        if self.is_one_shot:
            state_of(self._batches).record(position, rows, feed)
        else:
            feed.close()


class IterableReader(Reader):
    """Reads an iterable in a thread, a bounded number of batches ahead."""

    def __init__(self, source: IterableSource, options: ReadOptions) -> None:
        self._source = source
        self._batching, self._keep_waiting, limit = options
        # One at least, since `peek` may ask for it.
        self._max_batches = None if limit is None else max(limit, 1)
        self._feed: Feed | None = None
        self._reached, self._rows = source.start
        self._sought = False
        self._is_mid_pass = False  # whether some batches of this pass were consumed

    def peek(self) -> Batch | None:
        """The next batch of the current pass; None once `keep_waiting` is false."""
        item = self._open_feed().peek()
        if item is None and self._keep_waiting() and self._is_mid_pass:
            # The last epoch ended exactly where the pass did, but nobody could know that then.
            self._begin_pass()
            item = self._open_feed().peek()
        if item is None and self._keep_waiting():
            raise ValueError(_EMPTY)
        return None if item is None else item.batch

    def upcoming(self, max_batches: int | None = None) -> list[Batch]:
        """The next batch: those after it are unknown."""
        first = self.peek()
        return [] if first is None else [first]

    @property
    def remaining(self) -> int | None:
        """How many batches the current pass still has, if that is known."""
        length = self._source.num_batches(self._batching)
        if not isinstance(length, int) or self._batching.remainder == "drop":
            return None  # how many are too short is only known once they are read
        # At the end of a pass, the next batch begins another one.
        return max(length - self._reached.batches, 0) or length

    def stacks(
        self,
        plan_stack: Callable[[Batch], int],
        max_batches: int | None = None,
        order: Order | None = None,
    ) -> Generator[Stack, None, None]:
        """The next batches of the current pass, or of a new one."""
        feed, was_mid_pass, is_empty = self._open_feed(), self._is_mid_pass, True
        for stack in feed.stacks(plan_stack, max_batches):
            is_empty = False
            yield stack
        # At the limit, the feed ends although the iterator may not have.
        if not feed.ended or self._is_at_limit():
            return
        if is_empty and not was_mid_pass:
            raise ValueError(_EMPTY)
        self._begin_pass()
        if is_empty:  # the last epoch ended exactly where the pass did
            yield from self.stacks(plan_stack, max_batches)

    def _is_at_limit(self) -> bool:
        return self._max_batches is not None and self._max_batches <= 0

    def _open_feed(self) -> Feed:
        if self._feed is None:
            position = self._reached
            self._feed = Feed(lambda: self._items(position), self._keep_waiting, self._max_batches)
        return self._feed

    def _items(self, position: StreamPosition) -> Generator[Item, None, None]:
        """The batches of a pass, the remainder padded, kept or dropped.

        A batch is a remainder if it has fewer rows than the first batch of its pass.
        """
        with contextlib.closing(self._source.items(position, sought=self._sought)) as items:
            for item in items:
                rows = num_rows(item.batch)
                self._rows = self._rows or rows
                if self._batching.pads:
                    yield item._replace(batch=pad_batch(item.batch, max(rows, self._rows)))
                elif self._batching.remainder == "keep" or rows >= self._rows:
                    yield item

    def consume(self, steps: int) -> None:
        """Count `steps` batches as consumed."""
        super().consume(steps)
        assert self._feed is not None
        self._reached, self._is_mid_pass = self._feed.consume(steps).position_after, True
        if self._max_batches is not None:
            self._max_batches -= steps

    @property
    def position(self) -> Position:
        """Where the current pass stands, and how many rows its first batch had."""
        return {**self._reached._asdict(), "rows": self._rows}

    def seek(self, position: Position) -> None:
        """Go to a position of another reader."""
        where = dict(check_position(position, batches=0, state=None, state_at=0, rows=0))
        self._rows, self._sought = where.pop("rows"), True
        self._reached = StreamPosition(**where)
        self._is_mid_pass = self._reached.batches > 0

    def restart(self) -> None:
        """Make the next batch the first of a new pass."""
        # At the start of a pass there is nothing to do, and a batch that was peeked at is kept.
        if self._is_mid_pass:
            self._begin_pass()

    def _begin_pass(self) -> None:
        self.close()
        self._reached, self._is_mid_pass, self._sought = StreamPosition(), False, False

    def close(self) -> None:
        """Stop reading ahead, and hand back what was read but not consumed."""
        if self._feed is not None:
            self._source.hand_back(self._reached, self._rows, self._feed)
            self._feed = None


def _is_once(batches: Any) -> bool:
    """Whether it can be read only once: an iterator that `iter` does not restart."""
    if not isinstance(batches, Iterator):
        return False
    own = getattr(type(batches), "__iter__", None)
    # Some classes with `__next__` restart in `__iter__`. One that only returns `self` does not.
    restarts = inspect.isfunction(own) and own.__code__.co_code not in _RETURNS_ITSELF
    return not restarts or hasattr(batches, "get_state")  # as Grain's iterators


def _length(batches: Any) -> int | float | None:
    if hasattr(batches, "cardinality"):  # tf.data, whose `len` raises if it is unknown
        known = int(as_numpy(batches.cardinality()))
        return known if known >= 0 else {-1: math.inf}.get(known)
    try:
        length = len(batches)
    except (TypeError, NotImplementedError):
        return None
    return length if length < sys.maxsize else math.inf  # Grain's `.repeat()`
