"""Everything that tracing would read, apart from arrays: the key to find a compiled program by.

A compiled program is valid as long as tracing again would give the same program. Tracing reads code
and what the code reads: closures, defaults, globals, class attributes, the fields of objects. A
`Survey` records all of that. Equal surveys promise equal traces, so whatever it can't read
completely is recorded as `Unseen`, and never skipped. That costs another trace, but not a compile:
`_engine.jaxpr` tells whether the trace came out the same.
"""

import abc
import builtins
import collections
import enum
import functools
import importlib.util
import sys
import types
import weakref
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from typing import Any, no_type_check

import equinox as eqx
import jax
import numpy as np

from .bytecode import (
    IMPURE_BUILTINS,
    Chains,
    Import,
    is_impure,
    is_library,
    is_library_code,
    is_transparent,
    reads,
)
from .members import CALLED_BY_US, attributes, is_readable, members, module_fields
from .tokens import PLAIN, ByIdentity, TransparentWrapper, Unreadable, constant, hashable

_REFLECTION = frozenset({"__dict__", "attrgetter", "getattr", "methodcaller", "vars"})
"""Names by which code may reach a method without spelling its name."""

_COLLECTIONS = (list, set, dict, collections.deque)
_ADDING_METHODS = frozenset({"add", "append", "appendleft", "extend", "insert"})
"""Methods that add to a collection without reading it, as code does to record a trace."""

_ARRAYS = (np.ndarray, np.generic, jax.ShapeDtypeStruct, jax.Array)
_SELF_DESCRIBING = (float, complex, range)
"""Classes whose `repr` says everything about an instance."""

_MAX_ENTRIES = 20_000
"""A walk this long is given up, since it would take longer than tracing."""


Label = tuple[Any, str]
"""Where something was read: the label of what holds it (or None), and a suffix to that."""


def _path(label: Label) -> str:
    within, name = label
    return name if within is None else _path(within) + name


@no_type_check  # at run time, as the tests do: that would take longer than the walk itself
class Survey:
    """A walk over values and everything that the code in them reads.

    **Arguments:**

    - `roots`: the values to start from, by name. Arrays in their trees are inputs of a program, and
        left out; arrays that code reads are constants of the program, and recorded.
    """

    def __init__(self, **roots: Any) -> None:
        self._tokens: list[Hashable] = []
        self._labels: list[Label] = []
        self._seen: dict[Any, int] = {}
        self._alive: list[Any] = []
        self._called: set[str] = set(CALLED_BY_US)
        self._waiting: dict[str, list[tuple[Any, Label]]] = collections.defaultdict(list)
        # A queue rather than recursion, since objects may nest deeper than Python's stack.
        self._queue = collections.deque[tuple[Any, Label, bool]]()
        for name, root in roots.items():
            self._queue.append((root, (None, name), True))
        while self._queue:
            value, label, inputs = self._queue.popleft()
            try:
                self._visit(value, label, inputs)
            except Exception:  # some objects raise when they are inspected
                self._record(Unreadable(), label)
            if len(self._tokens) > _MAX_ENTRIES:
                self._record(Unreadable(), (None, "a learner that holds too much to compare"))
                break
        self.key: Hashable = tuple(self._tokens)
        self._alive.clear()
        self.is_whole = not any(isinstance(token, Unreadable) for token in self._tokens)

    def by_name(self) -> dict[str, Hashable]:
        """What was recorded, by where it was read, without inputs."""
        found: dict[str, Hashable] = {}
        for label, token in zip(self._labels, self._tokens, strict=True):
            if token is None:
                continue
            path = _path(label)
            name, count = path, 1
            while name in found:
                name, count = f"{path} ({count})", count + 1
            found[name] = token
        return found

    def _record(self, token: Hashable, label: Label) -> None:
        self._tokens.append(token)
        self._labels.append(label)

    def _enqueue(self, value: Any, within: Label, name: str, *, inputs: bool = False) -> None:
        self._queue.append((value, (within, name), inputs))

    def _visit(self, value: Any, label: Label, inputs: bool) -> None:
        """Record one value, and queue its parts."""
        cls = type(value)
        if cls in PLAIN:
            self._record((cls, value), label)
        elif cls in _SELF_DESCRIBING:
            self._record((cls, repr(value)), label)
        elif isinstance(value, np.dtype):
            self._record((cls, value), label)
        elif isinstance(value, _ARRAYS):
            self._record(None if inputs else constant(value), label)
        elif id(value) in self._seen:
            self._record(("seen", self._seen[id(value)]), label)
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)  # or another object might get its `id`
            self._record_composite(value, label, inputs)

    def _record_parts(
        self, token: Hashable, label: Label, parts: Mapping[str, Any], *, inputs: bool = False
    ) -> None:
        """Record something that has parts, with their names, and queue the parts."""
        self._record(token if isinstance(token, Unreadable) else (token, tuple(parts)), label)
        for name, part in parts.items():
            self._queue.append((part, (label, name), inputs))

    def _record_composite(self, value: Any, label: Label, inputs: bool) -> None:
        """Record something that has parts, depending on what it is."""
        cls = type(value)
        if isinstance(value, types.FunctionType):
            self._function(value, label)
        elif isinstance(value, type):
            self._class(value, label)
        elif isinstance(value, eqx.Module):
            self._module(value, label, inputs)
        elif isinstance(value, tuple | list):
            self._members(cls, label)
            names = getattr(cls, "_fields", None) or range(len(value))
            shown = [f".{name}" if isinstance(name, str) else f"[{name}]" for name in names]
            parts = dict(zip(shown, value, strict=False)) | attributes(value)
            complete = isinstance(value, tuple) or cls is list or is_readable(cls, list)
            self._record_parts(
                ByIdentity(cls) if complete else Unreadable(), label, parts, inputs=inputs
            )
        elif isinstance(value, dict | types.MappingProxyType):
            self._mapping(value, label, inputs)
        elif cls in (set, frozenset):
            plain = all(type(part) in PLAIN for part in value)
            token = (cls, frozenset((type(p), p) for p in value)) if plain else Unreadable()
            self._record(token, label)
        elif isinstance(value, enum.Enum):
            self._members(cls, label)
            own = {".value": value.value} if is_library(cls.__module__) else attributes(value)
            self._record_parts((ByIdentity(cls), value.name), label, own)
        elif isinstance(value, TransparentWrapper):
            self._record_parts(cls, label, {"": value.value})
        elif isinstance(value, functools.partial):
            parts = {".func": value.func, **{f"({i})": arg for i, arg in enumerate(value.args)}}
            parts |= {f"({name})": arg for name, arg in value.keywords.items()}
            self._record_parts(cls, label, parts)
        elif isinstance(value, types.MethodType):
            self._record_parts(cls, label, {"": value.__func__, ".__self__": value.__self__})
        elif isinstance(value, staticmethod | classmethod):
            self._record_parts(cls, label, {"": value.__func__})
        elif isinstance(value, property):
            self._record_parts(cls, label, {"": value.fget})
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | np.ufunc):
            self._builtin(value, label)
        elif isinstance(value, types.ModuleType):
            name = value.__name__
            seen = is_library(name) and not is_impure(name)
            self._record(ByIdentity(value) if seen else Unreadable(), label)
        elif inputs and not jax.tree_util.all_leaves([value]):
            self._members(cls, label)
            children, structure = jax.tree_util.default_registry.flatten_one_level(value) or ((), 0)
            self._record_parts(ByIdentity(cls), label, {"<static>": structure})
            names = {f"[{i}]": child for i, child in enumerate(children)}
            self._record_parts(ByIdentity(cls), label, names, inputs=True)
        else:
            self._instance(value, label)

    def _mapping(self, value: Any, label: Label, inputs: bool) -> None:
        cls = type(value)
        exact = cls in (dict, types.MappingProxyType, collections.OrderedDict)
        counts = (collections.defaultdict, collections.Counter)
        complete = exact or cls in counts or is_readable(cls, dict)
        self._members(cls, label)
        own = attributes(value)
        if isinstance(value, collections.defaultdict):
            own[".default_factory"] = value.default_factory
        self._record_parts(ByIdentity(cls) if complete else Unreadable(), label, own)
        keys = [
            f"[{key!r}]" if isinstance(key, str) else f"[key {i}]" for i, key in enumerate(value)
        ]
        self._record_parts("keys", label, dict(zip(keys, value, strict=True)))
        self._record_parts(
            "values", label, dict(zip(keys, value.values(), strict=True)), inputs=inputs
        )

    def _module(self, module: eqx.Module, label: Label, inputs: bool) -> None:
        cls = type(module)
        held = object.__getattribute__(module, "__dict__")  # Equinox's own lookup is slow
        later: list[str] = []
        at_once: list[tuple[Hashable, str]] = []
        for name, shown, static in module_fields(cls):
            part = held.get(name)
            if type(part) in PLAIN:
                at_once.append(((type(part), part), shown))
            elif inputs and not static and isinstance(part, jax.Array):
                at_once.append((None, shown))
            else:
                later.append(name)
                self._queue.append((part, (label, shown), inputs and not static))
        self._record(("module", ByIdentity(cls), tuple(later)), label)
        for token, shown in at_once:
            self._record(token, (label, shown))
        self._members(cls, label)

    def _function(self, fn: types.FunctionType, label: Label) -> None:
        if is_transparent(fn):  # a decorator that checks types, and does nothing else
            self._record_parts(("checked", fn.__code__), label, {"": vars(fn)["__wrapped__"]})
            return
        if is_impure(fn.__module__):
            self._record(Unreadable(), label)
            return
        defaults = {f"({i})": default for i, default in enumerate(fn.__defaults__ or ())}
        defaults |= {f"({name})": part for name, part in (fn.__kwdefaults__ or {}).items()}
        token = (fn.__code__, len(fn.__closure__ or ()))
        self._record_parts(token, label, defaults | attributes(fn))
        read = reads(fn.__code__)
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # the cell is empty so far
                self._record(Unreadable(), (label, f" › {name}"))
                continue
            self._read(held, read.cells.get(name, ((),)), label, name)
        if is_library_code(fn):
            return
        self._note_names(read.attributes)
        for name, chains in read.globals.items():
            if name in fn.__globals__:
                self._read(fn.__globals__[name], chains, label, name)
            elif name in IMPURE_BUILTINS or not hasattr(builtins, name):
                self._record(Unreadable(), (label, f" › {name}"))
        for imported in read.imports:
            self._import(imported, fn.__globals__.get("__package__") or "", label)

    def _import(self, imported: Import, package: str, label: Label) -> None:
        """Record an import inside a function."""
        try:
            name = "." * imported.level + imported.module
            module = importlib.util.resolve_name(name, package)
        except ImportError:
            module = None
        if module is not None and is_library(module) and not is_impure(module):
            self._record(("library", module), (label, f" › {module}"))
        elif module in sys.modules and imported.name is not None and not is_impure(module):
            self._read(sys.modules[module], ((imported.name,),), label, module)
        else:
            self._record(Unreadable(), (label, f" › {imported.module}"))

    def _read(self, value: Any, chains: Chains, within: Label, name: str) -> None:
        """Record something that code reads by name.

        **Arguments:**

        - `chains`: the chains of attributes that it reads from that.
        """
        if type(value) in _COLLECTIONS and all(row and row[0] in _ADDING_METHODS for row in chains):
            self._record(("added to", ByIdentity(value)), (within, f" › {name}"))
            return
        for row in chains:
            self._follow(value, row, within, name)

    def _follow(self, value: Any, row: tuple[str, ...], within: Label, name: str) -> None:
        """Follow attributes through modules, as in `jnp.linalg.norm`, to what is finally read."""
        for attribute in row:
            if not isinstance(value, types.ModuleType) or is_impure(value.__name__):
                break
            if is_library(value.__name__) and attribute not in vars(value):
                break  # a module's `__getattr__` makes it
            if attribute not in vars(value):
                self._record(Unreadable(), (within, f" › {name}.{attribute}"))
                return
            value, name = vars(value)[attribute], f"{name}.{attribute}"
        self._enqueue(value, within, f" › {name}")

    def _class(self, cls: type, label: Label) -> None:
        self._record(
            Unreadable() if is_impure(cls.__module__) else ("class", ByIdentity(cls)), label
        )
        self._members(cls, label)

    def _members(self, cls: type, label: Label) -> None:
        """Record the attributes of a class and its bases, except for bases from libraries.

        Of its methods, only those that may be called count: those whose name occurs in code that
        was read, and those that a library calls by name. The others wait, in case code that is
        read later names them. (So changing a method that no step calls recompiles nothing.)
        """
        if is_library(cls.__module__) or ("members", cls) in self._seen:
            return
        self._seen["members", cls] = len(self._seen)
        label = (None, cls.__qualname__.rpartition("<locals>.")[2])
        self._members(type(cls), label)
        if type(cls) is abc.ABCMeta:  # what `isinstance` says depends on what was registered
            self._record(("registered", abc.get_cache_token()), label)
        for name, member, is_read in members(cls):
            self._record(name, label)
            if is_read or name in self._called or self._called & _REFLECTION:
                self._enqueue(member, label, f".{name}")
            else:
                self._waiting[name].append((member, (label, f".{name}")))

    def _note_names(self, names: frozenset[str]) -> None:
        """Note that code uses these names, so that methods of these names may be called."""
        new = names - self._called
        self._called |= new
        if self._called & _REFLECTION:
            new = frozenset(self._waiting)
        for name in sorted(new & self._waiting.keys()):
            for member, label in self._waiting.pop(name):
                self._queue.append((member, label, False))

    def _builtin(self, fn: Any, label: Label) -> None:
        owner = getattr(fn, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType | type):
            impure = is_impure(getattr(fn, "__module__", None) or getattr(owner, "__name__", None))
            self._record(Unreadable() if impure else ByIdentity(fn), label)
        else:
            self._record_parts((type(fn), fn.__name__), label, {".__self__": owner})

    def _instance(self, value: Any, label: Label) -> None:
        """Record an object of a class that is not built into Python."""
        cls = type(value)
        library = is_library(cls.__module__)
        by_library = library and is_library(attributes(value).get(".__module__"))
        if is_impure(cls.__module__) or isinstance(value, ContextVar | weakref.ref):
            self._record(Unreadable(), label)
        elif cls is object or (by_library and hasattr(value, "__wrapped__")):
            # A library's own function, wrapped by JAX.
            self._record(ByIdentity(value), label)
        elif library and hasattr(value, "__wrapped__") and not is_readable(cls):
            # Made by `jax.jit`, whose options can't be read, so it is only equal to itself.
            self._record_parts(ByIdentity(value), label, {"": value.__wrapped__})
        elif library and cls.__hash__ not in (None, object.__hash__):
            self._record(hashable(value), label)
        elif is_readable(cls) or isinstance(value, types.SimpleNamespace):
            self._members(cls, label)
            self._record_parts(("object", ByIdentity(cls)), label, attributes(value))
        else:
            self._record(Unreadable(), label)
