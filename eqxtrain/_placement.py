"""Where arrays live: the one door through which engine and loop move, copy and fetch them."""

from collections.abc import Hashable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._tree import paths
from ._types import PyTree
from ._warn import warn

_SMALL = 4096
"""Arrays of up to so many bytes are copied before donation. The optimizer may still hold them
(`optax.inject_hyperparams` does), and copying is cheaper than finding out."""

_ALIGNMENT = 64
"""In bytes. XLA's CPU backend reads memory that begins at a multiple of it without a copy."""


def put(tree: PyTree) -> PyTree:
    """Move arrays of the host to the device. Unlike `jnp.asarray`, this compiles nothing."""
    return jax.device_put(tree)


def put_each_once(tree: PyTree) -> PyTree:
    """Move arrays of the host to the device; one in two places stays one array."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = {id(leaf): leaf for leaf in leaves}
    moved = dict(zip(arrays, put(list(arrays.values())), strict=True))
    return jax.tree.unflatten(structure, [moved[id(leaf)] for leaf in leaves])


def copy(tree: PyTree) -> PyTree:
    """Copy all arrays to new buffers on the device, which survive the donation of the old ones."""
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, leaf in enumerate(leaves) if eqx.is_array(leaf)]
    new = jax.device_put([leaves[i] for i in where], may_alias=False)
    for i, leaf in zip(where, new, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def donatable(tree: PyTree) -> PyTree:
    """Make a tree ready for donation, copying only small arrays and those that occur twice."""
    seen: set[int] = set()

    def take(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        again = id(leaf) in seen
        seen.add(id(leaf))
        return jnp.array(leaf, copy=True) if again or leaf.nbytes <= _SMALL else leaf

    return jax.tree.map(take, tree)


def copy_tied(tree: PyTree, *, root: str) -> PyTree:
    """Copy every array that occurs in the tree twice, and warn with both paths.

    A buffer can be donated only once, so an array in two places can't be trained as one;
    `eqx.nn.Shared` can.
    """
    leaves, structure = jax.tree.flatten(tree)
    ids = [id(leaf) for leaf in leaves if isinstance(leaf, jax.Array)]
    if len(ids) == len(set(ids)):
        return tree
    seen: dict[int, str] = {}
    for i, (name, leaf) in enumerate(paths(tree, root)):
        if isinstance(leaf, jax.Array) and seen.setdefault(id(leaf), name) != name:
            warn(
                f"`{name}` and `{seen[id(leaf)]}` are one array. They are trained apart from here "
                "on; to tie them, use `eqx.nn.Shared`.",
            )
            leaves[i] = jnp.array(leaf, copy=True)
    return jax.tree.unflatten(structure, leaves)


def strip_weak_type(x: Any) -> jax.Array:
    """Convert to a JAX array without a weak type, which would cost a second trace."""
    if isinstance(x, np.ndarray | np.generic):
        return put(x)
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return jax.lax.convert_element_type(array, array.dtype) if is_weak(array) else array


def as_jax_arrays(tree: PyTree) -> PyTree:
    """Convert every array to a JAX array without a weak type."""
    leaves, structure = jax.tree.flatten(tree)
    on_host = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray | np.generic)]
    weak = [i for i, leaf in enumerate(leaves) if eqx.is_array(leaf) and is_weak(leaf)]
    if not on_host and not weak:
        return tree
    for i, leaf in zip(on_host, put([leaves[i] for i in on_host]), strict=True):
        leaves[i] = leaf
    for i in weak:
        leaves[i] = strip_weak_type(leaves[i])
    return jax.tree.unflatten(structure, leaves)


def fetch(tree: PyTree) -> PyTree:
    """Copy arrays to the host as NumPy arrays, waiting for the device.

    `jax.device_get` does the same, at eight times the cost for an array that the host has already.
    """
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    if arrays and platform(arrays[:1]) != "cpu":
        for array in arrays:  # all transfers at once, rather than one after the other
            array.copy_to_host_async()
    fetched = [as_numpy(leaf) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, fetched)


def as_numpy(array: Any) -> np.ndarray:
    """One array on the host, waiting for the device; a view of its memory if that is possible."""
    return np.asarray(array)


def owned_by_host(tree: PyTree) -> PyTree:
    """Copy arrays to NumPy arrays that own their memory, waiting for the device.

    `fetch` may return views of device memory, which a later donation would overwrite.
    """
    return jax.tree.map(
        lambda leaf: np.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf, tree
    )


def wait(tree: PyTree) -> None:
    """Wait until all arrays are computed, and raise what went wrong on the device."""
    jax.block_until_ready(tree)


def is_ready(tree: PyTree) -> bool:
    """Whether all arrays are computed, so that fetching them would not wait."""
    arrays: list[Any] = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return all(array.is_ready() for array in arrays)


def delete(leaves: Iterable[Any]) -> None:
    """Free the memory of JAX arrays, so that using one of them by mistake raises."""
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and not leaf.is_deleted():
            leaf.delete()


def is_deleted(leaf: Any) -> bool:
    """Whether `leaf` is a JAX array that was donated or deleted."""
    return isinstance(leaf, jax.Array) and leaf.is_deleted()


def is_weak(leaf: Any) -> bool:
    """Whether `leaf` has JAX's weak type, that of an array made from a Python number."""
    return bool(getattr(leaf, "weak_type", False))


def sharding(leaf: Any) -> Hashable:
    """The sharding that an array was committed to, or None."""
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None


def platform(leaves: list[Any]) -> str:
    """The platform that a program on these arrays will run on: `"cpu"`, `"gpu"`, `"tpu"`."""
    for leaf in leaves:
        if leaf.committed:
            return next(iter(leaf.devices())).platform
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return getattr(device, "platform", device) or jax.default_backend()


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Allocate an array on the host that XLA's CPU backend can use without copying it."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count].view(dtype).reshape(shape)
