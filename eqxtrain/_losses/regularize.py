"""Regularizers: losses of the model alone."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._tree import is_inexact
from .._types import PyTree
from .loss import Loss

_NORMS = (eqx.nn.BatchNorm, eqx.nn.GroupNorm, eqx.nn.LayerNorm, eqx.nn.RMSNorm)

Where = Callable[[Any], Any]


class _Penalty(eqx.Module):
    """`Σ|w|` or `Σw²` over the weights of a model."""

    power: int = eqx.field(static=True)
    where: Where | None

    def __call__(self, model: PyTree) -> Float[Array, ""]:
        if self.where is None:
            chosen = penalized_weights(model)
        else:
            chosen = [leaf for leaf in jax.tree.leaves(self.where(model)) if is_inexact(leaf)]
        if not chosen:
            raise ValueError(
                f"`L{self.power}` found no weights in a `{type(model).__name__}`: pick them, "
                f"`L{self.power}(..., where=lambda model: model.kernel)`."
            )
        # In float32, since a sum over millions of weights has no digits left in half precision.
        powers = [jnp.abs(leaf).astype(jnp.float32) ** self.power for leaf in chosen]
        return jnp.asarray(optax.tree.sum(powers))


def penalized_weights(model: PyTree) -> list[Array]:
    """The arrays of a model that are penalized by default.

    These are the floating-point arrays of two or more axes, except for biases (going by the names
    of their fields) and what is inside Equinox's normalisation layers.
    """
    found = jax.tree.leaves_with_path(model, is_leaf=lambda node: isinstance(node, _NORMS))
    return [
        leaf
        for path, leaf in found
        if is_inexact(leaf) and leaf.ndim >= 2 and not _field(path).startswith("bias")
    ]


def _field(path: tuple[Any, ...]) -> str:
    """The innermost field on a path."""
    fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    return fields[-1] if fields else ""


def L1(weight: float, *, where: Where | None = None) -> Loss:
    """A loss of `weight · Σ|w|` over the weights of the model, as in Keras; logged as `l1`.

    **Arguments:**

    - `weight`: its factor in the total loss.
    - `where`: a function from the model to the parts that count, as in `eqx.tree_at`. By default
        all arrays of two or more axes, except biases and what is in normalisation layers.

    !!! example

        ```python
        loss = [optax.squared_error, et.L1(1e-4, where=lambda model: model.layers[0].weight)]
        ```
    """
    return Loss(_Penalty(1, where), weight=weight, name="l1")


def L2(weight: float, *, where: Where | None = None) -> Loss:
    """A loss of `weight · Σw²` over the weights of the model, as in Keras; logged as `l2`.

    **Arguments:**

    - `weight`, `where`: as for [`L1`][eqxtrain.L1].
    """
    return Loss(_Penalty(2, where), weight=weight, name="l2")
