"""The user's iterators, and how they report and restore their position."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from .._tree import with_fields
from .._warn import warn

_STATE_METHODS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
"""Grain's names for getting and setting a position; those of torchdata and HuggingFace."""

_SNAPSHOT_EVERY = {"get_state": 1, "state_dict": 16}
"""How often to snapshot the position, in batches. torchdata's `state_dict` synchronises its
workers, so it is called less often."""


class StreamPosition(NamedTuple):
    """A position in the batches of an iterable.

    **Arguments:**

    - `batches`: how many batches come before it.
    - `state`: the last snapshot that the iterator made of its position; None if it makes none.
    - `state_at`: how many batches come before that snapshot.
    """

    batches: int = 0
    state: Any = None
    state_at: int = 0


class Cursor(NamedTuple):
    """An iterator at some position.

    **Arguments:**

    - `items`: the iterator.
    - `state`: makes a snapshot of its position; None if it can't.
    - `snapshot_every`: how many batches lie between two snapshots. To go to a position between
        them, the batches since the last one are produced again.
    """

    items: Iterator[Any]
    state: Callable[[], Any] | None = None
    snapshot_every: int = 1


def open_at(iterable: Any, position: StreamPosition) -> Cursor:
    """An iterator over `iterable` from `position` on.

    An indexed container starts there, and an iterator that can restore its position does. With any
    other, the batches before it are produced again and thrown away.
    """
    if is_indexed(iterable):
        return Cursor(_indexed(iterable, position.batches))
    pair = state_methods(iterable)
    if pair is not None and not isinstance(iterable, Iterator):
        if position.state is not None and _is_huggingface(iterable):
            # It keeps the state that it is given, and would start there in all later passes too.
            iterable = with_fields(iterable)
        return _cursor(iterable, pair, position, lambda: iter(iterable))
    items = iter(iterable)
    if (pair := state_methods(items)) is not None:
        return _cursor(items, pair, position, lambda: items)
    _replay(items, position.batches)
    return Cursor(items)


def _cursor(
    owner: Any, pair: tuple[str, str], position: StreamPosition, begin: Callable[[], Iterator[Any]]
) -> Cursor:
    """A cursor whose `owner` gets and sets its position by the two methods named."""
    get_state, set_state = pair
    if position.state is None:
        items = begin()
        _replay(items, position.batches)
    else:
        getattr(owner, set_state)(position.state)
        items = begin()
        _skip(items, position.batches - position.state_at, position.batches)
    return Cursor(items, getattr(owner, get_state), _SNAPSHOT_EVERY[get_state])


def is_indexed(x: Any) -> bool:
    """Whether batches are read by index: a list, or a class with only an index and a length."""
    only = hasattr(x, "__getitem__") and hasattr(x, "__len__") and not hasattr(x, "__iter__")
    return isinstance(x, Sequence) or only


def _indexed(batches: Any, start: int) -> Generator[Any, None, None]:
    if start > len(batches):
        raise ValueError(_past_end_message(len(batches), start))
    for i in range(start, len(batches)):
        yield batches[i]


def _is_huggingface(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "datasets"


def state_methods(x: Any) -> tuple[str, str] | None:
    """The names of the methods that get and set the position of `x`; None without them."""
    for pair in _STATE_METHODS:
        if all(callable(getattr(x, name, None)) for name in pair):
            return pair
    return None


def is_persistent(x: Any) -> bool:
    """Whether it is a torch loader that uses one iterator for all passes."""
    return bool(getattr(x, "persistent_workers", False))


def _replay(items: Iterator[Any], count: int) -> None:
    if count > 0:
        warn(
            f"The data can't seek, so the {count} batches before the position are produced again "
            "and thrown away, which takes as long as the first time. Iterators with `get_state` "
            "and `set_state` (Grain's), or `state_dict` and `load_state_dict` (torchdata's "
            "`StatefulDataLoader`), resume at once."
        )
    _skip(items, count, count)


def _skip(items: Iterator[Any], count: int, position: int) -> None:
    skipped = sum(1 for _ in itertools.islice(items, count))
    if skipped < count:
        raise ValueError(_past_end_message(position - count + skipped, position))


def _past_end_message(length: int, count: int) -> str:
    return (
        f"The data have {length} batches, but `position` is after batch {count}: resume with the "
        "data that it came from."
    )
