"""Where the user's own iterators stand, from one run to the next in a process."""

import weakref
from typing import Any, NamedTuple

from ._feed import Item

_MOST_HELD = 4
"""How many iterators are held that can't be referred to weakly, such as those of lists."""


class Standing(NamedTuple):
    """What became of an iterator so far.

    **Arguments:**

    - `batches`: how many of its batches were consumed.
    - `unread`: what was taken from it beyond those, in order: whoever reads it next begins there.
    """

    batches: int = 0
    unread: tuple[Item, ...] = ()


_weakly: dict[int, tuple[Any, Standing]] = {}
_held: dict[int, tuple[Any, Standing]] = {}


def standing(iterator: Any) -> Standing:
    """Where the iterator was left; at its beginning, as far as we know, if nobody left it."""
    found = _weakly.get(id(iterator)) or _held.get(id(iterator))
    return Standing() if found is None else found[1]


def leave(iterator: Any, where: Standing) -> None:
    """Remember where the iterator was left."""
    key = id(iterator)
    try:
        _weakly[key] = (weakref.ref(iterator, lambda _: _weakly.pop(key, None)), where)
    except TypeError:
        _held.pop(key, None)
        _held[key] = (iterator, where)
        while len(_held) > _MOST_HELD:
            _held.pop(next(iter(_held)))
