"""What a function does to arrays, in a form that can be compared: its jaxpr, without names.

(`no_type_check` spares the tests a check of each of thousands of calls a trace, which takes longer
than the calls.)

Two jaxprs of one form are compiled to the same program. Where this can't tell, they differ: the
price is a compile that could have been spared, never a program that does something else.
"""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, no_type_check

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .._identity.tokens import PLAIN, ByIdentity
from .._tree import is_typed_key

_MOST_BYTES = 4096
"""Up to which a constant is kept as it is; of a larger one the digest is."""

_RULES = frozenset({"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd"})
"""How `custom_jvp` and `custom_vjp` would be differentiated, which a final jaxpr no longer is."""


class Form(Hashable):
    """The form of a jaxpr.

    **Arguments:**

    - `closed`: the jaxpr, with its constants.
    - `used`: which of its inputs count; None for all.
    """

    __slots__ = ("_hash", "_tokens")

    def __init__(self, closed: ClosedJaxpr, used: Sequence[bool] | None = None) -> None:
        tokens: list[Hashable] = []
        _closed(closed, tokens, used)
        self._tokens = tuple(tokens)
        self._hash = hash(self._tokens)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Form):
            return False
        return self._hash == other._hash and self._tokens == other._tokens


@no_type_check
def inputs_used(closed: ClosedJaxpr) -> list[bool]:
    """Which inputs of a jaxpr its outputs and effects depend on."""
    read = _live(closed.jaxpr)[1]
    return [var in read for var in closed.jaxpr.invars]


@no_type_check
def _live(jaxpr: Jaxpr) -> tuple[list[Any], set[Any]]:
    """The equations that something comes of, and the variables that are read."""
    read = {var for var in jaxpr.outvars if not _is_literal(var)}
    live: list[Any] = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(var in read for var in equation.outvars):
            live.append(equation)
            read.update(var for var in equation.invars if not _is_literal(var))
    return live[::-1], read


@no_type_check
def _is_literal(atom: Any) -> bool:
    return isinstance(atom, Literal)


@no_type_check
def _closed(
    closed: ClosedJaxpr, tokens: list[Hashable], used: Sequence[bool] | None = None
) -> None:
    tokens.extend(map(_value, closed.consts))
    _jaxpr(closed.jaxpr, tokens, used)


@no_type_check
def _jaxpr(jaxpr: Jaxpr, tokens: list[Hashable], used: Sequence[bool] | None = None) -> None:
    """Write a jaxpr down, its variables numbered in the order in which they are met."""
    numbers: dict[Any, int] = {}
    counts = [True] * len(jaxpr.invars) if used is None else used
    given = [var for var, is_used in zip(jaxpr.invars, counts, strict=True) if is_used]
    for var in (*jaxpr.constvars, *given):
        numbers[var] = len(numbers)
        tokens.append(var.aval)
    for equation in _live(jaxpr)[0]:
        name = equation.primitive.name
        tokens.append(equation.primitive)
        for atom in equation.invars:
            tokens.append(_literal(atom) if _is_literal(atom) else numbers[atom])
        for key, param in equation.params.items():
            if type(param) in PLAIN:  # most of them: there are many
                tokens.append((key, type(param), param))
            elif key not in _RULES or not name.startswith("custom_"):
                tokens.append(key)
                _param(param, tokens)
        for var in equation.outvars:
            numbers[var] = len(numbers)
            tokens.append(var.aval)
    tokens.append("out")
    for atom in jaxpr.outvars:
        tokens.append(_literal(atom) if _is_literal(atom) else numbers[atom])


@no_type_check
def _literal(literal: Any) -> Hashable:
    return ("literal", literal.aval, _value(literal.val))


@no_type_check
def _param(param: Any, tokens: list[Hashable]) -> None:
    if isinstance(param, ClosedJaxpr):
        _closed(param, tokens)
    elif isinstance(param, Jaxpr):
        _jaxpr(param, tokens)
    elif isinstance(param, tuple | list):
        tokens.append((type(param), len(param)))
        for part in param:
            if type(part) in PLAIN:
                tokens.append((type(part), part))
            else:
                _param(part, tokens)
    elif isinstance(param, dict):
        tokens.append((dict, len(param)))
        for key, part in param.items():
            tokens.append(key)
            _param(part, tokens)
    else:
        tokens.append(_value(param))


@no_type_check
def _value(value: Any) -> Hashable:
    """A constant or a parameter: by its type and its bits, or as the object that it is."""
    if isinstance(value, float | complex):
        return (type(value), repr(value))
    if is_typed_key(value):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        held = array.tobytes()
        if len(held) > _MOST_BYTES:
            held = hashlib.blake2b(held).digest()
        return (array.dtype, array.shape, held)
    try:
        hash(value)
    except TypeError:
        return ByIdentity(value)
    return (type(value), value)
