"""The only module that compiles: ahead of time, on flat leaves, donated; the cache of programs.

`eqx.filter_jit` waits for its result on every call and flattens whole modules each time. What is
compiled ahead of time does neither: a program here is traced and lowered once, from shapes,
compiled in a thread while the next one is traced, and called with lists of arrays.
"""

import collections
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import PyTree

from .. import _placement, _tree
from .._steps import frozen_leaves as _frozen
from . import compile_log as _record, jaxpr as _jaxpr

_CACHE_SIZE = 128

Leaves = list[Any]

_lowering = threading.RLock()
"""For what changes Python's filters of warnings, which all threads share."""


class Traced:
    """A function of trees that returns a tuple of trees, traced once.

    People's code runs once, however many programs are made of it, and however often its shapes are
    asked for. It holds no array but the constants of the code, and no executable, so JAX's caches
    may keep it.

    **Arguments:**

    - `fn`: a pure function.
    - `args`: the trees that it will be called with, or their shapes.
    """

    def __init__(self, fn: Callable[..., tuple[PyTree, ...]], *args: PyTree) -> None:
        began = time.perf_counter()
        flat = [_tree.partition_leaves(arg) for arg in args]
        statics = [static for _, static in flat]
        out: list[_tree.Static] = []

        def on_leaves(*given: Leaves) -> tuple[Leaves, ...]:
            trees = [s.merge(leaves) for s, leaves in zip(statics, given, strict=True)]
            made = [_tree.partition_leaves(tree) for tree in fn(*trees)]
            out[:] = [static for _, static in made]
            return tuple(
                [_placement.strip_weak_type(leaf) for leaf in leaves] for leaves, _ in made
            )

        self._on_leaves = jax.jit(on_leaves)
        traced = self._on_leaves.trace(*(_tree.shape_structs(leaves) for leaves, _ in flat))
        self.jaxpr = traced.jaxpr
        self.out = tuple(out)
        self.shapes = tuple(s.merge(leaves) for s, leaves in zip(out, traced.out_info, strict=True))
        self.seconds = time.perf_counter() - began

    def used(self) -> list[bool]:
        """Which of its input arrays its results or effects depend on."""
        return _jaxpr.inputs_used(self.jaxpr)

    def form(self, used: Sequence[bool] | None = None) -> _jaxpr.Form:
        """What it does to arrays, however it was written.

        **Arguments:**

        - `used`: which of those that it is given count; None for all.
        """
        return _jaxpr.Form(self.jaxpr, used)

    def __call__(self, *leaves: Leaves) -> tuple[Leaves, ...]:
        """Run it on the arrays of its arguments, within another program."""
        return self._on_leaves(*leaves)


class Program:
    """A compiled function of lists of arrays, all but the first of which are donated.

    It is traced and lowered here, compiled in a thread once `begin` is called, and waited for when
    it is called itself.

    **Arguments:**

    - `fn`: a pure function of lists of arrays, which returns a tuple of them.
    - `args`: what it will be called with, or the shapes of that.
    - `jit`: compiles such a function, or returns it as it is; by default as `eqx.filter_jit` does,
        but without holding on to what it compiled.
    """

    def __init__(
        self,
        fn: Callable[..., tuple[Leaves, ...]],
        args: Sequence[Leaves],
        *,
        jit: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        self.lower_seconds = self.compile_seconds = 0.0
        self._call: Any = None
        self._lowered: Any = None
        self._compiling: Future[Any] | None = None
        self._lock = threading.Lock()
        donated = tuple(range(1, len(args)))
        call: Any = jax.jit(fn, donate_argnums=donated) if jit is None else jit(fn)
        if not hasattr(call, "lower"):
            self._call = call
            return
        with _lowering, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
            began = time.perf_counter()
            # shapes would be static to `filter_jit`; zeros that nobody reads take no memory
            lowered = call.lower(*map(_tree.zeros_for_structs, args))
            self.lower_seconds = time.perf_counter() - began
        self._lowered = lowered

    def begin(self) -> None:
        """Begin to compile it, unless that was done."""
        with self._lock:
            if self._lowered is not None and self._compiling is None:
                self._compiling = _in_a_thread(lambda: self._compile(self._lowered))

    def _compile(self, lowered: Any) -> Any:
        began = time.perf_counter()
        compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        return compiled

    def wait(self) -> None:
        """Wait until it is compiled, and for what went wrong in that."""
        self.begin()
        compiling = self._compiling
        if compiling is None:
            return
        try:
            self._call = compiling.result()
            self._lowered = None  # which is kept until then, to be compiled again if this failed
        finally:
            self._compiling = None

    @property
    def executable(self) -> jax.stages.Compiled | None:
        """What JAX compiled; None where a `jit_step` returned something else."""
        self.wait()
        inner = getattr(self._call, "compiled", self._call)  # `filter_jit` wraps one of JAX's
        return inner if isinstance(inner, jax.stages.Compiled) else None

    def __call__(self, *leaves: Leaves) -> tuple[Leaves, ...]:
        if self._lowered is not None:
            self.wait()
        return self._call(*leaves)


_at_once = threading.BoundedSemaphore(2)
"""How many programs are compiled at once. XLA uses several cores for one of them, too."""


def _unlock() -> None:
    global _at_once
    _at_once = threading.BoundedSemaphore(2)


if hasattr(os, "register_at_fork"):  # the threads that may hold it are not in the child
    os.register_at_fork(after_in_child=_unlock)


def _in_a_thread(fn: Callable[[], Any]) -> Future[Any]:
    """Call a function in a thread of its own, which ends with it."""
    future: Future[Any] = Future()

    def run() -> None:
        with _at_once:
            try:
                future.set_result(fn())
            except BaseException as error:  # it is raised where the result is waited for
                future.set_exception(error)

    threading.Thread(target=run, name="compile").start()
    return future


_executables: weakref.WeakValueDictionary[Hashable, Program] = weakref.WeakValueDictionary()
"""By what they do, for as long as some step has them."""


def shared(key: Hashable, build: Callable[[], Program]) -> Program:
    """The program that does what `key` says, built unless some step has it."""
    found = _executables.get(key)
    if found is None:
        found = _executables[key] = build()
    return found


class JitTraits(NamedTuple):
    """What a `jit_step` does with a function.

    **Arguments:**

    - `compiles`: false where it returns it as it is, so that steps run as plain Python.
    - `lowers`: whether what it returns can be compiled ahead of time.
    """

    compiles: bool
    lowers: bool


def kind_of_jit(jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> JitTraits:
    """Try a `jit_step` on a function that does nothing."""
    probe: Callable[..., Any] = lambda kept, carry, metrics: None
    made = jit(probe)
    return JitTraits(made is not probe, hasattr(made, "lower"))


_programs: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()


def cached(key: Hashable, build: Callable[[], Any]) -> Any:
    """What is kept under `key`, built if it is not there."""
    if key not in _programs:
        return keep(key, build())
    _programs.move_to_end(key)
    return _programs[key]


def kept(key: Hashable) -> Any:
    """What is kept under `key`; None if nothing is."""
    return _programs.get(key)


def keep(key: Hashable, made: Any) -> Any:
    """Keep something under `key`, replacing what was there; the least recently used is dropped."""
    _programs[key] = made
    _programs.move_to_end(key)
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return made


def clear_caches() -> None:
    """Forget every compiled program, and JAX's and Equinox's with them.

    For long notebook sessions that make many learners.
    """
    _programs.clear()
    _executables.clear()
    _record.clear()
    _frozen.forget()
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


def key_of(leaves: Leaves, *structures: Any) -> Hashable:
    """What a trace depends on in arrays: structures, shapes, dtypes, and JAX's settings."""
    return (structures, _signature(leaves), tuple(settings().values()))


def _signature(leaves: Leaves) -> Hashable:
    return tuple(
        (leaf.shape, leaf.dtype, _placement.is_weak(leaf), _placement.sharding(leaf))
        for leaf in leaves
    )


_SETTINGS = (
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_high_dynamic_range_gumbel",
    "jax_random_seed_offset",
    "jax_embedded_constants_max_bytes",
    "jax_optimization_level",
    "jax_disable_jit",
    "jax_default_prng_impl",
    "jax_default_device",
    "jax_threefry_partitionable",
)


def settings() -> dict[str, Any]:
    """The settings of JAX that programs depend on."""
    return {name: getattr(jax.config, name, None) for name in _SETTINGS}
