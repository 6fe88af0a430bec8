"""`StaticLeaf`: what is static in a program, as a key of dictionaries and of JAX's caches."""

from collections.abc import Hashable
from typing import Any

from .survey import Survey
from .tokens import TransparentWrapper


class StaticLeaf(TransparentWrapper, Hashable):
    """A hashable wrapper of a value that is not an array, equal to others that trace the same.

    In Python, `1 == 1.0 == True`, and `nan != nan`. A compiled program must tell the first three
    apart, and recognise nan. Functions are equal if their code is, and everything that it reads, so
    that `optax.adam(1e-3)` is the same optimizer each time.
    """

    __slots__ = ("_key",)

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self._key = Survey(value=value).key

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, StaticLeaf) and self._key == other._key)

    def __repr__(self) -> str:
        return repr(self.value)
