"""Containers of losses and metrics, and the names that their results are logged under."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ._request import name_of


def named_leaves(
    container: Any, *, default: str, is_leaf: Callable[[Any], bool] = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """Flatten lists, tuples and dicts of losses or metrics into names and members.

    A dict key names what is directly under it. A list member has its own name or, without one, its
    position: `{"a": {"b": [m, m], "c": m}}` gives `a/b/m`, `a/b/m` and `a/c` (`unique` then makes
    equal names differ). A single member without a name is called `default`.

    **Raises:** `ValueError` if a key is the empty string.
    """
    yield from _walk(container, "", None, default, is_leaf)


def _walk(
    node: Any, prefix: str, own: str | None, default: str, is_leaf: Callable[[Any], bool]
) -> Iterator[tuple[str, Any]]:
    if node is None:
        return
    if isinstance(node, Mapping) and not is_leaf(node):
        for key, child in node.items():
            if str(key) == "":
                raise ValueError(
                    f"{child!r} stands under the key `''`, but what is logged needs a name: give "
                    "it one, or use a list, whose members go by their own names."
                )
            yield from _walk(child, _join(prefix, own), str(key), default, is_leaf)
    elif isinstance(node, list | tuple) and not is_leaf(node):
        for position, child in enumerate(node):
            name = None if isinstance(child, Mapping | list | tuple) else name_of(child)
            name = str(position) if name is None else name
            yield from _walk(child, _join(prefix, own), name, default, is_leaf)
    else:
        yield _join(prefix, own or name_of(node) or default), node


def _join(prefix: str, name: str | None) -> str:
    return "/".join(part for part in (prefix, name) if part)


def unique(name: str, taken: Collection[str]) -> str:
    """`name`, or the first of `name_1`, `name_2`, ... that is not in `taken`."""
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
