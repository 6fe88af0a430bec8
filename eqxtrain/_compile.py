"""The only room that compiles: ahead of time, on flat leaves, donated; the cache of programs.

`eqx.filter_jit` waits for its result on every call and flattens whole modules each time. What it
compiles ahead of time does neither, so a program here is lowered once, from shapes, and called with
lists of arrays: the next batch is prepared while the device works.
"""

import collections
import dataclasses
import time
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from . import _tree

_CACHE_SIZE = 128


@dataclasses.dataclass(frozen=True)
class Compilation:
    """The record of one compile.

    **Arguments:**

    - `step`: which step's program.
    - `reason`: `"first"`, or what changed since the last one of this step, by path.
    - `seconds`: how long tracing and compiling took.
    """

    step: str
    reason: str
    seconds: float


class TracedOnce:
    """A function of trees that is traced once, however often it is asked for.

    Its shapes are wanted before the program around it is compiled; an inner `jax.jit` lets both
    share one trace, so that people's code runs once.
    """

    def __init__(self, fn: Callable[..., PyTree]) -> None:
        self._statics: dict[_tree.Static, _tree.Static] = {}

        def on_leaves(leaves: list[Any], static: _tree.Static) -> list[Any]:
            out, self._statics[static] = _tree.split(fn(*static.merge(leaves)))
            return out

        self._compiled = jax.jit(on_leaves, static_argnums=1)

    def __call__(self, *args: PyTree) -> PyTree:
        leaves, static = _tree.split(args)
        out = self._compiled(leaves, static)
        return self._statics[static].merge(out)

    def shapes(self, *args: PyTree) -> PyTree:
        """The shapes of what it returns."""
        leaves, static = _tree.split(args)
        out = jax.eval_shape(lambda leaves: self._compiled(leaves, static), leaves)
        return self._statics[static].merge(out)


class Program:
    """A compiled function `fn(kept, *donated) -> trees`, called on lists of arrays.

    **Arguments:**

    - `fn`: a pure function of trees that returns a tuple of trees.
    - `args`: the trees that it will be called with, or others of the same structure and shapes.
    - `jit`: compiles a function of lists of arrays, or returns it as it is.
    """

    def __init__(
        self,
        fn: Callable[..., tuple[PyTree, ...]],
        args: tuple[PyTree, ...],
        *,
        jit: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        flat = [_tree.split(arg) for arg in args]
        self._statics = [static for _, static in flat]
        self.out: list[_tree.Static] = []
        call: Any = jit(self._on_leaves(fn))
        if hasattr(call, "lower"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
                call = call.lower(*(leaves for leaves, _ in flat)).compile()
        self._call = call

    def _on_leaves(self, fn: Callable[..., tuple[PyTree, ...]]) -> Callable[..., Any]:
        def step(kept: list[Any], *donated: list[Any]) -> tuple[list[Any], ...]:
            trees = [
                static.merge(leaves)
                for static, leaves in zip(self._statics, (kept, *donated), strict=True)
            ]
            flat = [_tree.split(tree) for tree in fn(*trees)]
            self.out = [static for _, static in flat]
            return tuple([_tree.strong(leaf) for leaf in leaves] for leaves, _ in flat)

        return step

    def __call__(self, *leaves: list[Any]) -> tuple[list[Any], ...]:
        return self._call(*leaves)


_programs: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_last_seen: dict[Hashable, collections.deque[dict[str, PyTree]]] = {}


def cached(key: Hashable, build: Callable[[], Any]) -> tuple[Any, bool]:
    """What is stored under `key`, built if it is not there; and whether it was built now."""
    if key in _programs:
        _programs.move_to_end(key)
        return _programs[key], False
    made = build()
    _programs[key] = made
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return made, True


def clear_caches() -> None:
    """Forget every compiled program, and JAX's and Equinox's with them.

    For long notebook sessions that make many learners.
    """
    _programs.clear()
    _last_seen.clear()
    eqx.clear_caches()
    jax.clear_caches()


def key_of(*trees: PyTree) -> Hashable:
    """What a program depends on: structure, static values, shapes, dtypes, and JAX's settings."""
    parts: list[Hashable] = [_settings()]
    for tree in trees:
        leaves, static = _tree.split(tree)
        parts.append(static)
        parts.append(tuple((_tree.signature(leaf), _placement(leaf)) for leaf in leaves))
    return tuple(parts)


def _placement(leaf: Any) -> Hashable:
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None


_SETTINGS = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_debug_nans",
    "jax_disable_jit",
    "jax_default_prng_impl",
    "jax_default_device",
    "jax_threefry_partitionable",
)


def _settings() -> tuple[Hashable, ...]:
    return tuple(getattr(jax.config, name) for name in _SETTINGS)


def record(step: str, owner: type, began: float, **trees: PyTree) -> Compilation:
    """Note a compile of `step` for learners of the class `owner`, and why it was needed.

    The reason is how it differs from the most similar one of the last few.
    """
    settings = dict(zip(_SETTINGS, map(str, _settings()), strict=True))
    new = {name: _shapes_of(tree) for name, tree in trees.items()} | {"jax.config": settings}
    earlier = _last_seen.setdefault((step, owner), collections.deque(maxlen=8))
    changes = [
        [line for name in new for line in _tree.differences(old[name], new[name], name)]
        for old in earlier
    ]
    earlier.append(new)
    nearest = min(changes, key=len, default=None)
    reason = "first" if nearest is None else "; ".join(nearest[:3]) or "no longer cached"
    return Compilation(step, reason, time.perf_counter() - began)


def _shapes_of(tree: PyTree) -> PyTree:
    def shape(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        weak = bool(getattr(leaf, "weak_type", False))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)

    return jax.tree.map(shape, tree)


def compiled(fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Call a function under `eqx.filter_jit`."""
    return eqx.filter_jit(fn)(*args)
