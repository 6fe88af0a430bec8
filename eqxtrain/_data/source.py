"""How a source is read: cut into batches, pass after pass, and where the reading stands."""

import abc
from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple

from .._check import is_whole
from .._types import Self
from .batch import Batch
from .order import Order
from .stack import Stack

Remainder = Literal["keep", "pad", "drop"]

Position = dict[str, Any]
"""Where the next batch comes from; plain data, apart from what an iterator of others gave."""


class Batching(NamedTuple):
    """How data are cut into batches.

    **Arguments:**

    - `batch_size`: how many rows a batch has.
    - `remainder`: what becomes of a batch with fewer rows: it is kept as it is, filled up to the
        size of the others, or dropped.
    """

    batch_size: int
    remainder: Remainder = "keep"

    def of_rows(self, rows: int) -> "Batching":
        """The same for so many rows, which are not filled up to more than there are."""
        return self._replace(batch_size=min(self.batch_size, rows)) if self.pads else self

    @property
    def pads(self) -> bool:
        """Whether a batch with fewer rows is filled up."""
        return self.remainder == "pad"

    def for_validation(self) -> "Batching":
        """The same, but dropping nothing: that is for training, what is measured is it whole."""
        return self._replace(remainder="keep") if self.remainder == "drop" else self


class Reader(abc.ABC):
    """Reads a source, pass after pass, and knows where it stands.

    A context manager: its end is the end of its thread.
    """

    @abc.abstractmethod
    def peek(self) -> Batch | None:
        """A batch like those to come, which none of them misses; None if it is not wanted."""

    @abc.abstractmethod
    def upcoming(self, most: int | None = None) -> list[Batch]:
        """A batch of each shape, or its shapes, that the pass will have, as far as is known.

        **Arguments:**

        - `most`: how many batches of the pass will be asked for.
        """

    @property
    def will_pad(self) -> bool:
        """Whether some rows of a pass will be padding, as far as that is known beforehand."""
        return False

    @property
    @abc.abstractmethod
    def remaining(self) -> int | None:
        """How many batches the pass under way still has, if that is known."""

    @abc.abstractmethod
    def stacks(
        self, capacity: Callable[[Batch], int], most: int | None = None, order: Order | None = None
    ) -> Generator[Stack, None, None]:
        """The next batches of the pass under way, or of a new one, to its end or `most` of them.

        **Arguments:**

        - `capacity`: how many batches like a given one a stack should hold.
        - `order`: of the examples, if this begins a pass and their order is ours to choose.
        """

    @abc.abstractmethod
    def consume(self, steps: int) -> None:
        """Count so many batches of what `stacks` gave as consumed."""

    @property
    @abc.abstractmethod
    def position(self) -> Position:
        """Where the first batch stands that is not consumed."""

    @abc.abstractmethod
    def seek(self, position: Position) -> None:
        """Go where another reader of such a source stood; before anything is read."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Begin the next pass anew, wherever this one stands."""

    def close(self) -> None:
        """End what was begun for reading ahead."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class Source(abc.ABC):
    """Data as people gave them, checked."""

    @abc.abstractmethod
    def steps(self, batching: Batching) -> int | float | None:
        """How many batches a pass has: `math.inf` if it never ends, None if it doesn't tell."""

    @abc.abstractmethod
    def check_passes(self, passes: int, name: str) -> None:
        """Refuse more passes than there can be over what the user knows as `name`."""

    @abc.abstractmethod
    def read(
        self,
        batching: Batching,
        *,
        keep_waiting: Callable[[], bool] = lambda: True,
        max_batches: int | None = None,
    ) -> Reader:
        """A reader of these data.

        **Arguments:**

        - `keep_waiting`: whether to go on waiting for the next batch.
        - `max_batches`: how many batches will be asked for at most, over all passes.
        """


def check_position(position: Any, **like: Any) -> Position:
    """Refuse what is no position of such a source.

    **Arguments:**

    - `like`: what it has; 0 stands for a whole number, None for anything.
    """
    known = isinstance(position, dict) and position.keys() == like.keys()
    if not known or not all(_is_count(position[name]) for name in like if like[name] == 0):
        raise ValueError(
            "`position` is what `run.position` or `history.position` gave for such data, a dict of "
            f"{', '.join(like)}; got {position!r}."
        )
    return position


def _is_count(n: Any) -> bool:
    return is_whole(n) and n >= 0
