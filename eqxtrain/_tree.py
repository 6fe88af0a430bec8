"""Trees and their leaves: paths, differences, copies, and the split into arrays and the rest."""

import functools
import types
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


class Frozen(Hashable):
    """A leaf that is no array, hashable, and equal to what makes the same program.

    `1 == 1.0 == True` in Python, and `nan != nan`; a compiled program must tell the first apart and
    know the second again. Functions are equal if they share their code and what they close over,
    so that `optax.adam(1e-3)` is the same optimizer each time. What can't be hashed is compared by
    identity.
    """

    __slots__ = ("_identity", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._identity = _identity(value, frozenset())

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._identity == other._identity

    def __repr__(self) -> str:
        return repr(self.value)


class _Same(Hashable):
    """Equal to nothing but itself, and held, so that its `id` is not given to another."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __hash__(self) -> int:
        return id(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value


def _identity(value: Any, seen: frozenset[int]) -> Hashable:
    """What two values must share to make the same program."""
    kind = type(value)
    if isinstance(value, types.FunctionType) and id(value) not in seen:
        seen = seen | {id(value)}
        try:
            cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        except ValueError:  # a cell that is not filled yet
            return kind, _Same(value)
        by_name = tuple(sorted((value.__kwdefaults__ or {}).items()))
        held = (cells, value.__defaults__ or (), by_name)
        # `is` and not `==`: equal code of two definitions may have other globals
        return kind, _Same(value.__code__), _identity(held, seen)
    if isinstance(value, functools.partial):
        held = (value.func, value.args, tuple(sorted(value.keywords.items())))
        return kind, _identity(held, seen)
    if isinstance(value, tuple):
        return kind, tuple(_identity(part, seen) for part in value)
    if isinstance(value, float | complex):
        return kind, repr(value)
    try:
        hash(value)
    except TypeError:
        return kind, _Same(value)
    return kind, value


class Static(NamedTuple):
    """All of a tree but its arrays: the structure, and the other leaves in their places."""

    treedef: Any
    leaves: tuple[Frozen | None, ...]

    def merge(self, arrays: Sequence[Any]) -> PyTree:
        """The tree again, with `arrays` where its arrays were."""
        rest = iter(arrays)
        leaves = [next(rest) if leaf is None else leaf.value for leaf in self.leaves]
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


def split(tree: PyTree) -> tuple[list[Any], Static]:
    """Take a tree apart into its arrays and all else: `split(t)[1].merge(split(t)[0])` is `t`."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if is_array(leaf)]
    return arrays, Static(
        treedef, tuple(None if is_array(leaf) else Frozen(leaf) for leaf in leaves)
    )


def paths(tree: PyTree, root: str = "") -> list[tuple[str, Any]]:
    """Each leaf with its path in Python's notation: `model.layers[0].weight`."""
    return [
        (root + jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def describe(leaf: Any) -> str:
    """One leaf for a sentence: `float32[3,4]`, or the value itself."""
    if not is_array(leaf):
        text = f"`{leaf.__qualname__}`" if isinstance(leaf, types.FunctionType) else repr(leaf)
        return text if len(text) <= 60 else text[:57] + "..."
    weak = ", weakly typed" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]{weak}"


def signature(leaf: Any) -> Hashable:
    """What a compiled program depends on in a leaf: shape and dtype, or the value itself."""
    if not is_array(leaf):
        return Frozen(leaf)
    return (leaf.shape, leaf.dtype, bool(getattr(leaf, "weak_type", False)))


def differences(old: PyTree, new: PyTree, root: str = "") -> list[str]:
    """Where two trees differ in structure, shape, dtype or static value, by path.

    Values of arrays are not looked at. An empty list means that a program compiled for one takes
    the other.
    """
    before, after = dict(paths(old, root)), dict(paths(new, root))
    lines = [f"`{p}` is gone (was {describe(before[p])})" for p in before if p not in after]
    lines += [f"`{p}` is new ({describe(after[p])})" for p in after if p not in before]
    for path in before.keys() & after.keys():
        if signature(before[path]) != signature(after[path]):
            old_text, new_text = describe(before[path]), describe(after[path])
            new_text += " (which closes over something else)" if old_text == new_text else ""
            lines.append(f"`{path}`: {old_text} → {new_text}")
    if not lines and jax.tree.structure(old) != jax.tree.structure(new):
        where = f"`{root}`" if root else "the tree"
        lines.append(f"{where}: a container, a type or a static field of it changed")
    return sorted(lines)


def strong(x: Any) -> jax.Array:
    """`x` as a JAX array without a weak type (which would cost a second trace)."""
    array = jnp.asarray(x)
    if not getattr(array, "weak_type", False):
        return array
    return jax.lax.convert_element_type(array, array.dtype)


def shapes(tree: PyTree) -> PyTree:
    """`tree` with the shapes of its arrays in their places, weak types forgotten."""
    return jax.tree.map(
        lambda leaf: (
            jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
            if is_array(leaf)
            else leaf
        ),
        tree,
    )


def canonical(tree: PyTree) -> PyTree:
    """`tree` with every array a JAX array of a strong type."""
    return jax.tree.map(lambda leaf: strong(leaf) if eqx.is_array(leaf) else leaf, tree)


def copy(tree: PyTree) -> PyTree:
    """`tree` with new buffers, which survive the donation of the old ones."""
    return jax.tree.map(
        lambda leaf: jnp.array(leaf, copy=True) if eqx.is_array(leaf) else leaf, tree
    )


def to_host(tree: PyTree) -> PyTree:
    """`tree` with its arrays as NumPy arrays that own their memory. Waits for the device."""
    return jax.tree.map(
        lambda leaf: np.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf, tree
    )


def untied(tree: PyTree, seen: dict[int, str], *, root: str, warn: bool) -> PyTree:
    """`tree` with a copy of every array that `seen` (id → path) already holds.

    A donated buffer may be given only once, so one array in two places can't be trained as one;
    `eqx.nn.Shared` can. With `warn`, a copy is reported with both paths.
    """

    def untie(path: tuple[Any, ...], leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        name = root + jax.tree_util.keystr(path)
        if id(leaf) not in seen:
            seen[id(leaf)] = name
            return leaf
        if warn:
            warnings.warn(
                f"`{name}` and `{seen[id(leaf)]}` are one array. They are trained apart from here "
                "on; to tie them, use `eqx.nn.Shared`.",
                stacklevel=2,
            )
        return jnp.array(leaf, copy=True)

    return jax.tree_util.tree_map_with_path(untie, tree)


def first(predicate: Callable[[Any], bool], tree: PyTree, root: str) -> str | None:
    """The path of the first leaf for which `predicate` holds."""
    return next((path for path, leaf in paths(tree, root) if predicate(leaf)), None)


def size(tree: PyTree) -> tuple[int, int]:
    """How many numbers the arrays of `tree` hold, and how many bytes."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
    return (
        sum(int(np.prod(a.shape)) for a in arrays),
        sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in arrays),
    )


def with_fields(module: Any, **changes: Any) -> Any:
    """A module with some fields set, past its constructor and its checks."""
    new = object.__new__(type(module))
    for name, value in {**vars(module), **changes}.items():
        object.__setattr__(new, name, value)
    return new
