"""The user's arrays, of any library, as NumPy arrays; anything else is refused."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._placement import as_numpy, is_deleted
from .._tree import is_typed_key
from .._types import PyTree

Column = Any
"""A NumPy array, or a sparse SciPy matrix in compressed rows."""

_BATCH_THEM = (
    " If these are single examples, batch them: `.batch(32)` in Grain, or `DataLoader(..., "
    "batch_size=32)`; or stack them all, `np.stack(...)`."
)


def as_columns(tree: PyTree, name: str, *, of: str = "data") -> PyTree:
    """A tree with its leaves as columns, of the dtypes that the device will hold.

    **Arguments:**

    - `name`: what errors call the tree.
    - `of`: what it is part of, `"data"` or `"a batch"`.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_stream)
    # Most batches hold plain arrays, and this runs for each batch: paths are made only if needed.
    quick = [_as_plain_column(leaf) for leaf in leaves]
    if all(column is not None for column in quick):
        return jax.tree.unflatten(structure, quick)
    return jax.tree.map_with_path(
        lambda path, leaf: _as_column(leaf, name + jax.tree_util.keystr(path), of),
        tree,
        is_leaf=_is_stream,
    )


def as_batch(batch: Any) -> PyTree:
    """Check a batch as the user gives it, and make arrays of its leaves."""
    if batch is None:
        raise TypeError(
            "The data yielded None instead of a batch: yield `(x,)`, `(x, y)`, or a mapping."
        )
    columns = as_columns(batch, "batch", of="a batch")
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(columns)}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(columns))
        raise ValueError(
            "All parts of a batch must have the same number of examples along their first axis, "
            f"at least one, but one has {f'the shapes {shapes}' if shapes else 'no arrays'}."
            + _BATCH_THEM
        )
    # The batch waits for its turn, and its loader may meanwhile reuse the memory for the next one.
    return jax.tree.map(_copied, columns)


def _copied(column: Column) -> np.ndarray:
    return column.toarray() if is_sparse(column) else np.array(column, copy=True)


def take(column: Column, rows: Any) -> np.ndarray:
    """Some rows, by indices or by a slice; a slice of a NumPy array is a view."""
    return column[rows].toarray() if is_sparse(column) else column[rows]


def take_into(column: Column, rows: Any, out: np.ndarray) -> None:
    """Some rows, written to `out`."""
    if is_sparse(column):
        column[rows].toarray(out=out)
    elif isinstance(rows, slice):
        out[...] = column[rows]
    else:  # with the default mode, "raise", NumPy would write to a buffer of its own first
        np.take(column, rows, axis=0, out=out, mode="clip")


def is_sparse(leaf: Any) -> bool:
    """Whether it is a sparse SciPy matrix or array."""
    return hasattr(leaf, "tocsr") and hasattr(leaf, "toarray")


def _as_plain_column(leaf: Any) -> np.ndarray | None:
    """A plain NumPy array or torch tensor as a column; None for any other leaf."""
    if hasattr(leaf, "detach"):
        leaf = as_numpy(_from_torch(leaf))
    if type(leaf) is not np.ndarray or leaf.dtype.kind not in "biufc" or leaf.ndim == 0:
        return None
    native = leaf.dtype if leaf.dtype.isnative else leaf.dtype.newbyteorder("=")
    return leaf.astype(jax.dtypes.canonicalize_dtype(native), copy=False)


def _is_stream(node: Any) -> bool:
    """Whether it can be iterated, but is neither an array nor a container of arrays."""
    is_container = isinstance(node, tuple | list | Mapping)
    return hasattr(node, "__iter__") and not is_container and not hasattr(node, "__array__")


def _as_column(leaf: Any, path: str, of: str) -> Column:
    if is_typed_key(leaf):
        raise TypeError(
            f"`{path}` holds random keys, but data must be numbers. A step can ask for a `key`; to "
            "feed keys of your own, pass `jax.random.key_data(keys)` and wrap it in the step."
        )
    if is_deleted(leaf):
        raise ValueError(
            f"`{path}` was deleted, or its buffer was donated to a computation: make it again, or "
            "keep a copy, `np.asarray(...)`, before donating it."
        )
    if isinstance(leaf, Mapping):  # one that is not a pytree, such as a tokenizer's
        return as_columns(dict(leaf), path, of=of)
    if is_sparse(leaf):
        return _canonical(leaf.tocsr(), path)
    leaf = _from_torch(leaf) if hasattr(leaf, "detach") else leaf
    leaf = as_numpy(leaf[:]) if is_lazy_column(leaf) else leaf
    leaf = _from_frame(leaf, path) if hasattr(leaf, "to_numpy") else leaf
    if not hasattr(leaf, "__array__"):
        raise TypeError(_not_an_array_message(leaf, path, of))
    array = np.asanyarray(leaf) if isinstance(leaf, np.ma.MaskedArray) else as_numpy(leaf)
    if array.ndim == 0:
        raise ValueError(
            f"`{path}` is a scalar, but data must have the examples along their first axis."
            + _BATCH_THEM * (of == "a batch")
        )
    return _canonical(array, path)


def _canonical(column: Column, path: str) -> Column:
    if isinstance(column, np.ma.MaskedArray):
        raise TypeError(
            f"`{path}` is a masked array, whose mask would be lost: fill it, `.filled(...)`, and "
            "give the missing values a `sample_weight` of 0."
        )
    if column.dtype.kind in "USOMm" or column.dtype.names is not None:
        raise TypeError(
            f"`{path}` has dtype {column.dtype}, which no device computes with: turn it into "
            "numbers first (for labels, `np.unique(y, return_inverse=True)[1]`; pad rows of "
            "different lengths to one)."
        )
    native = column.dtype.newbyteorder("=")
    return column.astype(jax.dtypes.canonicalize_dtype(native), copy=False)


def _not_an_array_message(leaf: Any, path: str, of: str) -> str:
    cls = type(leaf).__name__
    if isinstance(leaf, str | bytes | bool | int | float | complex):
        return (
            f"`{path}` is {leaf!r}, a Python `{cls}`, not an array: data must be arrays with the "
            "examples along their first axis, so wrap lists in `np.asarray(...)`."
            + _BATCH_THEM
            * (of == "a batch")
        )
    if isinstance(leaf, type):
        return f"`{path}` is the class `{leaf.__name__}`: pass an instance."
    return (
        f"`{path}` is a `{cls}`, which is not an array: pass arrays, or tuples, lists and dicts of "
        "them; or one iterable of batches, without `y` and `sample_weight`."
    )


def _from_torch(tensor: Any) -> Any:
    """A torch tensor in a form that NumPy accepts."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is sys.modules["torch"].bfloat16:  # NumPy has no such dtype
        return tensor.view(sys.modules["torch"].int16).numpy().view(jnp.bfloat16)
    return tensor


def is_lazy_column(leaf: Any) -> bool:
    """Whether it is a column of a HuggingFace `Dataset`, whose values are read by slicing."""
    module = type(leaf).__module__
    return module.split(".")[0] == "datasets" and type(leaf).__name__ == "Column"


def _from_frame(table: Any, path: str) -> Any:
    """A pandas `DataFrame` or `Series` as numbers, where NumPy would make objects of them."""
    array = as_numpy(table)
    if array.dtype != object or not hasattr(table, "iloc"):
        return array
    if array.ndim == 1:
        return _from_series(table, path)
    columns = [table.iloc[:, i] for i in range(array.shape[1])]
    return np.stack(
        [_from_series(column, f"{path}[{column.name!r}]") for column in columns], axis=1
    )


def _from_series(series: Any, path: str) -> np.ndarray:
    if series.dtype.kind not in "biuf":
        raise TypeError(
            f"`{path}` has dtype {series.dtype}, which no device computes with: turn it into "
            "numbers first (`pd.get_dummies`, `.cat.codes`), or leave it out."
        )
    array = as_numpy(series)
    return array if array.dtype != object else series.to_numpy(dtype=float, na_value=np.nan)
