"""Iterators of others, and how they report and restore their position."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from .._tree import with_fields
from .._warn import warn

_PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
"""How iterators spell it: Grain's way, and that of torchdata and HuggingFace's datasets."""

_EVERY = {"get_state": 1, "state_dict": 16}
"""After how many batches each is asked: the second gathers what its workers are at, which costs."""


class StreamPosition(NamedTuple):
    """A position in what an iterable gives.

    **Arguments:**

    - `batches`: how many lie before it.
    - `state`: what the iterator itself told of its own position; None if it can't.
    - `state_at`: behind how many batches it told that.
    """

    batches: int = 0
    state: Any = None
    state_at: int = 0


class Cursor(NamedTuple):
    """An iterator that stands somewhere.

    **Arguments:**

    - `items`: the iterator.
    - `state`: gives what the iterator tells of its position; None if it tells nothing.
    - `every`: after how many batches it is asked. What is fewer behind that is made again.
    """

    items: Iterator[Any]
    state: Callable[[], Any] | None = None
    every: int = 1


def open_at(iterable: Any, mark: StreamPosition) -> Cursor:
    """An iterator over `iterable` that stands at `mark`.

    One that can restore its position is asked to; what is indexed begins there; all else is
    produced again up to it, and thrown away.
    """
    if is_indexed(iterable):
        return Cursor(_indexed(iterable, mark.batches))
    pair = state_methods(iterable)
    if pair is not None and not isinstance(iterable, Iterator):
        if mark.state is not None and _is_of_huggingface(iterable):
            iterable = with_fields(iterable)  # it would begin there in all later passes, too
        return _cursor(iterable, pair, mark, lambda: iter(iterable))
    items = iter(iterable)
    if (pair := state_methods(items)) is not None:
        return _cursor(items, pair, mark, lambda: items)
    _replay(items, mark.batches)
    return Cursor(items)


def _cursor(
    owner: Any, pair: tuple[str, str], mark: StreamPosition, begun: Callable[[], Iterator[Any]]
) -> Cursor:
    """Of what keeps its own position: `owner` tells and takes it, by the methods of that name."""
    get, put = pair
    if mark.state is None:
        items = begun()
        _replay(items, mark.batches)
    else:
        getattr(owner, put)(mark.state)
        items = begun()
        _skip(items, mark.batches - mark.state_at, mark.batches)
    return Cursor(items, getattr(owner, get), _EVERY[get])


def is_indexed(x: Any) -> bool:
    """Whether batches are had by index: a list, or what has no more than an index and a length."""
    only = hasattr(x, "__getitem__") and hasattr(x, "__len__") and not hasattr(x, "__iter__")
    return isinstance(x, Sequence) or only


def _indexed(batches: Any, start: int) -> Generator[Any, None, None]:
    if start > len(batches):
        raise ValueError(_beyond(len(batches), start))
    for i in range(start, len(batches)):
        yield batches[i]


def _is_of_huggingface(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "datasets"


def state_methods(x: Any) -> tuple[str, str] | None:
    """The names of the methods by which `x` tells its position, and takes one."""
    for pair in _PAIRS:
        if all(callable(getattr(x, name, None)) for name in pair):
            return pair
    return None


def is_persistent(x: Any) -> bool:
    """Whether it is a loader of torch's that has one iterator for all passes."""
    return bool(getattr(x, "persistent_workers", False))


def _replay(items: Iterator[Any], count: int) -> None:
    if count > 0:
        warn(
            f"The data can't go to a position, so the {count} batches before it are taken once "
            "more and thrown away, which lasts as long as making them. What has `get_state` and "
            "`set_state` (Grain), or `state_dict` and `load_state_dict` (torchdata's "
            "`StatefulDataLoader`), goes there at once."
        )
    _skip(items, count, count)


def _skip(items: Iterator[Any], count: int, position: int) -> None:
    given = sum(1 for _ in itertools.islice(items, count))
    if given < count:
        raise ValueError(_beyond(position - count + given, position))


def _beyond(given: int, count: int) -> str:
    return (
        f"The data have {given} batches, and `position` is behind {count}: go on with the data "
        "that it came from."
    )
