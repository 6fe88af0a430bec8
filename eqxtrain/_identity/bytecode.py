"""What code reads by name: the globals, cells, imports and attributes of a function's bytecode.

`inspect.getclosurevars` does not look into the functions inside a function, and takes the name of
an attribute for that of a global.
"""

import dis
import functools
import os
import sys
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

_IMPURE = frozenset(
    {"datetime", "io", "os", "pathlib", "random", "secrets", "sys", "tempfile", "time", "uuid"}
)
"""Library modules whose functions may return something else at each call."""

_LIBRARIES = frozenset(
    {"beartype", "diffrax", "einops", "equinox", "eqxtrain", "jax", "jaxlib", "jaxtyping"}
) | frozenset({"lineax", "numpy", "optax", "optimistix", "scipy", "typing_extensions"})
"""Libraries whose module globals we treat as constant."""

IMPURE_BUILTINS = frozenset({"__import__", "eval", "exec", "globals", "input", "locals", "open"})


_LOADS = frozenset(
    {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
    | {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
)

Chains = tuple[tuple[str, ...], ...]
"""The chains of attributes read from something, one for each place in the code."""


class Import(NamedTuple):
    """An import of a module, or of one name from it. `level` counts the leading dots."""

    level: int
    module: str
    name: str | None


class Reads(NamedTuple):
    """What code reads by name.

    **Arguments:**

    - `globals`, `cells`: by name, the chains of attributes read from each.
    - `imports`: the imports in the body.
    - `attributes`: the names of all attributes.
    """

    globals: Mapping[str, Chains]
    cells: Mapping[str, Chains]
    imports: tuple[Import, ...]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=8192)
def reads(code: types.CodeType) -> Reads:
    """What the code of a function, and of the functions inside it, reads by name."""
    chains: list[tuple[bool, str, list[str]]] = []
    imports: list[Import] = []
    before: list[Any] = [None, None]
    attributes = set(code.co_names)
    chain: list[str] | None = None
    for instruction in dis.get_instructions(code):
        name, operation = instruction.argval, instruction.opname
        if operation in _LOADS:
            chain = []
            chains.append(("DEREF" in operation, name, chain))
        elif operation in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain.append(name)
        elif operation == "IMPORT_NAME":
            level, names = before  # its two arguments, the constants loaded just before it
            imports += [Import(level or 0, name, one) for one in names or (None,)]
        elif operation == "MATCH_CLASS":
            attributes.add("getattr")  # the attributes that it reads are among the constants
        elif operation not in ("CACHE", "PUSH_NULL", "PRECALL", "EXTENDED_ARG"):
            chain = None
        if operation != "CACHE":
            before = [before[-1], name]
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
    """Whether a module belongs to a library whose globals we treat as constant."""
    return isinstance(module, str) and _is_root_of_library(module.partition(".")[0])


@functools.lru_cache(maxsize=1024)
def _is_root_of_library(root: str) -> bool:
    if root not in sys.stdlib_module_names:
        return root in _LIBRARIES
    file = getattr(sys.modules.get(root), "__file__", None)
    return file is None or file.startswith(_STANDARD)  # else a user's module has that name


_STANDARD = os.path.dirname(os.__file__)


def is_impure(module: Any) -> bool:
    """Whether the functions of a module may return something else each time."""
    if not isinstance(module, str):
        return False
    return module.partition(".")[0] in _IMPURE or module.startswith("numpy.random")


def is_library_code(fn: types.FunctionType) -> bool:
    """Whether a function belongs to a library, rather than being the user's in a wrapper."""
    return is_library(fn.__globals__.get("__name__")) or fn.__code__.co_filename.startswith("<@")


def is_transparent(fn: types.FunctionType) -> bool:
    """Whether it only checks the types of the function that it wraps."""
    if not hasattr(fn, "__wrapped__"):
        return False
    root = str(fn.__globals__.get("__name__")).partition(".")[0]
    return root in ("beartype", "jaxtyping") or fn.__code__.co_filename.startswith("<@")
