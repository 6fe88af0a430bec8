"""Trees and their leaves: paths, differences, copies, and the split into arrays and the rest."""

import math
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._identity.static_leaf import StaticLeaf
from ._types import PyTree

T = TypeVar("T")


class Static(NamedTuple):
    """A tree without its arrays: its structure and its other leaves.

    **Arguments:**

    - `leaves`: all leaves, with None in the place of each array.
    """

    treedef: Any
    leaves: tuple[Any, ...]

    def merge(self, arrays: Sequence[Any]) -> PyTree:
        """Rebuild the tree, with `arrays` in the places of its arrays."""
        rest = iter(arrays)
        leaves = [next(rest) if leaf is None else leaf for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)


def is_array(leaf: Any) -> bool:
    """Whether `leaf` is traced: an array, a NumPy scalar, or the shape of one."""
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def is_inexact(leaf: Any) -> bool:
    """Whether `leaf` is a floating or complex array, or the shape of one."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def is_typed_key(leaf: Any) -> bool:
    """Whether `leaf` is an array of new-style random keys (`jax.random.key`)."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def partition_leaves(tree: PyTree) -> tuple[list[Any], Static]:
    """Split a tree into its arrays and the rest; `static.merge(arrays)` rebuilds it."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if is_array(leaf)]
    return arrays, Static(treedef, tuple(None if is_array(leaf) else leaf for leaf in leaves))


def not_arrays(tree: PyTree) -> list[Any]:
    """The leaves of a tree that are not arrays."""
    return [leaf for leaf in jax.tree.leaves(tree) if not is_array(leaf)]


def paths(tree: PyTree, root: str = "") -> list[tuple[str, Any]]:
    """Each leaf with its path in Python's notation: `model.layers[0].weight`."""
    return [
        (root + jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def describe(leaf: Any) -> str:
    """Describe one leaf in a message: `float32[3,4]`, or the value itself."""
    if not is_array(leaf):
        text = f"`{leaf.__qualname__}`" if isinstance(leaf, types.FunctionType) else repr(leaf)
        return text if len(text) <= 60 else text[:57] + "..."
    weak = ", weakly typed" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]{weak}"


def leaf_signature(leaf: Any) -> Hashable:
    """What a compiled program depends on in a leaf: shape and dtype, or the value itself."""
    if not is_array(leaf):
        return StaticLeaf(leaf)
    return (leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False)))


def differences(old: PyTree, new: PyTree, root: str = "") -> list[str]:
    """Where two trees differ in structure, shape, dtype or static value, by path.

    The values of arrays are not compared. An empty list means that a program compiled for one takes
    the other.
    """
    before, after = dict(paths(old, root)), dict(paths(new, root))
    lines = [f"`{p}` is gone (was {describe(before[p])})" for p in before if p not in after]
    lines += [f"`{p}` is new ({describe(after[p])})" for p in after if p not in before]
    for path in before.keys() & after.keys():
        if leaf_signature(before[path]) != leaf_signature(after[path]):
            old_text, new_text = describe(before[path]), describe(after[path])
            new_text += " (which closes over something else)" if old_text == new_text else ""
            lines.append(f"`{path}`: {old_text} → {new_text}")
    if not lines and jax.tree.structure(old) != jax.tree.structure(new):
        where = f"`{root}`" if root else "the tree"
        lines.append(f"{where}: a container, a type or a static field in it changed")
    return sorted(lines)


def shape_structs(tree: PyTree) -> PyTree:
    """Replace the arrays of `tree` with their shapes, without weak types."""
    return jax.tree.map(
        lambda leaf: (
            jax.ShapeDtypeStruct(leaf.shape, _canonical(leaf.dtype)) if is_array(leaf) else leaf
        ),
        tree,
    )


def _canonical(dtype: Any) -> Any:
    extended = jnp.issubdtype(dtype, jax.dtypes.extended)  # of random keys
    return dtype if extended else jax.dtypes.canonicalize_dtype(dtype)


def zeros_for_structs(tree: PyTree) -> PyTree:
    """Replace the shapes in `tree` with zeros on the host."""

    def zeros(leaf: Any) -> Any:
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        return np.zeros(leaf.shape, leaf.dtype) if is_shape else leaf

    return jax.tree.map(zeros, tree)


def pack(tree: PyTree) -> dict[str, jax.Array]:
    """Concatenate the arrays of `tree`, flattened, into one vector per dtype."""
    groups: dict[str, list[jax.Array]] = {}
    for leaf in partition_leaves(tree)[0]:
        groups.setdefault(jnp.dtype(leaf.dtype).name, []).append(jnp.ravel(leaf))
    return {name: jnp.concatenate(rows) for name, rows in groups.items()}


def unpack(packed: dict[str, Any], like: PyTree) -> PyTree:
    """Undo `pack`, given a tree `like` the original in structure and shapes."""
    leaves, static = partition_leaves(like)
    offsets = dict.fromkeys(packed, 0)
    arrays: list[Any] = []
    for leaf in leaves:
        name, start = jnp.dtype(leaf.dtype).name, offsets[jnp.dtype(leaf.dtype).name]
        offsets[name] = start + math.prod(leaf.shape)
        arrays.append(packed[name][start : offsets[name]].reshape(leaf.shape))
    return static.merge(arrays)


def inference_mode(model: PyTree) -> PyTree:
    """`eqx.nn.inference_mode(model)`, but fast if no layer has the flag."""

    def has_flag(node: Any) -> bool:
        return hasattr(node, "inference")

    flagged = any(map(has_flag, jax.tree.leaves(model, is_leaf=has_flag)))
    return eqx.nn.inference_mode(model) if flagged else model


def same_bits(a: PyTree, b: PyTree) -> bool:
    """Whether two trees of one structure hold the same NumPy arrays, bit for bit."""
    pairs = zip(partition_leaves(a)[0], partition_leaves(b)[0], strict=True)
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


def find_path(predicate: Callable[[Any], bool], tree: PyTree, root: str) -> str | None:
    """The path of the first leaf for which `predicate` holds."""
    if not any(map(predicate, jax.tree.leaves(tree))):  # building paths is slow
        return None
    return next((path for path, leaf in paths(tree, root) if predicate(leaf)), None)


def count_and_bytes(tree: PyTree) -> tuple[int, int]:
    """How many numbers the arrays of `tree` hold, and how many bytes.

    Shapes and NumPy scalars count; functions and Python numbers do not (`optax.tree.size` would
    count them).
    """
    arrays = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
    return (
        sum(math.prod(a.shape) for a in arrays),
        sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays),
    )


def instance(cls: type[T], fields: Mapping[str, Any]) -> T:
    """An instance of `cls` with exactly these fields, without running its constructor or checks."""
    new = object.__new__(cls)
    vars(new).update(fields)
    return new


def with_fields(x: T, **changes: Any) -> T:
    """A shallow copy with some fields changed, without running constructors or `__copy__`."""
    return instance(type(x), {**vars(x), **changes})
