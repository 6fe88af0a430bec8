"""The attributes that instances find in their class, and in themselves."""

import dataclasses
import functools
import types
from collections.abc import Iterator
from typing import Any

import equinox as eqx

from .bytecode import is_library

CALLED_BY_US = frozenset(
    {"pred_step", "test_step", "grad_step", "train_step", "init_step", "states_step"}
    | {
        "summary_step",
        "jit_step",
        "update",
        "merge",
        "compute",
        "reset",
        "results",
        "asking_function",
    }
    | {"warning", "init", "is_stateful"}
)
"""Methods that the engine, optax and Equinox call by name."""

_NOT_READ = frozenset(
    {"__dict__", "__doc__", "__module__", "__qualname__", "__weakref__", "__annotations__"}
    | {"__abstractmethods__", "__abstractvars__", "__abstractclassvars__", "__match_args__"}
    | {"__dataclass_fields__", "__dataclass_params__", "__parameters__", "__orig_bases__"}
    | {"__slots__", "__static_attributes__", "__firstlineno__", "__annotate_func__"}
    | {"__annotations_cache__", "_abc_impl"}
)
"""Attributes of a class that only Python itself uses."""


_HEAP_TYPE = 1 << 9
"""CPython's flag for classes made by a `class` statement."""

_GENERATED = frozenset(
    {"__init__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__"}
    | {"__setattr__", "__delattr__", "__replace__"}
)


@functools.lru_cache(maxsize=1024)
def module_fields(cls: type[eqx.Module]) -> tuple[tuple[str, str, bool], ...]:
    """Each field of a module: its name, how it is shown, and whether it is static."""
    fields = dataclasses.fields(cls)
    return tuple((f.name, f".{f.name}", f.metadata.get("static", False)) for f in fields)


def _is_generated(member: Any) -> bool:
    """Whether it is a method that `dataclasses` generated."""
    if not isinstance(member, types.FunctionType):
        return False
    return member.__code__.co_filename == "<string>" and member.__name__ in _GENERATED


def _is_code(member: Any) -> bool:
    return isinstance(member, types.FunctionType | property | staticmethod | classmethod)


@functools.lru_cache(maxsize=1024)
def _slots(cls: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else slots
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def attributes(value: Any) -> dict[str, Any]:
    """An object's own attributes, from its `__dict__` and its slots, by `.name`."""
    try:
        held: Any = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = None
    found = {f".{name}": held[name] for name in held} if isinstance(held, dict) else {}
    for name in _slots(type(value)):
        if hasattr(value, name):
            found[f".{name}"] = getattr(value, name)
    return found


def is_readable(cls: type, root: type = object) -> bool:
    """Whether Python can read everything that an instance holds, apart from what `root` holds.

    Decided as `copyreg` decides what it can copy: by the first base that is written in C.
    """
    for base in cls.__mro__:
        if not base.__flags__ & _HEAP_TYPE or isinstance(
            vars(base).get("__new__"), types.BuiltinFunctionType
        ):
            return base is root
    return False


def members(cls: type) -> Iterator[tuple[str, Any, bool]]:
    """The attributes of a class and its bases, except for bases from libraries.

    Each comes with its name, and whether it is certainly read. A method is not, since nobody may
    call it, unless Python or a library knows its name.
    """
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        yield f"{field.name}:made by", field.default_factory, True
        yield f"{field.name}:converted by", field.metadata.get("converter"), True
    foreign = [base for base in cls.__mro__ if is_library(base.__module__)]
    for base in cls.__mro__:
        if base in foreign:
            continue
        for name, member in vars(base).items():
            if name in _NOT_READ or _is_generated(member):
                continue
            known = name.startswith("__") and name.endswith("__")
            known = known or any(name in vars(other) for other in foreign)
            yield name, member, known or not _is_code(member)
