"""Sources and readers: how data are cut into batches, and where reading stands."""

import abc
from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple

import numpy as np

from .._check import is_whole
from .._types import Self
from .batch import Batch
from .order import Order
from .stack import Stack

Remainder = Literal["keep", "pad", "drop"]

Position = dict[str, Any]
"""Where the next batch comes from: plain data, except for the state of a user's iterator."""


class Batching(NamedTuple):
    """How data are cut into batches.

    **Arguments:**

    - `batch_size`: how many rows a batch has.
    - `remainder`: what happens to a batch with fewer rows: `"keep"` leaves it as it is, `"pad"`
        pads it to the size of the others, and `"drop"` leaves it out.
    """

    batch_size: int
    remainder: Remainder = "keep"

    def capped_at(self, rows: int) -> "Batching":
        """The same for data of `rows` rows: a batch is never padded to more than all of them."""
        return self._replace(batch_size=min(self.batch_size, rows)) if self.pads else self

    @property
    def pads(self) -> bool:
        """Whether a batch with fewer rows is padded."""
        return self.remainder == "pad"

    def for_validation(self) -> "Batching":
        """The same, except that `"drop"` becomes `"keep"`: validation measures every example."""
        return self._replace(remainder="keep") if self.remainder == "drop" else self


class ReadOptions(NamedTuple):
    """The arguments of `Source.open_reader`, of the same names."""

    batching: Batching
    keep_waiting: Callable[[], bool]
    max_batches: int | None


class Reader(abc.ABC):
    """Reads a source, pass after pass, and keeps track of its position.

    It is a context manager; leaving it ends its thread.

    **Attributes:**

    - `num_consumed`: how many batches were consumed since it was opened.
    """

    num_consumed: int = 0

    @abc.abstractmethod
    def peek(self) -> Batch | None:
        """A batch like those to come, without consuming it; None once `keep_waiting` is false."""

    @abc.abstractmethod
    def upcoming(self, max_batches: int | None = None) -> list[Batch]:
        """One batch (or its shapes) of each shape that the pass will have, as far as is known.

        **Arguments:**

        - `max_batches`: how many batches of the pass will be asked for.
        """

    @property
    def will_pad(self) -> bool:
        """Whether some rows of a pass will be padding, as far as is known beforehand."""
        return False

    @property
    @abc.abstractmethod
    def remaining(self) -> int | None:
        """How many batches the current pass still has, if that is known."""

    @abc.abstractmethod
    def stacks(
        self,
        plan_stack: Callable[[Batch], int],
        max_batches: int | None = None,
        order: Order | None = None,
    ) -> Generator[Stack, None, None]:
        """The next batches of the current pass, or of a new one.

        **Arguments:**

        - `plan_stack`: called with a batch of each shape before any is stacked; returns how many
            of them a stack holds. It may trace the step.
        - `max_batches`: how many batches to yield, if the pass does not end before.
        - `order`: the order of the examples, if this begins a pass and it is ours to choose.
        """

    def consume(self, steps: int) -> None:
        """Count `steps` of the batches that `stacks` yielded as consumed."""
        self.num_consumed += steps

    @property
    @abc.abstractmethod
    def position(self) -> Position:
        """The position of the first batch that is not consumed."""

    def next_rows(self) -> np.ndarray | None:
        """The indices of the examples of the next batch in the data, if that is known."""
        return None

    @abc.abstractmethod
    def seek(self, position: Position) -> None:
        """Go to a position of another reader of such a source, before anything is read."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Make the next batch the first of a new pass."""

    def close(self) -> None:
        """Stop reading ahead."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source(abc.ABC):
    """Data as the user gave them, checked."""

    @abc.abstractmethod
    def num_batches(self, batching: Batching) -> int | float | None:
        """How many batches a pass has: `math.inf` if it never ends, None if that is unknown."""

    @abc.abstractmethod
    def check_passes(self, passes: int, name: str) -> None:
        """Refuse more passes than the source can give; the user knows it as `name`."""

    def open_reader(
        self,
        batching: Batching,
        *,
        keep_waiting: Callable[[], bool] = lambda: True,
        max_batches: int | None = None,
    ) -> Reader:
        """Open a reader of this source.

        **Arguments:**

        - `keep_waiting`: whether to go on waiting for the next batch.
        - `max_batches`: reads no more than this many batches, over all passes. Only iterables care:
            what is read from arrays or a dataset is not lost to others.
        """
        return self._open_reader(ReadOptions(batching, keep_waiting, max_batches))

    @abc.abstractmethod
    def _open_reader(self, options: ReadOptions) -> Reader: ...


def check_position(position: Any, **like: Any) -> Position:
    """Refuse what is not a position of such a source.

    **Arguments:**

    - `like`: the keys of a position; 0 stands for a whole number, None for anything.
    """
    known = isinstance(position, dict) and position.keys() == like.keys()
    if not known or not all(_is_count(position[name]) for name in like if like[name] == 0):
        raise ValueError(
            "`position` must be what `run.position` or `history.position` was for such data, a "
            f"dict of {', '.join(like)}; got {position!r}."
        )
    return position


def _is_count(n: Any) -> bool:
    return is_whole(n) and n >= 0
