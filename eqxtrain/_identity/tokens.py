"""What a survey writes down: hashable, and equal where tracing would come to the same."""

from collections.abc import Hashable
from typing import Any

import numpy as np
from jax.core import Tracer

PLAIN = (type(None), bool, int, str, bytes, type(Ellipsis), type(NotImplemented))

_MAX_BYTES = 2**16
"""Of a NumPy array that code reads. It may be changed in place, so its contents are compared."""


class ByIdentity(Hashable):
    """Equal to itself alone. It holds its value, so that its `id` is not given to another."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value

    def __repr__(self) -> str:
        return f"a `{type(self.value).__name__}`"


class Unseen(Hashable):
    """Stands for what the walk can't see through. It is equal to nothing, not even to itself."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return "something that can't be compared"


def constant(array: Any) -> Hashable:
    """An array that code reads: a constant of the program."""
    if isinstance(array, Tracer):
        return Unseen()
    if isinstance(array, np.ndarray | np.generic):
        small = array.nbytes <= _MAX_BYTES and array.dtype != object
        return (array.dtype, array.shape, array.tobytes()) if small else Unseen()
    return ByIdentity(array)


def hashable(value: Any) -> Hashable:
    """Something that says by its hash that it does not change."""
    try:
        hash(value)
    except Exception:
        return Unseen()
    return (ByIdentity(type(value)), value)
