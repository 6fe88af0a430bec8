"""What a function does to arrays, in a form that can be compared: its jaxpr, without names.

Jaxprs of equal form are compiled to the same program. Where this module can't tell whether two
parts are equal, it takes them for different: that costs an unnecessary compile, while the opposite
mistake would run the wrong program.

(The functions are marked `no_type_check` because the tests check argument types at run time, which
takes longer than these thousands of small calls themselves.)
"""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, no_type_check

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .._identity.tokens import PLAIN, ByIdentity
from .._placement import as_numpy
from .._tree import is_typed_key

_MAX_CONSTANT_BYTES = 4096
"""Larger constants are represented by a digest, so that a form does not keep their memory."""

_DERIVATIVE_RULES = frozenset({"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd"})
"""How to differentiate a `custom_jvp` or `custom_vjp`. They are new functions in every trace, so no
two jaxprs that contain them would be equal, and a final jaxpr is not differentiated any more."""


class JaxprForm(Hashable):
    """The form of a jaxpr.

    **Arguments:**

    - `closed`: the jaxpr, with its constants.
    - `used`: for each input, whether it counts; None for all of them.
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
        if not isinstance(other, JaxprForm):
            return False
        return self._hash == other._hash and self._tokens == other._tokens


@no_type_check
def inputs_used(closed: ClosedJaxpr) -> list[bool]:
    """For each input of a jaxpr, whether its outputs or effects depend on it."""
    read = _live(closed.jaxpr)[1]
    return [var in read for var in closed.jaxpr.invars]


@no_type_check
def _live(jaxpr: Jaxpr) -> tuple[list[Any], set[Any]]:
    """The equations that outputs or effects depend on, and the variables that those read."""
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
    """Append the tokens of a jaxpr, its variables numbered in the order in which they appear.

    Unused equations are left out, as XLA would remove them too.
    """
    numbers: dict[Any, int] = {}
    counts = [True] * len(jaxpr.invars) if used is None else used
    inputs = [var for var, is_used in zip(jaxpr.invars, counts, strict=True) if is_used]
    for var in (*jaxpr.constvars, *inputs):
        numbers[var] = len(numbers)
        tokens.append(var.aval)
    for equation in _live(jaxpr)[0]:
        name = equation.primitive.name
        tokens.append(equation.primitive)
        for atom in equation.invars:
            tokens.append(_literal(atom) if _is_literal(atom) else numbers[atom])
        for key, param in equation.params.items():
            if type(param) in PLAIN:  # the fast path, for most parameters
                tokens.append((key, type(param), param))
            elif key not in _DERIVATIVE_RULES or not name.startswith("custom_"):
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
    """The token of a constant or parameter: its type and bits if it has any, else its identity."""
    if isinstance(value, float | complex):
        return (type(value), repr(value))  # tells -0.0 from 0.0, and nan equals nan
    if is_typed_key(value):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = as_numpy(value)
        content = array.tobytes()
        if len(content) > _MAX_CONSTANT_BYTES:
            content = hashlib.blake2b(content).digest()
        return (array.dtype, array.shape, content)
    try:
        hash(value)
    except TypeError:
        return ByIdentity(value)
    return (type(value), value)
