"""The only room that compiles: ahead of time, on flat leaves, donated; the cache of programs.

`eqx.filter_jit` waits for its result on every call and flattens whole modules each time. What it
compiles ahead of time does neither, so a program here is lowered once, from shapes, and called with
lists of arrays: the next batch is prepared while the device works.
"""

import collections
import os
import time
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import PyTree

from . import _record, _tree

_CACHE_SIZE = 128


class TracedOnce:
    """A function of trees that is traced once, however often it is asked for.

    Its shapes and its cost are wanted before the program around it is compiled; an inner `jax.jit`
    lets all share one trace, so that people's code runs once.
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

    def trace(self, *args: PyTree) -> tuple[PyTree, Any]:
        """The shapes of what it returns, and its jaxpr."""
        leaves, static = _tree.split(args)
        traced = self._compiled.trace(leaves, static)
        return self._statics[static].merge(traced.out_info), traced.jaxpr.jaxpr


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
        # shapes would be static to `filter_jit`; zeros that nobody reads take no memory
        flat = [_tree.split(_tree.unshaped(arg)) for arg in args]
        self._statics = [static for _, static in flat]
        self.out: list[_tree.Static] = []
        self.executable: jax.stages.Compiled | None = None
        self.lower_seconds = self.compile_seconds = 0.0
        call: Any = jit(self._on_leaves(fn))
        if hasattr(call, "lower"):
            leaves = [leaves for leaves, _ in flat]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
                began = time.perf_counter()
                lowered = call.lower(*leaves)
                self.lower_seconds = time.perf_counter() - began
                call = lowered.compile()
                self.compile_seconds = time.perf_counter() - began - self.lower_seconds
            inner = getattr(call, "compiled", call)  # `filter_jit` wraps one of JAX's
            if isinstance(inner, jax.stages.Compiled):
                self.executable = inner
                call = _unwrapped(inner, leaves) or call
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


def _unwrapped(
    compiled: jax.stages.Compiled, args: list[list[Any]]
) -> Callable[..., tuple[list[Any], ...]] | None:
    """What `eqx.filter_jit` compiled, to be called without its wrapper; None if it is not that.

    The wrapper binds and filters its arguments on every call, which takes longer than a small step.
    The structure of what it hands on is compared, so that a change in Equinox costs speed alone.
    """
    kept, *donated = args
    given = {"fun": (None,), "rest": tuple(leaf for leaves in donated for leaf in leaves)}
    structure = jax.tree.structure(((given, {"first": tuple(kept)}), {}))
    if compiled.in_tree != structure:
        return None

    def call(kept: list[Any], *donated: list[Any]) -> tuple[list[Any], ...]:
        rest = tuple([leaf for leaves in donated for leaf in leaves])
        _, out, _ = compiled({"fun": (None,), "rest": rest}, {"first": tuple(kept)})
        return out

    return call


class Jit(NamedTuple):
    """What a `jit_step` does with a function.

    **Arguments:**

    - `compiles`: false where it returns it as it is, so that steps run as plain Python.
    - `lowers`: whether what it returns can be compiled ahead of time.
    """

    compiles: bool
    lowers: bool


def kind_of_jit(jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Jit:
    """Try a `jit_step` on a function that does nothing."""
    probe: Callable[..., Any] = lambda kept, carry, metrics: None
    made = jit(probe)
    return Jit(made is not probe, hasattr(made, "lower"))


def platform(leaves: list[Any]) -> str:
    """Where a program on these arrays will run."""
    for leaf in leaves:
        if leaf.committed:
            return next(iter(leaf.devices())).platform
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return getattr(device, "platform", device) or jax.default_backend()


_programs: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()


def cached(
    key: Hashable, build: Callable[[], Any], *, when: Callable[[Any], bool] = lambda made: True
) -> Any:
    """What is stored under `key`, built if it is not there.

    **Arguments:**

    - `when`: whether what was built is worth storing.
    """
    if key in _programs:
        _programs.move_to_end(key)
        return _programs[key]
    made = build()
    if not when(made):
        return made
    _programs[key] = made
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return made


def clear_caches() -> None:
    """Forget every compiled program, and JAX's and Equinox's with them.

    For long notebook sessions that make many learners.
    """
    _programs.clear()
    _record.forget()
    eqx.clear_caches()
    jax.clear_caches()


def cache_on_disk(folder: str | os.PathLike[str] | None) -> None:
    """Keep what XLA compiles in a folder, so that the next process need not compile it again.

    It is JAX's persistent cache, for all of its programs, however short their compile. Tracing is
    not saved.

    **Arguments:**

    - `folder`: made if it is not there; None switches the cache off.
    """
    if folder is not None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"`cache_on_disk` takes a folder, or None; got {folder!r}.")
        folder = Path(folder).expanduser().resolve()
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"`{folder}` is a file: `cache_on_disk` takes a folder.")
        folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # it looks at its settings once


def key_of(*trees: PyTree) -> Hashable:
    """What a program depends on: structure, static values, shapes, dtypes, and JAX's settings."""
    parts: list[Hashable] = [tuple(settings().values())]
    parts += [key_of_leaves(*_tree.split(tree)) for tree in trees]
    return tuple(parts)


def key_of_leaves(leaves: list[Any], static: _tree.Static) -> Hashable:
    """What a program depends on in a tree that is split."""
    return static, tuple((_tree.signature(leaf), _placement(leaf)) for leaf in leaves)


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


def settings() -> dict[str, Any]:
    """The settings of JAX that programs depend on."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


def compiled(fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Call a function under `eqx.filter_jit`."""
    return eqx.filter_jit(fn)(*args)
