"""From the values of a loss to one number, by its factors: mask, sample and class weights."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._request import LOSS_NAMES, Request, is_by_name, request
from .._tree import is_inexact
from ..metrics import Mean, Metric, Sum
from ..metrics._base import num_examples
from ..metrics._calling import refuse_pairs
from ..metrics._masks import mask_weights, row_mask
from .class_weight import class_weights

Reduction = Literal["mean", "sum", "mean_with_sample_weight"]

FACTORS = frozenset(("sample_weight", "class_weight", "mask"))
"""What the values of a loss are multiplied by, unless the loss asks for it."""


class ReducedLoss(NamedTuple):
    """The loss of a batch, and its contribution to the loss of a pass."""

    value: Float[Array, ""]
    contribution: Metric


def reduce_loss(
    fn: Callable[..., Any],
    name: str,
    value: Any,
    available: Mapping[str, Any],
    reduction: Reduction,
) -> ReducedLoss:
    """Reduce one part of a loss: the sum or mean of its values times the factors.

    A factor that the loss asks for is left to the loss.

    With m the mask, w the sample weights, c the class weights and ℓ the values: `Σ(m·w·c·ℓ) / Σm`
    for `"mean"`, with trailing axes averaged; `Σ(m·w·c·ℓ)` for `"sum"`; and `Σ(m·w·c·ℓ) / Σ(m·w·c)`
    for `"mean_with_sample_weight"`.

    **Arguments:**

    - `fn`, `name`: the loss that returned the values, and its name.
    - `value`: values with the batch axis first, or a scalar that is already reduced.
    """
    values = _as_values(value, name)
    present = {factor for factor in FACTORS if available.get(factor) is not None}
    ours = present - _asked_by(fn, available)
    if values.ndim == 0:
        _check_scalar(fn, name, ours, available)
        return _reduce_scalar(values, available, reduction)
    count = num_examples(available)
    if values.shape[0] != count:
        raise ValueError(
            f"The loss `{name}` returned an array of shape {values.shape} for a batch of {count} "
            "examples: return one value per example (the batch axis first), or a scalar."
        )
    refuse_pairs(values.shape, available, f"The loss `{name}`")
    # The denominator of "mean_with_sample_weight" needs even the factors that the loss applied.
    used = ours if reduction == "mean" else present
    factors = {factor: _align_factor(factor, available, values.shape, name) for factor in used}
    if ours:
        factor = _product([factors[name] for name in sorted(ours)], values)
        values = jnp.where(factor == 0, 0, values * factor)  # what counts nothing may be nan
    if reduction == "sum":
        total = jnp.sum(values)
        return ReducedLoss(total, Sum.of(total))
    if reduction == "mean":
        return _mean(values, available.get("mask"))
    weight = jnp.sum(_product([factors[name] for name in sorted(present)], values))
    return _weighted_mean(jnp.sum(values), weight)


def _as_values(value: Any, name: str) -> Array:
    if value is None or isinstance(value, tuple | list | str):
        raise TypeError(
            f"The loss `{name}` returned a `{type(value).__name__}`: return an array of one value "
            "per example, a scalar, or a dict of named parts."
        )
    values = jnp.asarray(value)
    # Sums in half precision would lose their digits.
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def _mean(values: Array, mask: Any) -> ReducedLoss:
    """The mean over the rows that are not padding, and over trailing axes."""
    if mask is None:
        mean = jnp.mean(values)
        return ReducedLoss(mean, Mean.of(mean, len(values)))
    rows = jnp.sum(row_mask(mask, len(values)).astype(values.dtype))
    return _weighted_mean(jnp.sum(values) / int(np.prod(values.shape[1:])), rows)


def _weighted_mean(total: Array, weight: Array) -> ReducedLoss:
    mean = jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))
    return ReducedLoss(mean, Mean.of(mean, weight))


def shield_gradients(fn: Callable[..., Any], available: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is available, without gradients through broken predictions that count nothing.

    A nan in an example of weight 0 does not enter the loss. But its gradient would be the weight 0
    times a derivative that is nan, and so make the gradient of every parameter nan. Values don't
    change. An example is broken if its labels or predictions are not all finite.

    **Arguments:**

    - `fn`: the loss. If it asks for a factor, it is up to the loss to heed it.
    """
    ours = {"mask", "sample_weight"} - _asked_by(fn, available)
    present = [available[name] for name in sorted(ours) if available.get(name) is not None]
    arrays: list[Any] = [factor for factor in present if np.ndim(factor) > 0]
    y_pred, y_true = available.get("y_pred"), available.get("y_true")
    if not arrays or y_pred is None:
        return available
    rows = num_examples(available)
    factors = [jnp.asarray(factor) for factor in arrays if np.shape(factor)[0] == rows]

    def has_rows(leaf: Any) -> bool:
        return is_inexact(leaf) and leaf.shape[:1] == (rows,)

    broken = jnp.zeros(rows, bool)
    for leaf in filter(has_rows, jax.tree.leaves((y_true, y_pred))):
        broken = broken | ~jnp.isfinite(leaf).reshape(rows, -1).all(axis=1)

    def shield(leaf: Any) -> Any:
        if not has_rows(leaf) or not factors:
            return leaf
        counts = [_fit_mask(factor.astype(bool), leaf.shape) for factor in factors]
        dropped = _fit_mask(broken, leaf.shape) & ~functools.reduce(jnp.logical_and, counts)
        return jnp.where(dropped, jax.lax.stop_gradient(leaf), leaf)

    return {**available, "y_pred": jax.tree.map(shield, y_pred)}


def _fit_mask(counts: Array, shape: tuple[int, ...]) -> Array:
    """A bool mask of the given shape; reduced to rows if its trailing axes are other ones."""
    if counts.shape == (*shape, 1):
        counts = counts[..., 0]
    if counts.shape != shape[: counts.ndim]:
        counts = counts.reshape(counts.shape[0], -1).any(axis=1)
    return jnp.broadcast_to(counts.reshape(counts.shape + (1,) * (len(shape) - counts.ndim)), shape)


def _product(factors: list[Array], value: Array) -> Array:
    product = jnp.ones_like(value)
    for factor in factors:
        is_zero = (product == 0) | (factor == 0)  # the weight of padding may be nan
        product = jnp.where(is_zero, 0, product * factor.astype(value.dtype))
    return product


def _asked_by(fn: Callable[..., Any], available: Mapping[str, Any]) -> set[str]:
    """The factors that a loss asks for, and so has to apply."""
    by_name = is_by_name(fn, LOSS_NAMES | available.keys())
    asked = request(fn) if by_name else Request((), (), everything=False)
    return set(FACTORS) if asked.everything else set(FACTORS.intersection(asked.names))


def _check_scalar(
    fn: Callable[..., Any], name: str, ours: set[str], available: Mapping[str, Any]
) -> None:
    by_name = is_by_name(fn, LOSS_NAMES | available.keys())
    if ours and (not by_name or {"y_pred", "y_true"} & set(request(fn).names)):
        names = " and ".join(f"`{factor}`" for factor in sorted(ours))
        raise ValueError(
            f"The loss `{name}` returned a scalar, so {names} can't be applied to its "
            f"examples: return one value per example, or make it ask for {names} by name."
        )


def _reduce_scalar(value: Array, available: Mapping[str, Any], reduction: Reduction) -> ReducedLoss:
    if reduction == "sum":
        return ReducedLoss(value, Sum.of(value))
    weight: Any = num_examples(available) if available.keys() & {"x", "batch", "y_pred"} else 1
    factors = ("mask", "sample_weight") if reduction == "mean_with_sample_weight" else ("mask",)
    each = [available[factor] for factor in factors if available.get(factor) is not None]
    if each:
        shape = max((jnp.shape(factor) for factor in each), key=len)
        weight = jnp.sum(
            _product([mask_weights(f, shape) for f in each], jnp.ones(shape, jnp.float32))
        )
    return ReducedLoss(value, Mean.of(value, weight))


def _align_factor(
    factor: str, available: Mapping[str, Any], shape: tuple[int, ...], name: str
) -> Array:
    """A factor with the rank of values of this shape."""
    values = available[factor]
    if factor == "mask":
        weight = row_mask(values, shape[0]).astype(jnp.float32)
    elif factor == "class_weight":
        weight = class_weights(values, available.get("y_true"), available["y_pred"])
    else:
        weight = jnp.asarray(values).astype(jnp.float32)
    if weight.ndim == len(shape) + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.ndim > len(shape) or shape[: weight.ndim] != weight.shape:
        raise ValueError(
            f"`{factor}` has shape {weight.shape}, but the loss `{name}` has values of shape "
            f"{shape}: give one weight per example, or one per value."
        )
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
