"""Constructors for the reference: those of `eqx.Module`s, which mkdocstrings can't see by itself.

Equinox makes them when a class is created, so they are taken from the classes as imported. What a
class does not document among its arguments, such as the accumulators of a metric, is left out.
"""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import griffe

NEVER_CALLED = ("AbstractLearner", "Monoid", "Metric", "Run", "History")
"""Classes that people are handed, or derive their own from."""


class Constructors(griffe.Extension):
    """Give every `eqx.Module` of a package the `__init__` that it has at run time."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for documented in classes(pkg):
            kind = getattr(importlib.import_module(documented.module.path), documented.name, None)
            if documented.name in NEVER_CALLED:
                documented.members.pop("__init__", None)
            elif isinstance(kind, type) and issubclass(kind, eqx.Module):
                documented.set_member("__init__", constructor(kind))


def classes(module: griffe.Module) -> Iterator[griffe.Class]:
    """The classes that are defined in a module, and in those below it."""
    for member in module.members.values():
        if isinstance(member, griffe.Class):
            yield member
        elif isinstance(member, griffe.Module):
            yield from classes(member)


def constructor(kind: type[eqx.Module]) -> griffe.Function:
    """How a class is called, with the arguments that it documents and those that it requires."""
    known = documented_names(kind)
    shown = [
        griffe.Parameter(p.name, kind=griffe.ParameterKind[p.kind.name.lower()], default=code(p))
        for p in with_values(kind)
        if p.default is p.empty or p.name in known
    ]
    this = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return griffe.Function("__init__", parameters=griffe.Parameters(this, *shown))


def documented_names(kind: type) -> set[str]:
    """The arguments that a class or one of its bases documents: "- `x`, `y`: the data"."""
    text = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in kind.__mro__)
    heads = re.findall(r"^- ((?:`\w+`(?:, )?)+):", text, re.MULTILINE)
    return {name for head in heads for name in re.findall(r"\w+", head)}


def with_values(kind: type[eqx.Module]) -> Iterator[inspect.Parameter]:
    """The parameters of a class, with what its default factories make as defaults."""
    factories = {
        field.name: field.default_factory
        for field in dataclasses.fields(kind)
        if field.default_factory is not dataclasses.MISSING
    }
    for parameter in inspect.signature(kind).parameters.values():
        factory = factories.get(parameter.name)
        yield parameter if factory is None else parameter.replace(default=factory())


def code(parameter: inspect.Parameter) -> str | None:
    """The default of a parameter as one would write it; `...` for an array."""
    value = parameter.default
    if value is parameter.empty:
        return None
    if eqx.is_array(value):
        return "..."
    return f"{type(value).__name__}()" if isinstance(value, eqx.Module) else repr(value)
