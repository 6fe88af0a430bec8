"""What a survey records: hashable values, equal where tracing would give the same."""

from collections.abc import Hashable
from typing import Any

import numpy as np
from jax.core import Tracer

PLAIN = (type(None), bool, int, str, bytes, type(Ellipsis), type(NotImplemented))

_MAX_BYTES = 2**16
"""The largest NumPy array that is compared by its contents, since it may change in place."""


class ByIdentity(Hashable):
    """Equal only to itself. It holds the value, or another object might get its `id`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value

    def __repr__(self) -> str:
        return f"a `{type(self.value).__name__}`"


class Unreadable(Hashable):
    """Stands for what the walk can't read. It is equal to nothing, not even to itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return "something that can't be compared"


class TransparentWrapper:
    """Holds a value and adds nothing to what it means: a survey looks through it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def constant(array: Any) -> Hashable:
    """An array that code reads, and so a constant of the program."""
    if isinstance(array, Tracer):
        return Unreadable()
    if isinstance(array, np.ndarray | np.generic):
        small = array.nbytes <= _MAX_BYTES and array.dtype != object
        return (array.dtype, array.shape, array.tobytes()) if small else Unreadable()
    return ByIdentity(array)


def hashable(value: Any) -> Hashable:
    """A value that promises, by being hashable, not to change."""
    try:
        hash(value)
    except Exception:
        return Unreadable()
    return (ByIdentity(type(value)), value)
