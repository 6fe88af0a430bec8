"""When two values that are no arrays make the same program."""

import dis
import enum
import functools
import inspect
import types
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np

_LIBRARIES = frozenset({"equinox", "eqxtrain", "jax", "jaxtyping", "numpy", "optax", "typing"})
"""Whose functions read no globals that change."""

_PLAIN = (type(None), bool, int, str, bytes, enum.Enum, np.dtype)
_FIXED = (types.ModuleType, types.BuiltinFunctionType, np.ufunc, type)


class Frozen(Hashable):
    """A leaf that is no array, hashable, and equal to what makes the same program.

    `1 == 1.0 == True` in Python, and `nan != nan`; a compiled program must tell the first apart and
    know the second again. Functions are equal if they share their code and all that it reads, as
    long as that can't change behind our back: so `optax.adam(1e-3)` is the same optimizer each
    time. Everything else is compared as Python compares it, or by identity if it can't be hashed.
    """

    __slots__ = ("_identity", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        found = _structure(value, frozenset())
        self._identity = (_Same(value), bindings(value)) if found is None else found

    def __hash__(self) -> int:
        return hash(self._identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._identity == other._identity

    def __repr__(self) -> str:
        return repr(self.value)


class _Same(Hashable):
    """Equal to nothing but what Python calls equal and of the same type; else to itself alone."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        try:
            self._hash = hash(value)
        except TypeError:
            self._hash = None

    def __hash__(self) -> int:
        return id(self._value) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or type(self._value) is not type(other._value):
            return False
        same = self._value is other._value
        return same or (self._hash is not None and bool(self._value == other._value))


def _structure(value: Any, seen: frozenset[int]) -> Hashable | None:
    """What a value is made of, if that is fixed; None if only its identity is."""
    kind = type(value)
    if isinstance(value, float | complex):
        return kind, repr(value)
    if isinstance(value, (*_PLAIN, *_FIXED)):
        return kind, value
    if isinstance(value, tuple):
        return _all(kind, value, seen)
    if isinstance(value, functools.partial):
        names, held = _split(value.keywords)
        return _all((kind, names), (value.func, *value.args, *held), seen)
    if isinstance(value, types.FunctionType) and id(value) not in seen:
        return _function(value, seen | {id(value)})
    return None


def _function(fn: types.FunctionType, seen: frozenset[int]) -> Hashable | None:
    try:
        cells = [cell.cell_contents for cell in fn.__closure__ or ()]
    except ValueError:  # a cell that is not filled yet
        return None
    names, by_name = _split(fn.__kwdefaults__ or {})
    read = {} if _is_library(fn) else _read(fn)
    held = (*cells, *(fn.__defaults__ or ()), *by_name, *read.values())
    # The code is held and compared as the object that it is: equal code may have other globals.
    return _all((id(fn.__globals__), _Held(fn.__code__), names, tuple(read)), held, seen)


def _all(head: Hashable, parts: tuple[Any, ...], seen: frozenset[int]) -> Hashable | None:
    found = tuple(_structure(part, seen) for part in parts)
    return None if None in found else (head, found)


def _split(mapping: dict[str, Any]) -> tuple[tuple[str, ...], list[Any]]:
    names = tuple(sorted(mapping))
    return names, [mapping[name] for name in names]


@functools.lru_cache(maxsize=4096)
def _globals_in(code: types.CodeType) -> tuple[str, ...]:
    """The names that a function's code, and that of the functions inside it, reads as globals."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_in(constant))
    return tuple(sorted(names))


def _read(fn: types.FunctionType) -> dict[str, Any]:
    """The globals that a function reads, as they are bound now; builtins are left out."""
    return {n: fn.__globals__[n] for n in _globals_in(fn.__code__) if n in fn.__globals__}


class _Held(Hashable):
    """Equal to itself alone, and held, so that its `id` is not given to another."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __hash__(self) -> int:
        return id(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self._value is other._value


def _bound(value: Any) -> Hashable:
    return _Same(value) if isinstance(value, (*_PLAIN, float, complex)) else _Held(value)


def bindings(value: Any, seen: frozenset[int] = frozenset()) -> Hashable:
    """What the globals that a function reads are bound to now, and theirs in turn.

    A function is the same object after a helper of it was defined again; its program is not.
    """
    value = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, functools.partial):
        return bindings(value.func, seen)
    if not isinstance(value, types.FunctionType) or id(value) in seen or _is_library(value):
        return None
    seen = seen | {id(value)}
    return tuple((name, _bound(held), bindings(held, seen)) for name, held in _read(value).items())


def methods(kind: type) -> Iterator[types.FunctionType]:
    """The functions of a class and of its bases, but for those of libraries."""
    for base in kind.__mro__:
        for member in vars(base).values():
            fn = member.fget if isinstance(member, property) else member
            fn = inspect.unwrap(fn) if callable(fn) else fn
            if isinstance(fn, types.FunctionType) and not _is_library(fn):
                yield fn


def _is_library(fn: types.FunctionType) -> bool:
    return (fn.__module__ or "").split(".")[0] in _LIBRARIES


def is_fixed(value: Any) -> bool:
    """Whether a change of `value` would be seen: it can be hashed."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
