"""What tracing would read that is not an array: the key by which a program is found again.

A compiled program is right as long as tracing now would give it again. Tracing reads code, and what
the code reads: closures, defaults, globals, class attributes, the fields of objects. A `Survey`
walks all of that and writes it down. Two equal surveys promise equal traces. The reverse is not
promised: whatever the walk can't see through is equal to nothing, and costs a trace (not a compile:
`_jaxpr` tells whether the trace came out the same).
"""

import builtins
import collections
import enum
import functools
import sys
import types
from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ._members import CALLED_BY_US, fields, members, slots
from ._reads import IMPURE_BUILTINS, Chains, is_impure, is_library, is_library_code, reads
from ._tokens import PLAIN, Held, Unseen, constant, hashable

_REFLECTION = frozenset({"__dict__", "attrgetter", "getattr", "methodcaller", "vars"})
"""Names by which code may reach a method without naming it."""

_COLLECTIONS = (list, set, dict, collections.deque)
_ADDS = frozenset({"add", "append", "appendleft", "extend", "insert"})
"""Methods that read nothing of the collection, so that code may note that it was traced."""

_MOST_ENTRIES = 20_000


Label = tuple[Any, str]
"""Where something was read: the label of what it is in (or None), and what is added to that."""


def _path(label: Label) -> str:
    within, name = label
    return name if within is None else _path(within) + name


class Survey:
    """A walk over values and all that the code in them reads.

    **Arguments:**

    - `roots`: by name. Arrays in their trees are inputs of a program, and are left out; arrays that
        code reads are constants of it, and count.
    """

    def __init__(self, **roots: Any) -> None:
        self._tokens: list[Hashable] = []
        self._labels: list[Label] = []
        self._seen: dict[Any, int] = {}
        self._called: set[str] = set(CALLED_BY_US)
        self._waiting: dict[str, list[tuple[Any, Label]]] = collections.defaultdict(list)
        self._queue = collections.deque[tuple[Any, Label, bool]]()
        for name, root in roots.items():
            self._queue.append((root, (None, name), True))
        while self._queue:
            self._visit(*self._queue.popleft())
            if len(self._tokens) > _MOST_ENTRIES:
                self._write(Unseen(), (None, "a learner that holds too much to compare"))
                break
        self.key: Hashable = tuple(self._tokens)
        self.is_whole = not any(isinstance(token, Unseen) for token in self._tokens)

    def by_name(self) -> dict[str, Hashable]:
        """What was written down, by where it was read. Inputs are left out."""
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

    def _write(self, token: Hashable, label: Label) -> None:
        self._tokens.append(token)
        self._labels.append(label)

    def _later(self, value: Any, within: Label, name: str, *, inputs: bool = False) -> None:
        self._queue.append((value, (within, name), inputs))

    def _visit(self, value: Any, label: Label, inputs: bool) -> None:
        """Write one value down, and put what it is made of in the queue."""
        kind = type(value)
        if kind in PLAIN or isinstance(value, enum.Enum | np.dtype):
            self._write((kind, value), label)
        elif isinstance(value, float | complex):
            self._write((kind, repr(value)), label)
        elif isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            self._write(None if inputs else constant(value), label)
        elif id(value) in self._seen and kind is not tuple:
            self._write(("seen", self._seen[id(value)]), label)
        else:
            if kind is not tuple:  # of what is made while walking, only tuples are short-lived
                self._seen[id(value)] = len(self._seen)
            self._open(value, label, inputs)

    def _open(self, value: Any, label: Label, inputs: bool) -> None:
        """Write down something that is made of parts."""
        kind = type(value)
        if isinstance(value, tuple) or kind is list:
            self._write((_kind(kind), len(value)), label)
            names = [f".{name}" for name in getattr(kind, "_fields", ())]
            for i, part in enumerate(value):
                self._later(part, label, names[i] if names else f"[{i}]", inputs=inputs)
        elif kind is dict or kind is types.MappingProxyType:
            self._write((kind, len(value)), label)
            for key, part in value.items():
                self._later(key, label, f".key({key!r})" if isinstance(key, str) else ".key")
                self._later(part, label, f"[{key!r}]", inputs=inputs)
        elif kind in (set, frozenset):
            plain = all(type(part) in PLAIN for part in value)
            token = (kind, frozenset((type(p), p) for p in value)) if plain else Unseen()
            self._write(token, label)
        elif isinstance(value, Frozen):
            self._write(kind, label)
            self._later(value.value, label, "")
        elif isinstance(value, eqx.Module):
            self._module(value, label, inputs)
        elif isinstance(value, types.FunctionType):
            self._function(value, label)
        elif isinstance(value, type):
            self._class(value, label)
        elif isinstance(value, functools.partial):
            self._write((kind, len(value.args), tuple(value.keywords)), label)
            self._later(value.func, label, ".func")
            for name, part in [*enumerate(value.args), *value.keywords.items()]:
                self._later(part, label, f"({name})")
        elif isinstance(value, types.MethodType):
            self._write(kind, label)
            self._later(value.__func__, label, "")
            self._later(value.__self__, label, ".__self__")
        elif isinstance(value, staticmethod | classmethod):
            self._write(kind, label)
            self._later(value.__func__, label, "")
        elif isinstance(value, property):
            self._write(kind, label)
            self._later(value.fget, label, "")
        elif isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType | np.ufunc):
            self._builtin(value, label)
        elif isinstance(value, types.ModuleType):
            name = value.__name__
            seen = is_library(name) and not is_impure(name)
            self._write(Held(value) if seen else Unseen(), label)
        elif inputs and not jax.tree_util.all_leaves([value]):
            leaves, structure = jax.tree.flatten(value)
            self._write((kind, hashable(structure), len(leaves)), label)
            for i, leaf in enumerate(leaves):
                self._later(leaf, label, f"[{i}]", inputs=True)
        else:
            self._instance(value, label)

    def _module(self, module: eqx.Module, label: Label, inputs: bool) -> None:
        kind = type(module)
        self._write(("module", Held(kind)), label)
        self._members(kind, label)
        held = object.__getattribute__(module, "__dict__")  # Equinox's own takes its time
        for name, shown, static in fields(kind):
            part = held.get(name)
            if type(part) in PLAIN:
                self._write((type(part), part), (label, shown))
            elif not (inputs and not static and isinstance(part, jax.Array)):
                self._queue.append((part, (label, shown), inputs and not static))

    def _function(self, fn: types.FunctionType, label: Label) -> None:
        library = is_library_code(fn)
        if library and hasattr(fn, "__wrapped__"):  # a decorator, which adds nothing of its own
            self._write(("wrapped", fn.__code__), label)
            self._later(vars(fn)["__wrapped__"], label, "")
            return
        self._write((fn.__code__, len(fn.__closure__ or ())), label)
        read = reads(fn.__code__)
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # it is not filled yet
                self._write(Unseen(), (label, f" › {name}"))
                continue
            self._read(held, read.cells.get(name, ((),)), label, name)
        for i, default in enumerate(fn.__defaults__ or ()):
            self._later(default, label, f"({i})")
        for name, default in (fn.__kwdefaults__ or {}).items():
            self._later(default, label, f"({name})")
        if library:
            return
        for name, part in vars(fn).items():
            self._later(part, label, f".{name}")
        self._name(read.attributes)
        for name, chains in read.globals.items():
            if name in fn.__globals__:
                self._read(fn.__globals__[name], chains, label, name)
            elif name in IMPURE_BUILTINS or not hasattr(builtins, name):
                self._write(Unseen(), (label, f" › {name}"))
        for module, name in read.imports:
            if not is_library(module):
                held = sys.modules.get(module)
                if name is not None or not any(m == module and n for m, n in read.imports):
                    self._read(held, (() if name is None else (name,),), label, module)
            elif is_impure(module):
                self._write(Unseen(), (label, f" › {module}"))

    def _read(self, value: Any, chains: Chains, within: Label, name: str) -> None:
        """Something that code reads by name.

        **Arguments:**

        - `chains`: the attributes that it reads of that, in each place where it does.
        """
        if type(value) in _COLLECTIONS and all(row and row[0] in _ADDS for row in chains):
            self._write(("added to", Held(value)), (within, f" › {name}"))
            return
        for attributes in chains:
            self._follow(value, attributes, within, name)

    def _follow(self, value: Any, attributes: tuple[str, ...], within: Label, name: str) -> None:
        """Go through the attributes of modules to what is read of them in the end."""
        for attribute in attributes:
            if not isinstance(value, types.ModuleType) or is_impure(value.__name__):
                break
            if is_library(value.__name__) and not isinstance(
                vars(value).get(attribute), types.ModuleType
            ):
                break
            if attribute not in vars(value):
                self._write(Unseen(), (within, f" › {name}.{attribute}"))
                return
            value, name = vars(value)[attribute], f"{name}.{attribute}"
        self._later(value, within, f" › {name}")

    def _class(self, kind: type, label: Label) -> None:
        self._write(("class", Held(kind)), label)
        self._members(kind, label)

    def _members(self, kind: type, label: Label) -> None:
        """What the instances of a class find in it, and in its bases, but for those of libraries.

        Of its functions only those that may be called: whose name some code that was read has, or
        that a library calls by a name of its own.
        """
        if is_library(kind.__module__) or ("members", kind) in self._seen:
            return
        self._seen["members", kind] = len(self._seen)
        label = (None, kind.__qualname__.rpartition("<locals>.")[2])
        for name, member, is_read in members(kind):
            self._write(name, label)
            if is_read or name in self._called:
                self._later(member, label, f".{name}")
            else:
                self._waiting[name].append((member, (label, f".{name}")))

    def _name(self, names: frozenset[str]) -> None:
        """Some code has these names: methods that go by one of them may be called."""
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
            self._write(Unseen() if impure else Held(fn), label)
        else:
            self._write((type(fn), fn.__name__), label)
            self._later(owner, label, ".__self__")

    def _instance(self, value: Any, label: Label) -> None:
        """An object of a class that is none of Python's own."""
        kind = type(value)
        library = is_library(kind.__module__)
        names = slots(kind)
        if library and hasattr(value, "__wrapped__"):  # what `jax.jit` and `custom_jvp` make
            self._write(("wrapped", Held(kind)), label)
            self._later(value.__wrapped__, label, "")
        elif library and kind.__hash__ not in (None, object.__hash__):
            self._write(hashable(value), label)
        elif hasattr(value, "__dict__") or (names and not library):
            self._write(("object", Held(kind)), label)
            self._members(kind, label)
            for name, part in getattr(value, "__dict__", {}).items():
                self._later(part, label, f".{name}")
            for name in names:
                if hasattr(value, name):
                    self._later(getattr(value, name), label, f".{name}")
        elif kind is object:
            self._write(Held(value), label)
        else:
            self._write(Unseen(), label)


def _kind(kind: type) -> Hashable:
    return Held(kind)


class Frozen(Hashable):
    """A value that is not an array, hashable, and equal to what would be traced to the same.

    `1 == 1.0 == True` in Python, and `nan != nan`; a compiled program must tell the first apart and
    know the second again. Functions are equal if their code is, and all that it reads: so
    `optax.adam(1e-3)` is the same optimizer each time.
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = Survey(value=value).key

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Frozen) and self._key == other._key)

    def __repr__(self) -> str:
        return repr(self.value)
