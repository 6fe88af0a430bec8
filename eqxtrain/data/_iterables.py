"""An iterable as a source of batches."""

import functools
import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import jax
import numpy as np

from ._arrays import as_arrays
from ._batch import Batch
from ._order import Order
from ._prefetch import Prefetched
from ._stack import Demand, Stack, stacked

_REMEDY = (
    "give a list of batches, an object with `__iter__`, or a generator function, which is called "
    "for each pass"
)


_EMPTY = "There is no data: the iterable gave no batch in this pass."

_AHEAD = 16
"""How many batches of an iterable may be ready, and how many of them a stack takes."""


def is_batches(x: Any) -> bool:
    """Whether `x` gives batches, and is no array or container of arrays itself."""
    if isinstance(x, list):
        return bool(x) and all(isinstance(item, tuple | Mapping) for item in x)
    if isinstance(x, tuple | Mapping | str | bytes) or hasattr(x, "__array__"):
        return False
    return hasattr(x, "__iter__") or _makes_batches(x)


def _makes_batches(x: Any) -> bool:
    return inspect.isfunction(x) or inspect.ismethod(x) or isinstance(x, functools.partial)


class IterableSource:
    """Batches that come one by one, each a tuple `(x,)`, `(x, y)`, ..., a mapping, or an input.

    **Arguments:**

    - `batches`: an iterable, or a function that makes one for each pass.
    """

    def __init__(self, batches: Any) -> None:
        called = _makes_batches(batches)
        self._make: Callable[[], Iterator[Any]] = lambda: iter(batches() if called else batches)
        self._open: Generator[Batch, None, None] | None = None
        self._length = len(batches) if hasattr(batches, "__len__") else None
        self._once = not called and iter(batches) is batches
        self._passes = 0

    def steps(self, batch_size: int) -> int | None:
        """How many batches a pass has, if that is known."""
        return self._length

    def is_short(self, batch_size: int) -> bool:
        """Whether the first batch is alone in its stack, whatever comes."""
        return False

    def check_passes(self, passes: int) -> None:
        """Refuse more passes than the iterable can give."""
        if self._once and passes > 1:
            raise ValueError(
                f"The data are an iterator, which gives its batches once, but {passes} passes over "
                f"them are asked for: {_REMEDY}."
            )

    def first(self, batch_size: int) -> Batch:
        """The first batch of the next pass, which it will not miss."""
        batches = self._batches()
        batch = next(batches, None)
        if batch is None:
            raise ValueError(_EMPTY)
        self._open = _with_first(batch, batches)
        return batch

    def stacks(
        self, batch_size: int, demand: Demand, order: Order | None = None
    ) -> Generator[Stack, None, None]:
        """The batches of one pass: as many in a stack as are there when one is wanted.

        A source that is slower than the device is never waited for longer than for one batch; the
        number of steps in a call changes no bit.
        """
        with Prefetched(
            self._batches, ahead=1, wanted=demand.wanted, name="eqxtrain-data"
        ) as ready:
            some = False
            while (batch := ready.take(wait=True)) is not None:
                some = True
                capacity = demand.capacity(batch)
                most = min(capacity, _AHEAD)
                ready.ahead = max(most, 2)
                like = _signature(batch)
                fits = lambda other, like=like: _signature(other) == like
                batches = [batch]
                while len(batches) < most:
                    another = ready.take(wait=False, fits=fits)
                    if another is None:
                        break
                    batches.append(another)
                yield stacked(batches, capacity)
            if not some and demand.wanted():
                raise ValueError(_EMPTY)

    def _batches(self) -> Generator[Batch, None, None]:
        if self._open is not None:
            held, self._open = self._open, None
            return held
        if self._once and self._passes:
            raise ValueError(
                "The data are an iterator, which gives its batches once, and a second pass over "
                f"them was asked for: {_REMEDY}."
            )
        self._passes += 1
        return self._checked()

    def _checked(self) -> Generator[Batch, None, None]:
        made: Any = self._make()
        try:
            for batch in made:
                yield as_batch(batch)
        finally:
            if not self._once and hasattr(made, "close"):  # what is the user's own goes on
                made.close()


def _with_first(batch: Batch, rest: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    with closing(rest):
        yield batch
        yield from rest


def as_batch(batch: Any) -> Batch:
    """Check a batch as people give it, and make arrays of its leaves."""
    if batch is None:
        raise TypeError("The data gave None where a batch was due.")
    batch = as_arrays(batch, "batch")
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(batch))
        raise ValueError(
            "All parts of a batch must have the same number of examples along their first axis, "
            f"at least one; a batch came with the shapes {shapes or 'of no array at all'}."
        )
    # it waits for its turn, and whoever made it may fill the same memory again
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), batch)


def _signature(batch: Batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
