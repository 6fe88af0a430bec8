"""Ahead-of-time programs, on flat lists of arrays. This is the only module that compiles.

`eqx.filter_jit` flattens whole modules on every call, and then waits for the result. A program here
does neither: it is traced and lowered once, from shapes, compiled in a thread while the next one is
traced, and called with lists of arrays, all but the first of which are donated.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from .. import _placement, _tree
from . import jaxpr as _jaxpr

Leaves = list[Any]

_warnings_lock = threading.RLock()
"""Held while warnings are filtered: `warnings.catch_warnings` changes state that all threads share,
so two threads that left it in the wrong order would restore each other's filters."""


_spent = threading.local()


def seconds_spent() -> float:
    """How long this thread has traced, lowered and waited for the compiler so far."""
    return getattr(_spent, "seconds", 0.0)


def _spend_since(start: float) -> float:
    """Count the seconds since `start` as spent, and return them."""
    seconds = time.perf_counter() - start
    _spent.seconds = seconds_spent() + seconds
    return seconds


class TracedFunction:
    """A function of trees that returns a tuple of trees, traced once.

    User code runs once, however many programs include it and however often its shapes are needed.
    An instance holds no arrays except the constants in that code, and no executables, so JAX's own
    caches may keep it alive at little cost.

    **Arguments:**

    - `fn`: a pure function.
    - `args`: the trees that it will be called with, or their shapes.
    """

    def __init__(self, fn: Callable[..., tuple[PyTree, ...]], *args: PyTree) -> None:
        start = time.perf_counter()
        flat = [_tree.partition_leaves(arg) for arg in args]
        statics = [static for _, static in flat]
        out: list[_tree.Static] = []

        def on_leaves(*arg_leaves: Leaves) -> tuple[Leaves, ...]:
            trees = [s.merge(leaves) for s, leaves in zip(statics, arg_leaves, strict=True)]
            results = [_tree.partition_leaves(tree) for tree in fn(*trees)]
            # A traced function can return nothing but arrays, so the rest leaves by this list.
            out[:] = [static for _, static in results]
            return tuple(
                [_placement.strip_weak_type(leaf) for leaf in leaves] for leaves, _ in results
            )

        self._on_leaves = jax.jit(on_leaves)
        traced = self._on_leaves.trace(*(_tree.shape_structs(leaves) for leaves, _ in flat))
        self.jaxpr = traced.jaxpr
        self.out = tuple(out)
        self.shapes = tuple(s.merge(leaves) for s, leaves in zip(out, traced.out_info, strict=True))
        self.seconds = _spend_since(start)

    def used(self) -> list[bool]:
        """For each input array, whether the results or effects depend on it."""
        return _jaxpr.inputs_used(self.jaxpr)

    def form(self, used: Sequence[bool] | None = None) -> _jaxpr.JaxprForm:
        """What the function does to arrays, however it was written.

        **Arguments:**

        - `used`: for each input array, whether it counts; None for all of them.
        """
        return _jaxpr.JaxprForm(self.jaxpr, used)

    def __call__(self, *leaves: Leaves) -> tuple[Leaves, ...]:
        """Run it, inside another program, on the arrays of its arguments."""
        return self._on_leaves(*leaves)


class Program:
    """A compiled function of lists of arrays, all but the first of which are donated.

    The constructor traces and lowers it, `start_compiling` compiles it in a thread, and the first
    call waits for that.

    **Arguments:**

    - `fn`: a pure function of lists of arrays, which returns a tuple of them.
    - `args`: the lists that it will be called with, or their shapes.
    - `jit`: compiles such a function, or returns it unchanged. The default does what
        `eqx.filter_jit` does, but does not keep the executable alive.
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
        with _warnings_lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
            start = time.perf_counter()
            # `filter_jit` would treat shapes as static arguments. Zeros that nothing reads take no
            # memory, since the operating system does not allocate their pages.
            lowered = call.lower(*map(_tree.zeros_for_structs, args))
            self.lower_seconds = _spend_since(start)
        self._lowered = lowered

    def start_compiling(self) -> None:
        """Start to compile it in a thread, unless that has been done."""
        with self._lock:  # two runs may share this program, in two threads
            if self._lowered is not None and self._compiling is None:
                self._compiling = _run_in_thread(lambda: self._compile(self._lowered))

    def _compile(self, lowered: Any) -> Any:
        start = time.perf_counter()
        compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start
        return compiled

    @property
    def is_compiled(self) -> bool:
        """Whether a call would not have to wait for the compiler."""
        compiling = self._compiling
        return self._lowered is None or (compiling is not None and compiling.done())

    def wait(self) -> None:
        """Wait until it is compiled; raises whatever the compiler raised."""
        self.start_compiling()
        compiling = self._compiling
        if compiling is None:
            return
        start = time.perf_counter()
        try:
            self._call = compiling.result()
            # Only now, so that a failed compile can be tried again.
            self._lowered = None
        finally:
            self._compiling = None
            _spend_since(start)

    def wait_for_executable(self) -> jax.stages.Compiled | None:
        """Wait for what JAX compiles; None where a `jit_step` returned something else."""
        self.wait()
        inner = getattr(self._call, "compiled", self._call)  # `filter_jit` wraps one of JAX's
        return inner if isinstance(inner, jax.stages.Compiled) else None

    def __call__(self, *leaves: Leaves) -> tuple[Leaves, ...]:
        if self._lowered is not None:
            self.wait()
        return self._call(*leaves)


_MAX_COMPILES_AT_ONCE = 2
"""XLA uses several cores for a single compile already."""

_compile_slots = threading.BoundedSemaphore(_MAX_COMPILES_AT_ONCE)


def _renew_slots() -> None:
    global _compile_slots
    _compile_slots = threading.BoundedSemaphore(_MAX_COMPILES_AT_ONCE)


if hasattr(os, "register_at_fork"):
    # A forked process copies the semaphore, but not the threads that would release it.
    os.register_at_fork(after_in_child=_renew_slots)


def _run_in_thread(fn: Callable[[], Any]) -> Future[Any]:
    """Call a function in a thread that ends with it.

    A `ThreadPoolExecutor` would keep idle threads, and could not be used after a fork.
    """
    future: Future[Any] = Future()

    def run() -> None:
        with _compile_slots:
            try:
                future.set_result(fn())
            except BaseException as error:  # `Program.wait` raises it in the caller's thread
                future.set_exception(error)

    threading.Thread(target=run, name="compile").start()
    return future


class JitTraits(NamedTuple):
    """What a `jit_step` does with a function.

    **Arguments:**

    - `compiles`: false if it returns the function unchanged, so that steps run as plain Python.
    - `lowers`: whether what it returns can be compiled ahead of time.
    """

    compiles: bool
    lowers: bool


def jit_traits(jit: Callable[[Callable[..., Any]], Callable[..., Any]]) -> JitTraits:
    """Try a `jit_step` on a function that does nothing."""

    def probe(consts: Any, carry: Any, metrics: Any) -> None: ...

    jitted = jit(probe)
    return JitTraits(jitted is not probe, hasattr(jitted, "lower"))
