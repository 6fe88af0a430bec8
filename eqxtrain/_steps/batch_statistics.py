"""The statistics of BatchNorm, for weights that were not trained with them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import PyTree


def _is_batch_norm(node: Any) -> bool:
    return isinstance(node, eqx.nn.BatchNorm)


def batch_norms(model: PyTree) -> list[eqx.nn.BatchNorm]:
    """The layers of `model` that normalise by the statistics of a batch, when it is trained."""
    layers = filter(_is_batch_norm, jax.tree.leaves(model, is_leaf=_is_batch_norm))
    return [layer for layer in layers if not layer.inference]


def _indices(layer: eqx.nn.BatchNorm) -> tuple[Any, Any]:
    """Where a layer keeps its statistics, and whether, or how often, it has updated them."""
    if layer.mode == "ema":
        return layer.ema_state_index, layer.ema_first_time_index
    return layer.batch_state_index, layer.batch_counter


def without_statistics(model: PyTree, model_state: eqx.nn.State) -> eqx.nn.State:
    """The state in which the next batch determines the statistics alone."""
    for layer in batch_norms(model):
        statistics, updates = _indices(layer)
        zeros = jax.tree.map(jnp.zeros_like, model_state.get(statistics))
        never = jnp.ones_like if layer.mode == "ema" else jnp.zeros_like
        model_state = model_state.set(statistics, zeros)
        model_state = model_state.set(updates, never(model_state.get(updates)))
    return model_state


Statistics = list[tuple[Any, Any]]
"""For each layer, the arrays of its mean and its variance, and whether they were updated."""


def get_statistics(model: PyTree, model_state: eqx.nn.State) -> Statistics:
    """The statistics as they are kept, after `without_statistics` and perhaps a batch."""
    found: Statistics = []
    for layer in batch_norms(model):
        index, updates = _indices(layer)
        at = model_state.get(updates)
        was_updated = ~at if layer.mode == "ema" else at > 0
        found.append((model_state.get(index), was_updated.astype(jnp.float32)))
    return found


def set_statistics(
    model: PyTree, model_state: eqx.nn.State, statistics: Statistics
) -> eqx.nn.State:
    """The state with these statistics, as if they came from one batch.

    A layer that was not called keeps those that it has.
    """
    for layer, (new, was_updated) in zip(batch_norms(model), statistics, strict=True):
        if not was_updated:
            continue
        index, updates = _indices(layer)
        old = model_state.get(index)
        kept = jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), old, new)
        count = jnp.zeros_like if layer.mode == "ema" else jnp.ones_like
        model_state = model_state.set(index, kept)
        model_state = model_state.set(updates, count(model_state.get(updates)))
    return model_state
