"""What code reads by name: the globals, cells, imports and attributes of a function's bytecode."""

import dis
import functools
import sys
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

_IMPURE = frozenset(
    {"datetime", "io", "os", "random", "secrets", "sys", "tempfile", "time", "uuid"}
)
"""Library modules that may give something else at each call."""

_LIBRARIES = (
    frozenset(
        {"beartype", "diffrax", "einops", "equinox", "eqxtrain", "jax", "jaxlib", "jaxtyping"}
    )
    | frozenset({"lineax", "numpy", "optax", "optimistix", "scipy", "typing_extensions"})
    | sys.stdlib_module_names
) - {"__main__"}
"""Modules whose functions read no globals that change."""

IMPURE_BUILTINS = frozenset({"__import__", "eval", "exec", "globals", "input", "locals", "open"})


Chains = tuple[tuple[str, ...], ...]
"""The attributes that are read of something, a row for each place where it is."""


class Reads(NamedTuple):
    """What code reads by name.

    **Arguments:**

    - `globals`, `cells`: each with the attributes that are read from it, a row for each place.
    - `imports`: modules imported in the body, each with the attributes taken from it.
    - `attributes`: all names of attributes.
    """

    globals: Mapping[str, Chains]
    cells: Mapping[str, Chains]
    imports: tuple[tuple[str, str | None], ...]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=8192)
def reads(code: types.CodeType) -> Reads:
    """What a function's code, and that of the functions inside it, reads by name."""
    chains: list[tuple[bool, str, list[str]]] = []
    imports: list[tuple[str, str | None]] = []
    attributes = set(code.co_names)
    chain: list[str] | None = None
    for instruction in dis.get_instructions(code):
        name, operation = instruction.argval, instruction.opname
        if operation in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"):
            chain = []
            chains.append(("DEREF" in operation, name, chain))
        elif operation in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain.append(name)
        elif operation == "IMPORT_NAME":
            imports.append((name, None))
        elif operation == "IMPORT_FROM" and imports:
            imports.append((imports[-1][0], name))
        elif operation not in ("CACHE", "PUSH_NULL", "PRECALL", "EXTENDED_ARG"):
            chain = None
    by_name: tuple[dict[str, set[tuple[str, ...]]], ...] = ({}, {})
    for is_cell, name, attrs in chains:
        by_name[is_cell].setdefault(name, set()).add(tuple(attrs))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = reads(constant)
            imports += inner.imports
            attributes |= inner.attributes
            for found, more in zip(by_name, (inner.globals, inner.cells), strict=True):
                for name, rows in more.items():
                    found.setdefault(name, set()).update(rows)
    in_order = [{n: tuple(sorted(rows)) for n, rows in sorted(found.items())} for found in by_name]
    listed = tuple(sorted(set(imports), key=str))
    return Reads(in_order[0], in_order[1], listed, frozenset(attributes))


def is_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


def is_impure(module: Any) -> bool:
    return isinstance(module, str) and (
        module in _IMPURE
        or module.partition(".")[0] in _IMPURE
        or module.startswith("numpy.random")
    )


def is_library_code(fn: types.FunctionType) -> bool:
    """Whether a function is a library's, and not one of the user's that a library has wrapped."""
    return is_library(fn.__globals__.get("__name__")) or fn.__code__.co_filename.startswith("<@")
