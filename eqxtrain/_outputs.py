"""What each part of a model returns, from tracing a step on shapes."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from ._tree import describe, is_array
from ._types import PyTree

_outputs: contextvars.ContextVar[dict[str, list[str]] | None] = contextvars.ContextVar(
    "outputs", default=None
)


def trace(
    pred_step: Callable[..., Any], model: PyTree, state: Any, names: Mapping[str, Any]
) -> tuple[str, dict[str, list[str]]]:
    """The output of the model, and of its parts, from tracing `pred_step` on shapes.

    **Arguments:**

    - `names`: what else the step may ask for.
    """
    recorded: dict[str, list[str]] = {}

    def traced(model: PyTree, state: Any, names: dict[str, Any]) -> PyTree:
        with _recording(recorded):
            given = {"model": _instrumented(model, "model"), "state": state, "training": False}
            return pred_step(**names | given)[0]

    return _describe_tree(shapes_of(traced, model, state, dict(names))), recorded


def shapes_of(fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """The shapes of what `fn` returns; `args` may hold shapes instead of arrays."""
    dynamic, static = eqx.partition(args, is_array)
    return eqx.filter_eval_shape(lambda dynamic: fn(*eqx.combine(dynamic, static)), dynamic)


def _describe_tree(tree: PyTree) -> str:
    if is_array(tree):
        return describe(tree)
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key}: {_describe_tree(tree[key])}" for key in tree) + "}"
    if isinstance(tree, tuple | list):
        return "(" + ", ".join(map(_describe_tree, tree)) + ")"
    return ", ".join(describe(leaf) for leaf in jax.tree.leaves(tree) if is_array(leaf))


@contextlib.contextmanager
def _recording(into: dict[str, list[str]]) -> Iterator[None]:
    token = _outputs.set(into)
    try:
        yield
    finally:
        _outputs.reset(token)


def _instrumented(node: PyTree, path: str) -> PyTree:
    """`node` with every module inside it replaced by one that records what its calls return."""
    is_leaf = lambda child: child is not node and isinstance(child, eqx.Module)
    inside = jax.tree_util.tree_map_with_path(
        lambda keys, child: (
            _instrumented(child, path + jax.tree_util.keystr(keys))
            if isinstance(child, eqx.Module) and child is not node
            else child
        ),
        node,
        is_leaf=is_leaf,
    )
    if not isinstance(node, eqx.Module) or not callable(node):
        return inside
    try:
        twin = object.__new__(_recording_type(type(node)))
    except Exception:  # a class that can't be subclassed has no output to show
        return inside
    for name, value in vars(inside).items():
        object.__setattr__(twin, name, value)
    object.__setattr__(twin, "_summary_path", path)
    return twin


@functools.lru_cache(maxsize=256)
def _recording_type(kind: type[eqx.Module]) -> type[eqx.Module]:
    call: Callable[..., Any] = kind.__call__

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = call(self, *args, **kwargs)
        recorded = _outputs.get()
        if recorded is not None:
            seen = recorded.setdefault(self._summary_path, [])
            shape = _describe_tree(_without_state(out))
            if shape not in seen:
                seen.append(shape)
        return out

    body = {
        "__call__": __call__,
        "__annotations__": {"_summary_path": str},
        "_summary_path": eqx.field(static=True, default="", kw_only=True),
        "__module__": kind.__module__,
    }
    metaclass: Any = type(kind)
    return metaclass(kind.__name__, (kind,), body)


def _without_state(out: PyTree) -> PyTree:
    if isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], eqx.nn.State):
        return out[0]
    return out
