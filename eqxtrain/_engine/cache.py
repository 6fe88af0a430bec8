"""What is kept of traces and programs in this process, under which keys, and how to forget it."""

import collections
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
import jax

from .. import _placement
from .._steps import frozen_leaves as _frozen
from . import compile_log
from .compile import Leaves, Program
from .jax_settings import program_settings


class LRUCache:
    """Values by key. Storing one too many drops the one that was used least recently.

    **Arguments:**

    - `max_size`: how many values it holds.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._values: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def lookup(self, key: Hashable) -> Any:
        """The value under `key`, or None. This does not count as a use."""
        return self._values.get(key)

    def store(self, key: Hashable, value: Any) -> Any:
        """Store a value under `key`, replacing any that is there, and return it."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self.max_size:
            self._values.popitem(last=False)
        return value

    def get_or_build(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """The value under `key`, built and stored if there is none."""
        if key not in self._values:
            return self.store(key, build())
        self._values.move_to_end(key)
        return self._values[key]

    def clear(self) -> None:
        """Drop all values."""
        self._values.clear()


step_cache = LRUCache(128)
"""The traced steps that were used last, which hold their programs. It alone keeps programs alive
between runs."""

matching_states = LRUCache(128)
"""The learners whose state was found to belong to them."""

_shared_programs: weakref.WeakValueDictionary[Hashable, Program] = weakref.WeakValueDictionary()
"""Programs by what they do. The references are weak, so that a program lives as long as some traced
step holds it: executables take memory, and `step_cache` is what bounds them."""


def shared_program(key: Hashable, build: Callable[[], Program]) -> Program:
    """The program that does what `key` says, built unless some traced step holds it."""
    program = _shared_programs.get(key)
    if program is None:
        program = _shared_programs[key] = build()
    return program


def clear_caches() -> None:
    """Forget every compiled program, including those of JAX and Equinox.

    For long notebook sessions that make many learners.
    """
    step_cache.clear()
    matching_states.clear()
    _shared_programs.clear()
    compile_log.clear()
    _frozen.forget()
    eqx.clear_caches()
    jax.clear_caches()


def trace_key(leaves: Leaves, *structures: Hashable) -> Hashable:
    """What a trace depends on besides user code.

    That is the structures of its arguments, the shapes, dtypes and places of their arrays, and
    JAX's settings.
    """
    arrays = tuple(
        (leaf.shape, leaf.dtype, _placement.is_weak(leaf), _placement.sharding(leaf))
        for leaf in leaves
    )
    return (structures, arrays, tuple(program_settings().values()))
