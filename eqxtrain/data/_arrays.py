"""In-memory arrays as a source of batches."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._tree import is_typed_key, paths
from ._batch import Batch, pack


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

    def batches(self, batch_size: int, order: np.ndarray | None = None) -> Iterator[Batch]:
        """The batches of one pass, in the given order of examples, else as they stand."""
        for start in range(0, self.length, batch_size):
            rows = slice(start, start + batch_size)
            yield self.take(rows if order is None else order[rows])

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


def as_source(x: PyTree, y: PyTree = None, sample_weight: PyTree = None) -> ArraySource:
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
    arrays = {
        name: jax.tree_util.tree_map_with_path(
            lambda path, leaf, name=name: _as_array(leaf, name + jax.tree_util.keystr(path)),
            tree,
            is_leaf=_is_stream,
        )
        for name, tree in given.items()
    }
    _check_lengths([leaf for name, tree in arrays.items() for leaf in paths(tree, name)])
    return ArraySource(pack(arrays["x"], arrays["y"], arrays["sample_weight"]))


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
            f"`{path}` is a `{type(leaf).__name__}`, which is no array. `fit`, `evaluate` and "
            "`predict` take arrays, or tuples, lists and dicts of them: collect iterables with "
            "`np.stack(list(...))`."
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


def named_sets(validation_data: Any) -> dict[str, ArraySource]:
    """Validation data as sources by the prefix of their logs.

    **Arguments:**

    - `validation_data`: `(x,)`, `(x, y)`, `(x, y, sample_weight)` or an array, logged as `val_...`;
        or a dict of them, logged as `val_<name>_...`.
    """
    if isinstance(validation_data, Mapping):
        if not validation_data:
            raise ValueError("`validation_data` is an empty dict: give it sets, or None.")
        return {
            f"val_{name}_": _validation(data, f"validation_data[{name!r}]")
            for name, data in validation_data.items()
        }
    return {"val_": _validation(validation_data, "validation_data")}


def _validation(data: Any, name: str) -> ArraySource:
    parts = tuple(data) if isinstance(data, tuple | list) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{name}` is `(x,)`, `(x, y)` or `(x, y, sample_weight)`; got {len(parts)} parts."
        )
    try:
        return as_source(*parts)
    except (TypeError, ValueError) as error:
        hint = (
            " (A dict of arrays is taken as named sets; wrap it, `validation_data=(mapping,)`.)"
            if "[" in name
            else ""
        )
        raise type(error)(f"In `{name}`: {error}{hint}") from None


def check_whole(name: str, number: Any, *, at_least: int) -> None:
    """Refuse what is no whole number, or too small a one."""
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or number < at_least:
        raise ValueError(f"`{name}` is a whole number, {at_least} or more; got {number!r}.")
