"""Arrays in memory as a source of batches."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from .._placement import aligned_empty
from .._tree import paths
from .batch import Batch, MaskedBatch, make_batch
from .coerce import as_columns, is_sparse, take, take_into
from .order import Order
from .prefetch import PrefetchIterator
from .random_access import RowReader, RowSource
from .source import ReadOptions
from .stack import Stack


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

    def _open_reader(self, options: ReadOptions) -> "ArrayReader":
        return ArrayReader(self, options)


class _StackPlan(NamedTuple):
    """A stack to make of consecutive batches.

    **Arguments:**

    - `first`: which batch of the pass comes first.
    - `num_batches`, `batch_size`: how many batches, of how many rows.
    - `capacity`: how many batches the stack has room for.
    """

    first: int
    num_batches: int
    batch_size: int
    capacity: int


class ArrayReader(RowReader[ArraySource]):
    """Reads arrays, a stack at a time.

    Shuffled batches are gathered in a thread, one stack ahead. In the order of the data they are
    views, which cost nothing.
    """

    def peek(self) -> Batch:
        """The first examples, unshuffled: a batch like those to come."""
        return self.pad(self.source.take(slice(self.batching.batch_size)))

    def stacks(
        self,
        plan_stack: Callable[[Batch], int],
        max_batches: int | None = None,
        order: Order | None = None,
    ) -> Generator[Stack, None, None]:
        self.begin_pass(order)
        plans = self._plan_stacks(plan_stack, max_batches)

        def make() -> Iterator[Stack]:
            return (self._stack(self.rows(), plan) for plan in plans)

        sparse = any(map(is_sparse, jax.tree.leaves(self.source.tree)))
        # A single stack has nothing to be made behind, and views need no making.
        if len(plans) == 1 or (self.order is None and not sparse):
            yield from make()
            return
        with PrefetchIterator(make, keep_waiting=self.keep_waiting) as ready:
            yield from ready

    def _plan_stacks(
        self, plan_stack: Callable[[Batch], int], max_batches: int | None
    ) -> list[_StackPlan]:
        """Plan the stacks to make: one of them, or several of whole batches and a short one."""
        size, start = self.batching.batch_size, self.next_batch
        stop = (
            self.num_batches if max_batches is None else min(self.num_batches, start + max_batches)
        )
        whole = (
            self.source.length // size if self.batching.remainder == "keep" else self.num_batches
        )
        plans: list[_StackPlan] = []
        if start < min(whole, stop):
            room = plan_stack(self.peek())
            for first in range(start, min(whole, stop), room):
                plans.append(_StackPlan(first, min(room, min(whole, stop) - first), size, room))
        if stop > whole:
            rest = self.source.length - whole * size
            room = plan_stack(self.source.take(slice(rest)))
            plans.append(_StackPlan(whole, 1, rest, room))
        return plans

    def _stack(self, order: np.ndarray | None, plan: _StackPlan) -> Stack:
        first, steps, size, capacity = plan
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

        batches = jax.tree.map(stack_rows, self.source.tree)
        if not self.batching.pads:
            return Stack(batches, steps)
        mask = (np.arange(full) < count).reshape(capacity, size)
        return Stack(MaskedBatch(batches, mask), steps)


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
