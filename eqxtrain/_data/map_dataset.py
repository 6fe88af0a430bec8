"""Map-style datasets, which are indexed by example: torch's, HuggingFace's, or your own."""

import sys
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from .._placement import as_numpy
from .._types import PyTree
from .batch import Batch
from .coerce import as_columns
from .cursor import StreamPosition
from .feed import Feed, Item
from .order import Order
from .random_access import RowReader, RowSource
from .source import ReadOptions
from .stack import Stack


class ExampleSource(RowSource):
    """A dataset of `len(dataset)` examples, `dataset[i]` each.

    **Arguments:**

    - `dataset`: the whole dataset.
    - `within`: the part of it that this source reads; None for all.
    """

    def __init__(self, dataset: Any, within: slice | None = None) -> None:
        self._dataset = _as_numbers(dataset) if within is None else dataset
        self._within = slice(0, len(dataset)) if within is None else within
        super().__init__(self._within.stop - self._within.start)
        if self.length == 0:
            raise ValueError(
                "There is no data: the dataset has 0 examples. Check what filtered them out."
            )

    def take(self, rows: Any) -> Batch:
        listed = range(self.length)[rows] if isinstance(rows, slice) else rows.tolist()
        indices = [self._within.start + i for i in listed]
        if is_table(self._dataset):
            batch = self._dataset[indices]
        elif hasattr(self._dataset, "__getitems__"):
            batch = _stack_examples(self._dataset.__getitems__(indices), indices)
        else:
            batch = _stack_examples([self._dataset[i] for i in indices], indices)
        return as_columns(batch, "batch")

    def part(self, rows: slice) -> "ExampleSource":
        start = self._within.start
        return ExampleSource(self._dataset, slice(start + rows.start, start + rows.stop))

    def _open_reader(self, options: ReadOptions) -> "ExampleReader":
        return ExampleReader(self, options)


class ExampleReader(RowReader[ExampleSource]):
    """Reads a dataset of examples, batched in a thread, a bounded number of batches ahead."""

    _feed: Feed | None = None

    def peek(self) -> Batch:
        """The first examples, unshuffled: a batch like those to come."""
        return self.pad(self.source.take(slice(0, self.batching.batch_size)))

    def stacks(
        self,
        plan_stack: Callable[[Batch], int],
        max_batches: int | None = None,
        order: Order | None = None,
    ) -> Generator[Stack, None, None]:
        self.begin_pass(order)
        start = self.next_batch
        if self._feed is None:
            self._feed = Feed(lambda: self._items(start), self.keep_waiting, None)
        yield from self._feed.stacks(plan_stack, max_batches)

    def _items(self, start: int) -> Generator[Item, None, None]:
        rows, size = self.rows(), self.batching.batch_size
        for i in range(start, self.num_batches):
            span = slice(i * size, min((i + 1) * size, self.source.length))
            batch = self.source.take(span if rows is None else rows[span])
            yield Item(self.pad(batch), StreamPosition(i + 1))

    def consume(self, steps: int) -> None:
        assert self._feed is not None
        self._feed.consume(steps)
        super().consume(steps)
        if self.next_batch == 0:
            self.close()

    def restart(self) -> None:
        super().restart()
        self.close()

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None


def is_table(x: Any) -> bool:
    """Whether it is a HuggingFace `Dataset`, which returns examples as one dict of columns."""
    names = ("column_names", "with_format", "__getitem__", "__len__")
    return all(hasattr(x, name) for name in names)


def has_examples(x: Any) -> bool:
    """Whether `x` is a dataset of examples, rather than of batches.

    Those of torch and HuggingFace are. For another object with only `__len__` and `__getitem__`,
    the first item decides: if it holds a scalar, or parts of different lengths, it is an example.

    **Raises:** `TypeError` where there is no `__len__`.
    """
    if not hasattr(x, "__getitem__") or (hasattr(x, "__iter__") and not is_table(x)):
        return False
    if not hasattr(x, "__len__"):
        raise TypeError(
            f"`x` is a `{type(x).__name__}`, with `__getitem__` but without `__len__`: add "
            "`__len__`, or an `__iter__` that yields batches."
        )
    return is_table(x) or _is_torch_dataset(x) or (len(x) > 0 and _is_example(x[0]))


def _is_torch_dataset(x: Any) -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.utils.data.Dataset)


def _is_example(item: PyTree) -> bool:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(item)]
    return () in shapes or len({shape[0] for shape in shapes}) > 1


def _as_numbers(dataset: Any) -> Any:
    """A HuggingFace `Dataset` that gives arrays."""
    if not is_table(dataset):
        return dataset
    gives_arrays = dataset.format["type"] in ("numpy", "torch", "jax", "tensorflow")
    return dataset if gives_arrays else dataset.with_format("numpy")


def _stack_examples(examples: list[PyTree], indices: list[int]) -> Batch:
    """Examples as one batch, their arrays stacked along a new first axis."""
    first = jax.tree.structure(examples[0])
    for example, index in zip(examples, indices, strict=True):
        if jax.tree.structure(example) != first:
            raise ValueError(
                f"Example {index} is {jax.tree.structure(example)}, but example {indices[0]} is "
                f"{first}: give all examples of a dataset the same structure."
            )

    def join(path: Any, *leaves: Any) -> np.ndarray:
        arrays = [as_numpy(_detached(leaf)) for leaf in leaves]
        shapes = {array.shape: i for array, i in zip(arrays, indices, strict=True)}
        if len(shapes) > 1:
            (a, i), (b, j), *_ = shapes.items()
            raise ValueError(
                f"`example{jax.tree_util.keystr(path)}` has shape {a} in example {i} and {b} in "
                f"example {j}, so they can't be stacked: pad them to one shape, or pass batches."
            )
        return np.stack(arrays)

    return jax.tree.map_with_path(join, *examples)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if hasattr(leaf, "detach") else leaf
