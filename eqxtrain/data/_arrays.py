"""In-memory arrays as a source of batches."""

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._tree import is_typed_key, paths
from ._batch import Batch, pack
from ._order import Order
from ._prefetch import Prefetched
from ._stack import Demand, Stack, empty


class ArraySource:
    """Arrays in memory, examples along their first axis.

    **Arguments:**

    - `tree`: the whole data as one batch.
    """

    def __init__(self, tree: Batch) -> None:
        self.tree = tree
        self.length = len(jax.tree.leaves(tree)[0])

    def __len__(self) -> int:
        return self.length

    def take(self, indices: Any) -> Batch:
        """The examples at `indices` (an array or a slice) as one batch."""
        return jax.tree.map(lambda leaf: leaf[indices], self.tree)

    def steps(self, batch_size: int) -> int:
        """How many batches a pass has, the short last one included."""
        return math.ceil(self.length / batch_size)

    def is_short(self, batch_size: int) -> bool:
        """Whether the first batch is the short last one, alone in its stack."""
        return self.length < batch_size

    def check_passes(self, passes: int) -> None:
        """Arrays can be passed over as often as one likes."""

    def first(self, batch_size: int) -> Batch:
        """The first batch."""
        return self.take(slice(batch_size))

    def stacks(
        self, batch_size: int, demand: Demand, order: Order | None = None
    ) -> Generator[Stack, None, None]:
        """The batches of one pass, stacked, in the given order of examples or as they stand.

        In an order of their own they are put together in a thread, one stack ahead. As they stand
        they are views, which cost nothing.

        **Arguments:**

        - `order`: gives a permutation of that many examples.
        """
        parts: list[tuple[int, int, int, int]] = []
        whole, rest = divmod(self.length, batch_size)
        if whole:
            capacity = demand.capacity(self.take(slice(batch_size)))
            for first in range(0, whole, capacity):
                steps = min(capacity, whole - first)
                parts.append((first * batch_size, steps, batch_size, capacity))
        if rest:
            demand.capacity(self.take(slice(rest)))  # so that what is wrong with it shows now
            parts.append((whole * batch_size, 1, rest, 1))

        def make() -> Iterator[Stack]:
            rows = None if order is None else order(self.length)
            return (self._stack(rows, *part) for part in parts)

        if len(parts) == 1 or order is None:
            yield from make()
            return
        with Prefetched(make, ahead=1, wanted=demand.wanted, name="eqxtrain-data") as ready:
            yield from ready

    def _stack(
        self, order: np.ndarray | None, start: int, steps: int, rows: int, capacity: int
    ) -> Stack:
        span = slice(start, start + steps * rows)

        def cut(leaf: np.ndarray) -> np.ndarray:
            if order is None and steps == capacity:
                return leaf[span].reshape(capacity, rows, *leaf.shape[1:])
            buffer = empty((capacity * rows, *leaf.shape[1:]), leaf.dtype)
            if order is None:
                buffer[: steps * rows] = leaf[span]
            else:  # with a mode, for "raise" would make NumPy write to a second buffer first
                np.take(leaf, order[span], axis=0, out=buffer[: steps * rows], mode="clip")
            return buffer.reshape(capacity, rows, *leaf.shape[1:])

        return Stack(jax.tree.map(cut, self.tree), steps, rows)

    def split(self, fraction: float) -> "tuple[ArraySource, ArraySource]":
        """The data without its last `fraction`, and that fraction."""
        if not 0 < fraction < 1:
            raise ValueError(
                f"`validation_split` is a fraction between 0 and 1, such as 0.1; got {fraction}."
            )
        cut = math.floor(self.length * (1 - fraction))
        if cut in (0, self.length):
            raise ValueError(
                f"`validation_split={fraction}` of {self.length} examples leaves one side empty: "
                "choose another fraction, or pass `validation_data`."
            )
        return ArraySource(self.take(slice(cut))), ArraySource(self.take(slice(cut, None)))


def array_source(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> ArraySource:
    """Check data as people give it, and make a source of it.

    **Arguments:**

    - `x`, `y`, `sample_weight`: arrays (NumPy, JAX, torch, anything with `__array__`), or nested
        tuples, lists and dicts of them, all of one length.

    **Raises:** `TypeError` for what is no array of numbers, `ValueError` for lengths that differ,
    no examples, or arrays without a batch axis.
    """
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    if x is None:
        raise TypeError("There is no data: `x` is None.")
    arrays = {name: as_arrays(tree, name) for name, tree in given.items()}
    _check_lengths([leaf for name, tree in arrays.items() for leaf in paths(tree, name)])
    return ArraySource(pack(arrays["x"], arrays["y"], arrays["sample_weight"]))


def as_arrays(tree: PyTree, name: str) -> PyTree:
    """A tree with its leaves as NumPy arrays, of the dtypes that the device will hold.

    **Arguments:**

    - `name`: what the tree is called where a leaf is refused.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_stream)
    if all(map(_is_ready, leaves)):
        return jax.tree.unflatten(structure, leaves)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _as_array(leaf, name + jax.tree_util.keystr(path)),
        tree,
        is_leaf=_is_stream,
    )


def _is_ready(leaf: Any) -> bool:
    numbers = type(leaf) is np.ndarray and leaf.dtype.kind in "biufc" and leaf.ndim > 0
    return numbers and jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype


def _is_stream(node: Any) -> bool:
    """Whether it can be iterated, but is no container of arrays and no array."""
    is_container = isinstance(node, tuple | list | Mapping)
    return hasattr(node, "__iter__") and not is_container and not hasattr(node, "__array__")


def _as_array(leaf: Any, path: str) -> np.ndarray:
    if is_typed_key(leaf):
        raise TypeError(
            f"`{path}` holds random keys. Data are numbers: steps get their own `key`; to feed "
            "keys, give `jax.random.key_data(keys)` and wrap it in the step."
        )
    if not hasattr(leaf, "__array__"):
        if isinstance(leaf, str | bytes | bool | int | float | complex):
            raise TypeError(
                f"`{path}` is {leaf!r}, a Python `{type(leaf).__name__}` and no array: data are "
                "arrays with the examples along their first axis; wrap lists in `np.asarray(...)`."
            )
        raise TypeError(
            f"`{path}` is a `{type(leaf).__name__}`, which is no array: data are arrays, or "
            "tuples, lists and dicts of them; or one iterable of batches, without `y` and "
            "`sample_weight`."
        )
    array = np.asarray(leaf)
    if array.dtype.kind in "USOMm":
        raise TypeError(
            f"`{path}` has the dtype {array.dtype}, which no device computes with: turn it into "
            "numbers first (for labels, `np.unique(y, return_inverse=True)[1]`)."
        )
    if array.ndim == 0:
        raise ValueError(f"`{path}` is a scalar: data have the examples along their first axis.")
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _check_lengths(leaves: list[tuple[str, np.ndarray]]) -> None:
    if not leaves or not leaves[0][0].startswith("x"):
        raise ValueError("There is no data: `x` holds no arrays. Give it at least one.")
    lengths = {path: len(leaf) for path, leaf in leaves}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"`{path}` has {length}" for path, length in lengths.items())
        raise ValueError(
            f"All data must have the same number of examples along their first axis, but {listed}: "
            "cut them to one length, or see whether an axis must be moved to the front."
        )
    if 0 in lengths.values():
        raise ValueError(
            f"There is no data: `{leaves[0][0]}` has 0 examples. See what filtered them all out."
        )


def check_whole(name: str, number: Any, *, at_least: int) -> int:
    """`number` as an int; what is no whole number, or too small a one, is refused."""
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or number < at_least:
        raise ValueError(f"`{name}` is a whole number, {at_least} or more; got {number!r}.")
    return int(number)
