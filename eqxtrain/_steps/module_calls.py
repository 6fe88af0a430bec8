"""Models whose parts report their calls, and steps run on shapes alone."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._tree import instance, is_array

Watcher = Callable[[str, Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Calls a part of a model, given its path, the part, its function, and the arguments."""

_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


def shapes_of(fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """The shapes of what `fn` returns; `args` may hold shapes instead of arrays."""
    dynamic, static = eqx.partition(args, is_array)
    return eqx.filter_eval_shape(lambda dynamic: fn(*eqx.combine(dynamic, static)), dynamic)


@contextlib.contextmanager
def watch_calls(watcher: Watcher) -> Iterator[None]:
    """Inside this context, `watcher` calls the parts of models from `wrap_modules`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def wrap_modules(node: PyTree, path: str) -> PyTree:
    """A copy of `node` in which the calls of every module are watched."""

    def is_inner(child: Any) -> bool:
        return child is not node and isinstance(child, eqx.Module)

    def wrap(keys: Any, child: Any) -> Any:
        return wrap_modules(child, path + jax.tree_util.keystr(keys)) if is_inner(child) else child

    inside = jax.tree.map_with_path(wrap, node, is_leaf=is_inner)
    if not isinstance(node, eqx.Module) or not callable(node):
        return inside
    try:
        return instance(_watched_class(type(node)), {**vars(inside), "_watched_path": path})
    except Exception:  # a class that can't be subclassed can't be watched
        return inside


@functools.lru_cache(maxsize=256)
def _watched_class(module_class: type[eqx.Module]) -> type[eqx.Module]:
    call: Callable[..., Any] = module_class.__call__

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        watcher = _watcher.get()
        if watcher is None:
            return call(self, *args, **kwargs)
        return watcher(self._watched_path, self, functools.partial(call, self), args, kwargs)

    body = {
        "__call__": __call__,
        "__annotations__": {"_watched_path": str},
        "_watched_path": eqx.field(static=True, default="", kw_only=True),
        "__module__": module_class.__module__,
    }
    metaclass: Any = type(module_class)
    return metaclass(module_class.__name__, (module_class,), body)
