"""From the values of a loss to one number: masks, weights, class weights."""

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
from ..metrics._base import mask_weights, num_examples, row_mask
from ..metrics._calling import refuse_pairs

Reduction = Literal["mean", "sum", "mean_with_sample_weight"]

FACTORS = frozenset(("sample_weight", "class_weight", "mask"))
"""What the values of a loss are multiplied by, unless it asks for it."""


class ReducedLoss(NamedTuple):
    """A loss of one batch, and its contribution to that of a pass."""

    value: Float[Array, ""]
    contribution: Metric


def reduce_loss(
    fn: Callable[..., Any],
    name: str,
    value: Any,
    available: Mapping[str, Any],
    reduction: Reduction,
) -> ReducedLoss:
    """One part of a loss as a number: its values times the factors that it did not ask for.

    With m the mask, w the sample weights, c the class weights and ℓ the values: `Σ(m·w·c·ℓ) / Σm`
    for `"mean"`, with trailing axes averaged; `Σ(m·w·c·ℓ)` for `"sum"`; and `Σ(m·w·c·ℓ) / Σ(m·w·c)`
    for `"mean_with_sample_weight"`.

    **Arguments:**

    - `fn`, `name`: the loss that gave the values, and what it is called.
    - `value`: values with the batch axis first, or a scalar that is reduced already.
    """
    if value is None or isinstance(value, tuple | list | str):
        raise TypeError(
            f"The loss `{name}` returned a `{type(value).__name__}`: return an array of one value "
            "an example, a scalar, or a dict of named parts."
        )
    value = jnp.asarray(value)
    if value.dtype != jnp.float64:  # sums of half precision lose their digits
        value = value.astype(jnp.float32)
    present = {factor for factor in FACTORS if available.get(factor) is not None}
    ours = present - _asked_by(fn, available)
    if value.ndim == 0:
        _check_scalar(fn, name, ours, available)
        return _reduce_scalar(value, available, reduction)
    count = num_examples(available)
    if value.shape[0] != count:
        raise ValueError(
            f"The loss `{name}` returned an array of shape {value.shape} for a batch of {count} "
            "examples: return one value per example (the batch axis first), or a scalar."
        )
    refuse_pairs(value.shape, available, f"The loss `{name}`")
    used = ours if reduction == "mean" else present
    each = {factor: _align_factor(factor, available, value.shape, name) for factor in used}
    product = lambda names: _product([each[factor] for factor in sorted(names)], value)
    weighted = jnp.where(product(ours) == 0, 0, value * product(ours)) if ours else value
    if reduction == "sum":
        total = jnp.sum(weighted)
        return ReducedLoss(total, Sum.of(total))
    if reduction == "mean":
        if "mask" not in present:
            mean = jnp.mean(weighted)
            return ReducedLoss(mean, Mean.of(mean, count))
        weight = jnp.sum(row_mask(available["mask"], count).astype(value.dtype))
        total = jnp.sum(weighted) / int(np.prod(value.shape[1:]))
    else:
        weight = jnp.sum(product(present))
        total = jnp.sum(weighted)
    mean = jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))
    return ReducedLoss(mean, Mean.of(mean, weight))


def shield_gradients(fn: Callable[..., Any], available: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is available, with no gradient through predictions that count nothing and are broken.

    What is nan at an example of weight 0 is left out of the loss; but its gradient would be the 0
    of the weight times a derivative that is nan, which is nan for every weight of the model. The
    values are not changed. An example is broken if its labels or predictions are not all finite.

    **Arguments:**

    - `fn`: the loss. Where it asks for a factor, it leaves out itself what that says.
    """
    ours = {"mask", "sample_weight"} - _asked_by(fn, available)
    all_given = [available[name] for name in sorted(ours) if available.get(name) is not None]
    given: list[Any] = [factor for factor in all_given if np.ndim(factor) > 0]
    y_pred, y_true = available.get("y_pred"), available.get("y_true")
    if not given or y_pred is None:
        return available
    rows = num_examples(available)
    factors = [jnp.asarray(factor) for factor in given if np.shape(factor)[0] == rows]
    has_rows = lambda leaf: is_inexact(leaf) and leaf.shape[:1] == (rows,)
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
    """Whether each counts, in a shape that broadcasts; by row where it has axes of its own."""
    if counts.shape == (*shape, 1):
        counts = counts[..., 0]
    if counts.shape != shape[: counts.ndim]:
        counts = counts.reshape(counts.shape[0], -1).any(axis=1)
    return jnp.broadcast_to(counts.reshape(counts.shape + (1,) * (len(shape) - counts.ndim)), shape)


def _product(factors: list[Array], value: Array) -> Array:
    product = jnp.ones_like(value)
    for factor in factors:
        none = (product == 0) | (factor == 0)  # padding may be nan, and so may its weight
        product = jnp.where(none, 0, product * factor.astype(value.dtype))
    return product


def _asked_by(fn: Callable[..., Any], available: Mapping[str, Any]) -> set[str]:
    """The factors that a loss asks for, and so applies itself."""
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
    """A factor in the rank of values of this shape."""
    given = available[factor]
    if factor == "mask":
        weight = row_mask(given, shape[0]).astype(jnp.float32)
    elif factor == "class_weight":
        weight = class_weights(given, available.get("y_true"), available["y_pred"])
    else:
        weight = jnp.asarray(given).astype(jnp.float32)
    if weight.ndim == len(shape) + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.ndim > len(shape) or shape[: weight.ndim] != weight.shape:
        raise ValueError(
            f"`{factor}` has shape {weight.shape}, but the loss `{name}` has values of shape "
            f"{shape}: give one weight per example, or one per value."
        )
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))


def class_weights(table: Any, y_true: Any, y_pred: Any) -> Array:
    """The weight of each label's class.

    **Arguments:**

    - `table`: one weight per class. Classes beyond its end weigh 1.
    - `y_true`: labels, as class indices or one-hot (then of the shape of `y_pred`).
    """
    if y_true is None or not hasattr(y_true, "shape"):
        raise ValueError(
            "`class_weight` needs `y_true` to be one array of labels: for several outputs, make "
            "the loss ask for `class_weight` by name."
        )
    labels = jnp.asarray(y_true)
    if labels.ndim > 1 and labels.shape[-1] > 1 and labels.shape == np.shape(y_pred):
        labels = jnp.argmax(labels, axis=-1)
    elif not jnp.issubdtype(labels.dtype, jnp.integer):
        labels = jnp.round(labels.astype(jnp.float32)).astype(jnp.int32)
    table = jnp.asarray(table)
    classes = np.shape(y_pred)[-1] if np.ndim(y_pred) == labels.ndim + 1 else None
    if classes is not None and 1 < classes < len(table):
        raise ValueError(
            f"`class_weight` has a weight for the class {len(table) - 1}, but there are {classes} "
            f"classes, 0 to {classes - 1}: drop the weights beyond those."
        )
    inside = (labels >= 0) & (labels < len(table))
    return jnp.where(inside, table[jnp.where(inside, labels, 0)], jnp.ones((), table.dtype))


def class_weight_table(class_weight: Any, y: Any = None) -> np.ndarray | None:
    """`class_weight` as given by people, a dict or an array, as a table of one weight per class.

    **Arguments:**

    - `y`: the labels that it is for, as given.

    **Raises:** `ValueError` when the keys of a dict are not class indices, or labels no classes.
    """
    if class_weight is None:
        return None
    _check_classes(y)
    if isinstance(class_weight, Mapping):
        try:
            indices = [int(key) for key in class_weight]
            exact = all(isinstance(k, str) or int(k) == k for k in class_weight)
        except (TypeError, ValueError):
            indices, exact = [], False
        if not indices and exact:
            return None
        if not exact or min(indices) < 0:
            raise ValueError(
                "The keys of `class_weight` must be class indices, 0, 1, ...; got "
                f"{list(class_weight)!r}."
            )
        table = np.ones(max(indices) + 1, np.float32)
        table[indices] = _numbers(list(class_weight.values()))
        return table
    table = _numbers(class_weight)
    if table.ndim != 1:
        raise ValueError(
            f"`class_weight` must hold one weight per class; got an array of shape {table.shape}."
        )
    return table


def _check_classes(y: Any) -> None:
    """Refuse labels that are no classes, where there are weights of classes.

    **Arguments:**

    - `y`: all labels, as the user gave them: indices, or one-hot, or 0 and 1.
    """
    if not hasattr(y, "dtype") or y.dtype.kind != "f":
        return
    labels = np.asarray(y)
    rows = labels.ndim > 1 and labels.shape[-1] > 1
    is_class = np.isclose(labels.sum(-1), 1) if rows else labels == np.round(labels)
    if not np.all(is_class):
        raise ValueError(
            "`class_weight` weighs examples by the class of their label, but `y` holds numbers "
            "that aren't classes: pass labels as integers or one-hot, or use `sample_weight`."
        )


def _numbers(values: Any) -> np.ndarray:
    given = np.asarray(values)
    if given.dtype.kind not in "biuf" or not np.all(np.isfinite(given) & (given >= 0)):
        raise ValueError(
            f"`class_weight` holds {values!r}, which aren't weights: give numbers >= 0, "
            "`{0: 1.0, 1: 5.0}`, or an array of one weight per class."
        )
    return given.astype(np.float32)
