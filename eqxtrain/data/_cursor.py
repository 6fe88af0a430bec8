"""Iterators of others, and how they report and restore their position."""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from .._warn import warn

_PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
"""How iterators spell it: Grain's way, and that of torchdata and HuggingFace's datasets."""


class Mark(NamedTuple):
    """A position in what an iterable gives.

    **Arguments:**

    - `batches`: how many lie before it.
    - `state`: what the iterator itself told of it; None if it can't.
    """

    batches: int = 0
    state: Any = None


class Cursor(NamedTuple):
    """An iterator that stands somewhere.

    **Arguments:**

    - `items`: the iterator.
    - `state`: gives what the iterator tells of its position.
    """

    items: Iterator[Any]
    state: Callable[[], Any]


def opened(iterable: Any, mark: Mark) -> Cursor:
    """An iterator over `iterable` that stands at `mark`.

    One that can restore its position is asked to; what is indexed begins there; all else is
    produced again up to it, and thrown away.
    """
    if is_indexed(iterable):
        return Cursor(_indexed(iterable, mark.batches), lambda: None)
    pair = pair_of(iterable)
    if pair is not None and not isinstance(iterable, Iterator):
        return _restored_before(iterable, pair, mark)
    items = iter(iterable)
    pair = pair_of(items)
    if pair is not None and mark.state is not None:
        getattr(items, pair[1])(mark.state)
    else:
        _replay(items, mark.batches)
    return Cursor(items, lambda: None if pair is None else getattr(items, pair[0])())


def is_indexed(x: Any) -> bool:
    """Whether batches are had by index: a list, or what has no more than an index and a length."""
    only = hasattr(x, "__getitem__") and hasattr(x, "__len__") and not hasattr(x, "__iter__")
    return isinstance(x, Sequence) or only


def _indexed(batches: Any, start: int) -> Generator[Any, None, None]:
    if start > len(batches):
        raise ValueError(_beyond(len(batches), start))
    for i in range(start, len(batches)):
        yield batches[i]


def _restored_before(iterable: Any, pair: tuple[str, str], mark: Mark) -> Cursor:
    """Of an iterable that takes the position which its next iterator is to begin at."""
    get, put = pair
    if mark.state is not None:
        if type(iterable).__module__.split(".")[0] == "datasets":
            iterable = _twin(iterable)  # HuggingFace's would begin there in all later passes, too
        getattr(iterable, put)(mark.state)
    items = iter(iterable)
    if mark.state is None:
        _replay(items, mark.batches)
    return Cursor(items, getattr(iterable, get))


def _twin(x: Any) -> Any:
    """A shallow copy, past what a class makes of being copied."""
    twin = object.__new__(type(x))
    vars(twin).update(vars(x))
    return twin


def pair_of(x: Any) -> tuple[str, str] | None:
    """The names of the methods by which `x` tells its position, and takes one."""
    for pair in _PAIRS:
        if all(callable(getattr(x, name, None)) for name in pair):
            return pair
    return None


def _replay(items: Iterator[Any], count: int) -> None:
    if count == 0:
        return
    warn(
        f"The data can't go to a position, so their first {count} batches are made again and "
        "thrown away, which takes as long as making them. What has `get_state` and `set_state` "
        "(Grain), or `state_dict` and `load_state_dict` (torchdata's `StatefulDataLoader`), goes "
        "there at once.",
    )
    given = sum(1 for _ in itertools.islice(items, count))
    if given < count:
        raise ValueError(_beyond(given, count))


def _beyond(given: int, count: int) -> str:
    return (
        f"The data have {given} batches, and `position` is behind {count}: go on with the data "
        "that it came from."
    )
