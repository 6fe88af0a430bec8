"""An iterable as a source of batches."""

import contextlib
import copy
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np

from ._batch import Batch, Masked, padded, size
from ._columns import as_batch
from ._cursor import Mark, is_indexed, opened
from ._feed import Feed, Item
from ._order import Order
from ._reading import Cut, Position, Reader, Source, check_position
from ._stack import Stack
from ._standing import Standing, leave, standing

_REMEDY = (
    "give a list of batches, an object with `__iter__`, or a generator function, which is called "
    "for each pass"
)

_EMPTY = (
    "There is no data: the iterable gave no batch in this pass. (An iterator gives its batches "
    f"once: {_REMEDY}.)"
)


class IterableSource(Source):
    """Batches that come one by one, each a tuple `(x,)`, `(x, y)`, ..., a mapping, or an input.

    **Arguments:**

    - `batches`: an iterable, what is indexed, or a function that makes one for each pass.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._called = not hasattr(batches, "__iter__") and not is_indexed(batches)
        self.once = not self._called and _is_once(batches)
        self.passes = 0

    def steps(self, cut: Cut) -> int | float | None:
        """How many batches a pass has: `math.inf` if it never ends, None if it doesn't tell."""
        return None if self._called else _length(self._batches)

    def check_passes(self, passes: int, name: str) -> None:
        """Refuse more passes than the iterable can give."""
        if self.once and passes > 1:
            raise ValueError(
                f"`{name}` is an iterator, which gives its batches once, but {passes} passes over "
                f"them are asked for: {_REMEDY}."
            )

    def read(
        self,
        cut: Cut,
        *,
        wanted: Callable[[], bool] = lambda: True,
        limit: int | None = None,
    ) -> "IterableReader":
        """A reader of these batches."""
        return IterableReader(self, cut, wanted, limit)

    def items(self, mark: Mark) -> Generator[Item, None, None]:
        """The batches of a pass, checked and copied, from `mark` on."""
        if self.once and self.passes:
            raise ValueError(
                "The data are an iterator, which gives its batches once, and a second pass over "
                f"them was asked for: {_REMEDY}."
            )
        self.passes += 1
        batches = self._batches() if self._called else self._batches
        if self._called and not (hasattr(batches, "__iter__") or is_indexed(batches)):
            raise TypeError(
                f"The function that was given as data returned a `{type(batches).__name__}`; it is "
                "called for each pass, and returns an iterable of batches."
            )
        count, items, state = self._opened(batches, mark)
        try:
            for item in items:
                count += 1
                if isinstance(item, Item):  # one that was read before
                    yield item
                else:
                    yield Item(as_batch(item), Mark(count, copy.deepcopy(state())))
        finally:
            if not self.once and hasattr(items, "close"):  # what is the user's own goes on
                items.close()

    def _opened(self, batches: Any, mark: Mark) -> tuple[int, Any, Callable[[], Any]]:
        """How many batches lie before `mark`, what comes behind it, and what tells its state."""
        was = self.standing
        if not self.once or mark.state is not None:
            cursor = opened(batches, mark)
            return mark.batches, cursor.items, cursor.state
        if mark.batches < was.batches:
            raise ValueError(
                f"`position` is behind {mark.batches} batches, but {was.batches} were taken from "
                "this iterator, which can't go back: make it anew."
            )
        unread = was.unread[mark.batches - was.batches :]
        cursor = opened(batches, Mark(max(mark.batches - was.batches - len(was.unread), 0)))
        return mark.batches, itertools.chain(unread, cursor.items), cursor.state

    @property
    def standing(self) -> Standing:
        """Where the user's own iterator stands; what is iterated over anew, at its beginning."""
        return standing(self._batches) if self.once else Standing()

    def leave(self, batches: int, unread: list[Item]) -> None:
        """Remember where the user's own iterator stands, for who reads it next."""
        if self.once:
            leave(self._batches, Standing(batches, tuple(unread)))


class IterableReader(Reader):
    """Reads an iterable: its batches are made in a thread, a bounded number ahead."""

    def __init__(
        self, source: IterableSource, cut: Cut, wanted: Callable[[], bool], limit: int | None
    ) -> None:
        self._source = source
        self._cut = cut
        self._wanted = wanted
        self._limit = None if limit is None else max(limit, 1)  # `first` may ask for one
        self._feed: Feed | None = None
        self._at = Mark(source.standing.batches)
        self._goes_on = False  # whether there is something of this pass behind us
        self._rows: int | None = None

    @property
    def is_short(self) -> bool:
        """Whether the first batch is alone in its stack, whatever comes: never."""
        return False

    def first(self) -> Batch | None:
        """The first batch of the pass under way; None if it is not wanted any more."""
        item = self._opened().first()
        if item is None and self._wanted() and self._goes_on:  # it had stood at the pass's end
            self._begin()
            item = self._opened().first()
        if item is None and self._wanted():
            raise ValueError(_EMPTY)
        return None if item is None else item.batch

    @property
    def left(self) -> int | None:
        """How many batches the pass under way still has, if that is known."""
        steps = self._source.steps(self._cut)
        if not isinstance(steps, int) or self._cut.remainder == "drop":
            return None
        return max(steps - self._at.batches, 0) or steps

    def stacks(
        self, capacity: Callable[[Batch], int], most: int | None = None, order: Order | None = None
    ) -> Generator[Stack, None, None]:
        """The next batches of the pass under way, or of a new one, to its end or `most` of them."""
        feed, goes_on, some = self._opened(), self._goes_on, False
        for stack in feed.stacks(capacity, most):
            some = True
            yield stack
        if not feed.ended or self._is_at_limit():
            return
        if not some and not goes_on:
            raise ValueError(_EMPTY)
        self._begin()
        if not some:  # the pass had ended where the last epoch did
            yield from self.stacks(capacity, most)

    def _is_at_limit(self) -> bool:
        return self._limit is not None and self._limit <= 0

    def _opened(self) -> Feed:
        if self._feed is None:
            mark = self._at
            self._feed = Feed(lambda: self._items(mark), self._wanted, self._limit)
        return self._feed

    def _items(self, mark: Mark) -> Generator[Item, None, None]:
        """The batches of a pass, those shorter than its first one dealt with."""
        with contextlib.closing(self._source.items(mark)) as items:
            for item in items:
                rows = size(item.batch)
                self._rows = self._rows or rows
                if self._cut.remainder == "pad":
                    yield item._replace(batch=padded(item.batch, max(rows, self._rows)))
                elif self._cut.remainder == "keep" or rows >= self._rows:
                    yield item

    def ran(self, steps: int) -> None:
        """Count so many batches as consumed."""
        assert self._feed is not None
        self._at, self._goes_on = self._feed.ran(steps).behind, True
        if self._limit is not None:
            self._limit -= steps

    @property
    def position(self) -> Position:
        """How many batches of the pass are consumed, what the iterator told of itself, and how many
        rows its first batch had."""
        return {"batches": self._at.batches, "state": self._at.state, "rows": self._rows}

    def seek(self, position: Position) -> None:
        """Go where another reader stood."""
        where = check_position(position, {"batches", "state", "rows"})
        self._at, self._rows = Mark(where["batches"], where["state"]), where["rows"]
        self._goes_on = self._at.batches > 0

    def restart(self) -> None:
        """Begin the next pass anew."""
        if self._goes_on:  # else a batch may have been looked at, and is not lost
            self._begin()

    def _begin(self) -> None:
        self.close()
        self._at, self._goes_on = Mark(), False

    def close(self) -> None:
        """End what was begun for reading ahead."""
        if self._feed is not None:
            left = [item._replace(batch=_real(item.batch)) for item in self._feed.close()]
            self._source.leave(self._at.batches, left)
            self._feed = None


def _real(batch: Batch) -> Batch:
    """A batch without the rows that fill it up."""
    if not isinstance(batch, Masked):
        return batch
    return jax.tree.map(lambda leaf: leaf[batch.mask], batch.batch)


def _is_once(batches: Any) -> bool:
    """Whether it is spent after one pass. A class with an `__iter__` of its own may begin anew."""
    own = inspect.isfunction(getattr(type(batches), "__iter__", None))
    begins_anew = own and type(batches).__iter__ is not Iterator.__iter__
    return isinstance(batches, Iterator) and not begins_anew


def _length(batches: Any) -> int | float | None:
    if hasattr(batches, "cardinality"):  # tf.data's, whose `len` raises if it is not known
        known = int(np.asarray(batches.cardinality()))
        return known if known >= 0 else {-1: math.inf}.get(known)
    try:
        length = len(batches)
    except (TypeError, NotImplementedError):
        return None
    return length if length < sys.maxsize else math.inf  # Grain's `.repeat()`


def makes_batches(x: Any) -> bool:
    """Whether `x` is a function without arguments, to be called for each pass."""
    if not callable(x):
        return False
    try:
        signature = inspect.signature(x)
    except ValueError:  # one of C's, which tells nothing
        return True
    try:
        signature.bind()
    except TypeError:
        raise TypeError(
            f"The function that was given as data takes arguments, {signature}: it is called "
            "without any for each pass (`functools.partial`, or a `lambda`), and returns an "
            "iterable of batches."
        ) from None
    return True
