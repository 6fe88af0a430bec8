"""Data whose rows can be read in any order: what arrays and map-style datasets share."""

import abc
import math
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from .._check import is_whole
from .._types import Self
from .batch import Batch, pad_batch
from .order import Order
from .source import Batching, Position, Reader, ReadOptions, Source, check_position


class RowSource(Source):
    """Data with a known number of examples, any of which can be read directly.

    **Arguments:**

    - `length`: how many examples there are.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    @abc.abstractmethod
    def take(self, rows: Any) -> Batch:
        """The examples at `rows`, indices or a slice, as one batch."""

    @abc.abstractmethod
    def part(self, rows: slice) -> Self:
        """The examples at `rows` as another source."""

    def num_batches(self, batching: Batching) -> int:
        """How many batches a pass has."""
        if batching.remainder != "drop":
            return math.ceil(self.length / batching.batch_size)
        if self.length < batching.batch_size:
            raise ValueError(
                f'`remainder="drop"` leaves no batch: there are {self.length} examples, fewer than '
                f"`batch_size={batching.batch_size}`. Choose a smaller `batch_size`, or keep the "
                "remainder."
            )
        return self.length // batching.batch_size

    def check_passes(self, passes: int, name: str) -> None:
        """Do nothing: there can be any number of passes."""
        return

    def split(self, fraction: float) -> tuple[Self, Self]:
        """The data without their last `fraction`, and that fraction."""
        if not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise ValueError(
                f"`validation_split` must be a fraction between 0 and 1; got {fraction!r}."
            )
        boundary = math.floor(self.length * (1 - fraction))
        if boundary in (0, self.length):
            raise ValueError(
                f"`validation_split={fraction}` of {self.length} examples leaves one side empty: "
                "choose another fraction, or pass `validation_data`."
            )
        return self.part(slice(0, boundary)), self.part(slice(boundary, self.length))


S = TypeVar("S", bound=RowSource)


class RowReader(Reader, Generic[S]):
    """Reads rows in an order that we choose, and can go to any batch of a pass directly."""

    def __init__(self, source: S, options: ReadOptions) -> None:
        self.source = source
        self.batching = options.batching.capped_at(source.length)
        self.keep_waiting = options.keep_waiting
        self.num_batches = source.num_batches(options.batching)
        self.next_batch = 0
        self.order: Order | None = None
        self._rows: np.ndarray | None = None

    def upcoming(self, max_batches: int | None = None) -> list[Batch]:
        """One batch (or its shapes) of each shape that the pass will have."""
        first, rest = self.peek(), self.source.length % self.batching.batch_size
        ends = max_batches is None or self.next_batch + max_batches >= self.num_batches
        if self.batching.remainder != "keep" or not ends or rest in (0, self.source.length):
            return [first]
        # The short last batch.
        return [
            first,
            jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((rest, *leaf.shape[1:]), leaf.dtype), first
            ),
        ]

    def pad(self, batch: Batch) -> Batch:
        """The batch, padded if that is what happens to remainders."""
        return pad_batch(batch, self.batching.batch_size) if self.batching.pads else batch

    @property
    def will_pad(self) -> bool:
        """Whether some rows of a pass will be padding."""
        return self.batching.pads and self.source.length % self.batching.batch_size != 0

    @property
    def remaining(self) -> int:
        """How many batches the current pass still has."""
        return self.num_batches - self.next_batch

    def begin_pass(self, order: Order | None) -> None:
        """Begin a pass in this order, unless the current one is unfinished."""
        if self.next_batch == 0:
            self.order, self._rows = order, None

    def rows(self) -> np.ndarray | None:
        """The row indices of the current pass in order; None for the order of the data."""
        if self.order is not None and self._rows is None:
            self._rows = self.order.permutation(self.source.length)
        return self._rows

    def next_rows(self) -> np.ndarray:
        """The indices of the examples of the next batch in the data."""
        rows, size = self.rows(), self.batching.batch_size
        first = self.next_batch * size
        span = slice(first, min(first + size, self.source.length))
        return np.arange(span.start, span.stop) if rows is None else rows[span]

    def consume(self, steps: int) -> None:
        """Count `steps` batches as consumed."""
        super().consume(steps)
        self.next_batch = (self.next_batch + steps) % self.num_batches

    @property
    def position(self) -> Position:
        """How many examples of the pass are consumed, of how many, and its order."""
        order = (
            None
            if self.order is None or self.next_batch == 0
            else [*self.order.key, self.order.step]
        )
        examples = self.next_batch * self.batching.batch_size
        return {"examples": examples, "of": self.source.length, "order": order}

    def seek(self, position: Position) -> None:
        """Go to a position of another reader."""
        where = check_position(position, examples=0, of=0, order=None)
        at, rest = divmod(where["examples"], self.batching.batch_size)
        if rest or at >= self.num_batches or where["of"] != self.source.length:
            raise ValueError(
                f"`position` is after {where['examples']} of {where['of']} examples, where no "
                f"batch begins: there are {self.source.length} examples, and `batch_size` is "
                f"{self.batching.batch_size}. Resume with the data and the `batch_size` that it "
                "came from."
            )
        self.next_batch, self.order, self._rows = at, _order(where["order"]), None

    def restart(self) -> None:
        """Make the next batch the first of a new pass."""
        self.next_batch = 0


def _order(words: Any) -> Order | None:
    if words is None:
        return None
    listed = list(words) if isinstance(words, list | tuple) else []
    if len(listed) < 2 or not all(is_whole(word) and word >= 0 for word in listed):
        raise ValueError(f"The `order` of a `position` must be a list of numbers; got {words!r}.")
    return Order(tuple(listed[:-1]), listed[-1])
