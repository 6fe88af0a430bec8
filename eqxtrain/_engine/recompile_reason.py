"""What a program depends on, in words, and how two of them differ."""

import enum
import types
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree

from .. import _tree
from .._identity.survey import Survey
from .._identity.tokens import PLAIN, Unseen


class Entry(NamedTuple):
    """One thing that was read, as far as it can be told later.

    **Arguments:**

    - `text`: a plain value; None for anything else.
    - `mark`: differs where the thing does.
    - `what`: what became of the thing where the mark differs.
    """

    text: str | None
    mark: int
    what: str = "was replaced"


Account = Mapping[str, Entry]
"""By the names that people know. It holds nothing of what it tells."""


def account(trees: Mapping[str, PyTree], survey: Survey, settings: Mapping[str, Any]) -> Account:
    """What a program depends on: the arrays of trees, what else was seen of them, and settings."""
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


def reasons(old: Account, new: Account) -> Iterator[str]:
    """How two accounts differ, each difference in a few words."""
    for name in old.keys() - new.keys():
        yield f"`{_last(name)}` is gone{_place(name)}{_was(old[name])}"
    for name, entry in new.items():
        if name not in old:
            yield f"`{_last(name)}` is new{_place(name)}{_is(entry)}"
        elif old[name] != entry:
            yield _change(name, old[name], entry)


def _change(name: str, old: Entry, new: Entry) -> str:
    if old.text is None or new.text is None:
        return f"`{_last(name)}` {new.what}{_place(name)}"
    if " › " in name:
        return f"`{_last(name)}` {old.text} → {new.text}{_place(name)}"
    return f"`{name}`: {old.text} → {new.text}"


def _entry(token: Hashable) -> Entry:
    if isinstance(token, Unseen):
        return Entry(None, id(token), "may have changed")
    if _has_code(token):
        return Entry(None, hash(token), "was redefined")
    return Entry(_text(token), hash(token))


def _has_code(token: Hashable) -> bool:
    if isinstance(token, tuple):
        return any(map(_has_code, token))
    return isinstance(token, types.CodeType)


def _text(token: Hashable) -> str | None:
    """A plain value as people write it; None if it is not plain."""
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
