"""Cheaper run-time type checks of the package, for the tests.

jaxtyping's import hook binds the arguments of every call, to know the axes by their names. That
doubled the time of the suite, though few functions have shapes in their annotations. Here those are
checked by jaxtyping, the others by beartype alone, and functions inside functions not at all:
decorating one takes a millisecond, each time that the outer one is called.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping

__name__ = "beartype.light_checks"
"""Warnings point at the first caller that is neither the package nor a checker, known by name."""

_by_jaxtyping = jaxtyping.jaxtyped
_by_beartype = beartype.beartype(conf=beartype.BeartypeConf(violation_type=TypeError))


def install() -> None:
    """Take over from jaxtyping's import hook, before it imports the package."""
    jaxtyping.jaxtyped = _lightly_checked


def _lightly_checked(fn: Any = None, **options: Any) -> Any:
    """A stand-in for `jaxtyping.jaxtyped`."""
    if fn is None:
        return functools.partial(_lightly_checked, **options)
    is_ours = getattr(fn, "__module__", "").partition(".")[0] == "eqxtrain"
    if not is_ours or not inspect.isfunction(fn) or any(map(_has_shape, _hints(fn))):
        return _by_jaxtyping(fn, **options)
    return fn if "<locals>" in fn.__qualname__ else _by_beartype_unless_disabled(fn)


def _hints(fn: Callable[..., Any]) -> list[Any]:
    return list(inspect.get_annotations(fn).values())


def _has_shape(hint: Any) -> bool:
    """Whether a type has a jaxtyping annotation in it."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape, typing.get_args(hint)))


def _by_beartype_unless_disabled(fn: Callable[..., Any]) -> Callable[..., Any]:
    checked = _by_beartype(fn)

    @functools.wraps(fn)
    def check_unless_disabled(*args: Any, **kwargs: Any) -> Any:
        called = fn if jaxtyping.config.jaxtyping_disable else checked
        return called(*args, **kwargs)

    return check_unless_disabled
