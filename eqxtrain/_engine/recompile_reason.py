"""What a program depends on, in words, and how two programs differ in that.

Accounts of earlier compiles are kept, so they must not hold the things that they describe: a model
or a dataset that a learner referred to would never be freed. They hold texts and hashes instead.
"""

import enum
import types
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree

from .. import _tree
from .._identity.survey import Survey
from .._identity.tokens import PLAIN, Unreadable


class Entry(NamedTuple):
    """What is remembered of one thing that a program depends on.

    **Arguments:**

    - `text`: a plain value, as written in Python; None for anything else.
    - `fingerprint`: differs if the thing does.
    - `change`: how to say that it differs.
    """

    text: str | None
    fingerprint: int
    change: str = "was replaced"


Dependencies = Mapping[str, Entry]
"""What a program depends on, under the names that users know."""


def dependencies(
    trees: Mapping[str, PyTree], survey: Survey, settings: Mapping[str, Any]
) -> Dependencies:
    """What a program depends on: arrays, everything else that was surveyed, and settings."""
    texts = array_signature(trees) | {
        f"jax.config.{name}": str(settings[name]) for name in settings
    }
    seen = {name: _entry(token) for name, token in survey.by_name().items()}
    return seen | {name: Entry(text, hash(text)) for name, text in texts.items()}


def array_signature(trees: Mapping[str, PyTree]) -> dict[str, str]:
    """The arrays of trees, by path."""
    return {
        path: _tree.describe(leaf)
        for name, tree in trees.items()
        for path, leaf in _tree.paths(tree, name)
        if _tree.is_array(leaf)
    }


def reasons(old: Dependencies, new: Dependencies) -> Iterator[str]:
    """Describe each difference between two accounts in a few words."""
    for name in old.keys() - new.keys():
        yield f"`{_last(name)}` is gone{_place(name)}{_was(old[name])}"
    for name, entry in new.items():
        if name not in old:
            yield f"`{_last(name)}` is new{_place(name)}{_is(entry)}"
        elif old[name] != entry:
            yield _change(name, old[name], entry)


def _change(name: str, old: Entry, new: Entry) -> str:
    if old.text is None or new.text is None:
        return f"`{_last(name)}` {new.change}{_place(name)}"
    if " › " in name:
        return f"`{_last(name)}` {old.text} → {new.text}{_place(name)}"
    return f"`{name}`: {old.text} → {new.text}"


def _entry(token: Hashable) -> Entry:
    if isinstance(token, Unreadable):  # nothing to compare, so it counts as changed
        return Entry(None, id(token), "may have changed")
    if _has_code(token):
        return Entry(None, hash(token), "was redefined")
    return Entry(_text(token), hash(token))


def _has_code(token: Hashable) -> bool:
    if isinstance(token, tuple):
        return any(map(_has_code, token))
    return isinstance(token, types.CodeType)


def _text(token: Hashable) -> str | None:
    """A plain value as it is written in Python; None if it is not plain."""
    if not isinstance(token, tuple) or len(token) != 2 or not isinstance(token[0], type):
        return None
    kind, value = token
    if kind in (float, complex):
        return str(value)
    return repr(value) if kind in PLAIN or issubclass(kind, enum.Enum) else None


def _was(entry: Entry) -> str:
    return "" if entry.text is None else f" (was {entry.text})"


def _is(entry: Entry) -> str:
    return "" if entry.text is None else f" ({entry.text})"


def _last(name: str) -> str:
    return name.rpartition(" › ")[2]


def _place(name: str) -> str:
    root = name.partition(" › ")[0]
    return f" in `{root}`" if root != name else ""
