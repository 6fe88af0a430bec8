"""Arrays in memory as a source of batches."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._tree import paths
from .batch import Batch, Masked, make_batch, pad_batch
from .coerce import as_columns, is_sparse, take, take_into
from .order import Order
from .prefetch import PrefetchIterator
from .random_access import RowReader, RowSource
from .source import Batching
from .stack import Stack, aligned_empty


class ArraySource(RowSource):
    """Arrays in memory, examples along their first axis.

    **Arguments:**

    - `tree`: the whole data as one batch.
    """

    def __init__(self, tree: Batch) -> None:
        self.tree = tree
        super().__init__(jax.tree.leaves(tree)[0].shape[0])

    def take(self, rows: Any) -> Batch:
        return jax.tree.map(lambda leaf: take(leaf, rows), self.tree)

    def part(self, rows: slice) -> "ArraySource":
        return ArraySource(jax.tree.map(lambda leaf: leaf[rows], self.tree))

    def read(
        self,
        batching: Batching,
        *,
        keep_waiting: Callable[[], bool] = lambda: True,
        max_batches: int | None = None,
    ) -> "ArrayReader":
        return ArrayReader(self, batching, keep_waiting)


class ArrayReader(RowReader[ArraySource]):
    """Reads arrays, a stack at a time.

    Shuffled batches are gathered in a thread, one stack ahead. In the order of the data they are
    views, which cost nothing.
    """

    def peek(self) -> Batch:
        """The first examples, unshuffled: a batch like those to come."""
        batch = self.source.take(slice(self.batching.batch_size))
        return (
            pad_batch(batch, self.batching.batch_size)
            if self.batching.remainder == "pad"
            else batch
        )

    def stacks(
        self,
        capacity: Callable[[Batch], int],
        max_batches: int | None = None,
        order: Order | None = None,
    ) -> Generator[Stack, None, None]:
        self.begin(order)
        parts = self._parts(capacity, max_batches)

        def make() -> Iterator[Stack]:
            return (self._stack(self.rows(), *part) for part in parts)

        sparse = any(map(is_sparse, jax.tree.leaves(self.source.tree)))
        if len(parts) == 1 or (self.order is None and not sparse):
            yield from make()
            return
        with PrefetchIterator(
            make, ahead=1, keep_waiting=self.keep_waiting, name="eqxtrain-data"
        ) as ready:
            yield from ready

    def _parts(
        self, capacity: Callable[[Batch], int], max_batches: int | None
    ) -> list[tuple[int, int, int, int]]:
        """The stacks to make: first batch, number of steps, rows of a batch, and capacity."""
        size, start = self.batching.batch_size, self.at
        stop = self.batches if max_batches is None else min(self.batches, start + max_batches)
        whole = self.source.length // size if self.batching.remainder == "keep" else self.batches
        parts: list[tuple[int, int, int, int]] = []
        if start < min(whole, stop):
            room = capacity(self.peek())
            for first in range(start, min(whole, stop), room):
                parts.append((first, min(room, min(whole, stop) - first), size, room))
        if stop > whole:
            rest = self.source.length - whole * size
            parts.append((whole, 1, rest, capacity(self.source.take(slice(rest)))))
        return parts

    def _stack(
        self, order: np.ndarray | None, first: int, steps: int, size: int, capacity: int
    ) -> Stack:
        start = first * self.batching.batch_size
        stop = min(start + steps * size, self.source.length)
        span = slice(start, stop)
        rows = span if order is None else order[span]
        count, full = stop - start, capacity * size

        def stack_rows(leaf: Any) -> np.ndarray:
            shape = (capacity, size, *leaf.shape[1:])
            if order is None and count == full and not is_sparse(leaf):
                return leaf[span].reshape(shape)  # a view
            buffer = aligned_empty((full, *leaf.shape[1:]), leaf.dtype)
            take_into(leaf, rows, buffer[:count])
            buffer[count : steps * size] = buffer[count - 1]  # padding, if any
            return buffer.reshape(shape)

        batch = jax.tree.map(stack_rows, self.source.tree)
        if self.batching.remainder != "pad":
            return Stack(batch, steps, size)
        mask = (np.arange(full) < count).reshape(capacity, size)
        return Stack(Masked(batch, mask), steps, size)


def array_source(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> ArraySource:
    """Check data as the user gives it, and make a source of it.

    **Arguments:**

    - `x`, `y`, `sample_weight`: arrays (NumPy, JAX, torch, pandas, sparse ones of SciPy, anything
        with `__array__`), or nested tuples, lists and dicts of them, all of one length.

    **Raises:** `TypeError` for what is not an array of numbers, `ValueError` for lengths that
    differ, no examples, or arrays without a batch axis.
    """
    trees = {"x": x, "y": y, "sample_weight": sample_weight}
    if x is None:
        raise TypeError("There is no data: `x` is None.")
    columns = {name: as_columns(tree, name) for name, tree in trees.items()}
    _check_lengths([leaf for name, tree in columns.items() for leaf in paths(tree, name)])
    return ArraySource(make_batch(columns["x"], columns["y"], columns["sample_weight"]))


def _check_lengths(leaves: list[tuple[str, Any]]) -> None:
    if not leaves or not leaves[0][0].startswith("x"):
        raise ValueError("There is no data: `x` holds no arrays. Pass at least one.")
    lengths = {path: leaf.shape[0] for path, leaf in leaves}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"`{path}` has {length}" for path, length in lengths.items())
        raise ValueError(
            f"All data must have the same number of examples along their first axis, but {listed}: "
            "cut them to one length, or check whether an axis must be moved to the front."
        )
    if 0 in lengths.values():
        raise ValueError(
            f"There is no data: `{leaves[0][0]}` has 0 examples. Check what filtered them out."
        )
