"""Masks: which rows of a batch count, and how much."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mask_weights(mask: Any, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """How much each value of a batch counts, as float32 of the given shape.

    **Arguments:**

    - `mask`: None, or a bool or a weight for each row, or for each value.
    - `shape`: the shape of the values, batch axis first.
    """
    if mask is None:
        return jnp.ones(shape, jnp.float32)
    mask = jnp.asarray(mask)
    if mask.ndim == 0 or mask.ndim > len(shape) or mask.shape != shape[: mask.ndim]:
        raise ValueError(
            f"`mask` has shape {mask.shape}, but the values have shape {shape}: give one mask "
            "value or weight per example, or one per value."
        )
    mask = mask.astype(jnp.float32)
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def masked_values(values: Any, mask: Any = None) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Values with a leading batch axis as float32, and how much each counts.

    Axes beyond those of the mask (without one, beyond the first) are averaged. Values that count
    nothing are replaced by 0 rather than multiplied by it, since padding may be nan.
    """
    values = jnp.asarray(values).astype(jnp.float32)
    rank = 1 if mask is None else max(jnp.ndim(mask), 1)
    weight = mask_weights(mask, values.shape)
    if values.ndim > rank:
        axes = tuple(range(rank, values.ndim))
        values, weight = jnp.mean(values, axis=axes), weight[(...,) + (0,) * len(axes)]
    return jnp.where(weight == 0, 0, values), weight


def combine_weights(weight: Any, mask: Any) -> Float[Array, "..."]:
    """A weight and a mask (or None) as one weight, of the higher of their ranks."""
    shape = max(jnp.shape(weight), () if mask is None else jnp.shape(mask), key=len)
    counts = mask_weights(mask, shape)
    return jnp.where(counts == 0, 0, counts * mask_weights(weight, shape))


def row_mask(mask: Any, rows: int) -> Bool[Array, "rows"]:
    """A mask as one bool per row, true where the row is not padding."""
    real = jnp.asarray(mask).astype(bool)
    if real.shape != (rows,):
        raise ValueError(
            f"`mask` has shape {real.shape} for {rows} examples: give one value per example."
        )
    return real


def counted_rows(mask: Any, rows: int) -> Bool[Array, "rows"]:
    """The rows of which anything counts; all of them without a mask."""
    if mask is None:
        return jnp.ones(rows, bool)
    counts = jnp.asarray(mask).astype(bool)
    if counts.shape[:1] != (rows,):
        raise ValueError(
            f"`mask` has shape {counts.shape} for {rows} examples: give one value per example."
        )
    return jnp.any(counts.reshape(rows, -1), axis=1)
