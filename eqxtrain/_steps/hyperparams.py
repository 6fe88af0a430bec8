"""Hyperparameters that an optimizer keeps as arrays, by `optax.inject_hyperparams`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._tree import with_fields
from .._types import PyTree


def _is_injected(node: Any) -> bool:
    return isinstance(getattr(node, "hyperparams", None), dict)


def injected(opt_state: PyTree, name: str) -> list[Any]:
    """The values of a hyperparameter, wherever it was injected; empty if it was not.

    **Raises:** `ValueError` where a schedule computes it anew at every step.
    """
    values: list[Any] = []
    for node in jax.tree.leaves(opt_state, is_leaf=_is_injected):
        if _is_injected(node) and name in node.hyperparams:
            if name in getattr(node, "hyperparams_states", {}):
                raise ValueError(
                    f"The optimizer computes `{name}` from a schedule at every step, so a callback "
                    "can't set it: inject a number, "
                    f"`optax.inject_hyperparams(optax.adam)({name}=1e-3)`."
                )
            values.append(node.hyperparams[name])
    return values


def injected_now(opt_state: PyTree, name: str) -> list[Any]:
    """The values that a hyperparameter had in the last update, wherever it was injected."""
    nodes = filter(_is_injected, jax.tree.leaves(opt_state, is_leaf=_is_injected))
    return [node.hyperparams[name] for node in nodes if name in node.hyperparams]


def with_injected(opt_state: PyTree, name: str, change: Callable[[Any], Any]) -> PyTree:
    """The state with other values of a hyperparameter, of the same dtype and shape."""

    def changed(node: Any) -> Any:
        if not _is_injected(node) or name not in node.hyperparams:
            return node
        old = jnp.asarray(node.hyperparams[name])
        new = jnp.broadcast_to(jnp.asarray(change(old), old.dtype), old.shape)
        hyperparams = {**node.hyperparams, name: new}
        if hasattr(node, "_replace"):
            return node._replace(hyperparams=hyperparams)
        return with_fields(node, hyperparams=hyperparams)

    return jax.tree.map(changed, opt_state, is_leaf=_is_injected)
