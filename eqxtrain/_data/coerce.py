"""What people give as an array, told apart, refused with a sentence, or made one of NumPy's."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._placement import is_deleted
from .._tree import is_typed_key
from .._types import PyTree

Column = Any
"""A NumPy array, or the rows of a SciPy matrix in its compressed form."""

_BATCH_THEM = (
    " If these are single examples, batch them: `.batch(32)` of Grain, a `DataLoader(..., "
    "batch_size=32)`; or stack them all, `np.stack(...)`."
)


def as_columns(tree: PyTree, name: str, *, of: str = "data") -> PyTree:
    """A tree with its leaves as columns, of the dtypes that the device will hold.

    **Arguments:**

    - `name`: what the tree is called where a leaf is refused.
    - `of`: what it is a part of, `"data"` or `"a batch"`.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_stream)
    quick = [_quickly(leaf) for leaf in leaves]
    if all(column is not None for column in quick):
        return jax.tree.unflatten(structure, quick)
    return jax.tree.map_with_path(
        lambda path, leaf: _as_column(leaf, name + jax.tree_util.keystr(path), of),
        tree,
        is_leaf=_is_stream,
    )


def as_batch(batch: Any) -> PyTree:
    """Check a batch as people give it, and make arrays of its leaves."""
    if batch is None:
        raise TypeError("The data gave None where a batch was due.")
    columns = as_columns(batch, "batch", of="a batch")
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(columns)}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(columns))
        raise ValueError(
            "All parts of a batch must have the same number of examples along their first axis, "
            f"at least one; a batch came with the shapes {shapes or 'of no array at all'}."
            + _BATCH_THEM
        )
    # it waits for its turn, and whoever made it may fill the same memory again
    copied = lambda leaf: leaf.toarray() if is_sparse(leaf) else np.array(leaf, copy=True)
    return jax.tree.map(copied, columns)


def take(column: Column, rows: Any) -> np.ndarray:
    """Some rows, given as indices or as a slice: a view where that is one."""
    return column[rows].toarray() if is_sparse(column) else column[rows]


def take_into(column: Column, rows: Any, out: np.ndarray) -> None:
    """Some rows, written to `out`."""
    if is_sparse(column):
        column[rows].toarray(out=out)
    elif isinstance(rows, slice):
        out[...] = column[rows]
    else:  # with a mode, for "raise" would make NumPy write to a second buffer first
        np.take(column, rows, axis=0, out=out, mode="clip")


def is_sparse(leaf: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy's."""
    return hasattr(leaf, "tocsr") and hasattr(leaf, "toarray")


def _quickly(leaf: Any) -> np.ndarray | None:
    """A column, without a path to name it by, of the leaves that most batches have."""
    if hasattr(leaf, "detach"):
        leaf = np.asarray(_of_torch(leaf))
    if type(leaf) is not np.ndarray or leaf.dtype.kind not in "biufc" or leaf.ndim == 0:
        return None
    native = leaf.dtype if leaf.dtype.isnative else leaf.dtype.newbyteorder("=")
    return leaf.astype(jax.dtypes.canonicalize_dtype(native), copy=False)


def _is_stream(node: Any) -> bool:
    """Whether it can be iterated, but is no container of arrays and no array."""
    is_container = isinstance(node, tuple | list | Mapping)
    return hasattr(node, "__iter__") and not is_container and not hasattr(node, "__array__")


def _as_column(leaf: Any, path: str, of: str) -> Column:
    if is_typed_key(leaf):
        raise TypeError(
            f"`{path}` holds random keys. Data are numbers: steps get their own `key`; to feed "
            "keys, give `jax.random.key_data(keys)` and wrap it in the step."
        )
    if is_deleted(leaf):
        raise ValueError(
            f"`{path}` was deleted, or given away to a computation that its buffer was donated to: "
            "make it again, or keep a copy, `np.asarray(...)`, before it is donated."
        )
    if isinstance(leaf, Mapping):  # one that JAX does not know, such as a tokenizer's
        return as_columns(dict(leaf), path, of=of)
    if is_sparse(leaf):
        return _canonical(leaf.tocsr(), path)
    leaf = _of_torch(leaf) if hasattr(leaf, "detach") else leaf
    leaf = np.asarray(leaf[:]) if is_lazy_column(leaf) else leaf
    leaf = _of_frame(leaf, path) if hasattr(leaf, "to_numpy") else leaf
    if not hasattr(leaf, "__array__"):
        raise TypeError(_no_array(leaf, path, of))
    array = np.asanyarray(leaf) if isinstance(leaf, np.ma.MaskedArray) else np.asarray(leaf)
    if array.ndim == 0:
        raise ValueError(
            f"`{path}` is a scalar: data have the examples along their first axis."
            + _BATCH_THEM * (of == "a batch")
        )
    return _canonical(array, path)


def _canonical(column: Column, path: str) -> Column:
    if isinstance(column, np.ma.MaskedArray):
        raise TypeError(
            f"`{path}` is a masked array, whose mask would be lost: fill it, `.filled(...)`, and "
            "give what is missing the `sample_weight` 0."
        )
    if column.dtype.kind in "USOMm" or column.dtype.names is not None:
        raise TypeError(
            f"`{path}` has the dtype {column.dtype}, which no device computes with: turn it into "
            "numbers first (for labels, `np.unique(y, return_inverse=True)[1]`; rows of several "
            "lengths are padded to one)."
        )
    native = column.dtype.newbyteorder("=")
    return column.astype(jax.dtypes.canonicalize_dtype(native), copy=False)


def _no_array(leaf: Any, path: str, of: str) -> str:
    kind = type(leaf).__name__
    if isinstance(leaf, str | bytes | bool | int | float | complex):
        return (
            f"`{path}` is {leaf!r}, a Python `{kind}`, not an array: data are arrays with the "
            "examples along their first axis; wrap lists in `np.asarray(...)`."
            + _BATCH_THEM
            * (of == "a batch")
        )
    if isinstance(leaf, type):
        return f"`{path}` is the class `{leaf.__name__}`: give an instance of it."
    return (
        f"`{path}` is a `{kind}`, which is not an array: data are arrays, or tuples, lists and "
        "dicts of them; or one iterable of batches, without `y` and `sample_weight`."
    )


def _of_torch(tensor: Any) -> Any:
    """A tensor of torch's as NumPy can take it."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is sys.modules["torch"].bfloat16:  # which NumPy has no name for
        return tensor.view(sys.modules["torch"].int16).numpy().view(jnp.bfloat16)
    return tensor


def is_lazy_column(leaf: Any) -> bool:
    """Whether it is a column of a HuggingFace `Dataset`, which gives its values when sliced."""
    module = type(leaf).__module__
    return module.split(".")[0] == "datasets" and type(leaf).__name__ == "Column"


def _of_frame(table: Any, path: str) -> Any:
    """A pandas `DataFrame` or `Series` whose numbers NumPy would take for objects, as numbers."""
    array = np.asarray(table)
    if array.dtype != object or not hasattr(table, "iloc"):
        return array
    if array.ndim == 1:
        return _of_series(table, path)
    columns = [table.iloc[:, i] for i in range(array.shape[1])]
    return np.stack([_of_series(column, f"{path}[{column.name!r}]") for column in columns], axis=1)


def _of_series(series: Any, path: str) -> np.ndarray:
    if series.dtype.kind not in "biuf":
        raise TypeError(
            f"`{path}` has the dtype {series.dtype}, which no device computes with: turn it into "
            "numbers first (`pd.get_dummies`, `.cat.codes`), or leave it out."
        )
    array = np.asarray(series)
    return array if array.dtype != object else series.to_numpy(dtype=float, na_value=np.nan)
