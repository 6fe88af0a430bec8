"""The outputs of each part of a model, from tracing a step on shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

from .._tree import describe, is_array
from .._types import PyTree
from .module_calls import shapes_of, watch_calls, wrap_modules


def trace(
    pred_step: Callable[..., Any], model: PyTree, state: Any, names: Mapping[str, Any]
) -> tuple[str, dict[str, list[str]]]:
    """The output of the model, and of its parts, from tracing `pred_step` on shapes.

    **Arguments:**

    - `names`: the other arguments that the step may ask for.
    """
    recorded: dict[str, list[str]] = {}

    def record(path: str, part: Any, call: Any, args: Any, kwargs: Any) -> Any:
        out = call(*args, **kwargs)
        seen = recorded.setdefault(path, [])
        shape = _describe_tree(_drop_model_state(out))
        if shape not in seen:
            seen.append(shape)
        return out

    def traced(model: PyTree, state: Any, names: dict[str, Any]) -> PyTree:
        with watch_calls(record):
            ours = {"model": wrap_modules(model, "model"), "state": state, "training": False}
            return pred_step(**names | ours)[0]

    return _describe_tree(shapes_of(traced, model, state, dict(names))), recorded


def _describe_tree(tree: PyTree) -> str:
    if is_array(tree):
        return describe(tree)
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{key}: {_describe_tree(tree[key])}" for key in tree) + "}"
    if isinstance(tree, tuple | list):
        return "(" + ", ".join(map(_describe_tree, tree)) + ")"
    return ", ".join(describe(leaf) for leaf in jax.tree.leaves(tree) if is_array(leaf))


def _drop_model_state(out: PyTree) -> PyTree:
    if isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], eqx.nn.State):
        return out[0]
    return out
