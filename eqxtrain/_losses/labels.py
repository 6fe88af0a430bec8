"""Checks for mistakes in labels that optax's losses would not notice, or not explain."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

from .._placement import as_numpy
from ..metrics._base import is_concrete
from ..metrics._masks import mask_weights

_INDICES = (
    optax.losses.softmax_cross_entropy_with_integer_labels,
    optax.losses.multiclass_hinge_loss,
    optax.losses.multiclass_perceptron_loss,
    optax.losses.multiclass_sparsemax_loss,
)
"""Losses of scores `(batch, ..., classes)` and class indices `(batch, ...)`."""

_DISTRIBUTIONS = (
    optax.losses.softmax_cross_entropy,
    optax.losses.safe_softmax_cross_entropy,
    optax.losses.poly_loss_cross_entropy,
    optax.losses.kl_divergence,
)
"""Losses of scores `(batch, ..., classes)` and one-hot labels or probabilities of that shape."""

_ELEMENTWISE = (
    optax.losses.squared_error,
    optax.losses.l2_loss,
    optax.losses.huber_loss,
    optax.losses.log_cosh,
    optax.losses.sigmoid_binary_cross_entropy,
    optax.losses.sigmoid_focal_loss,
    optax.losses.hinge_loss,
    optax.losses.perceptron_loss,
    optax.losses.sparsemax_loss,
    optax.losses.cosine_distance,
)
"""Losses of predictions and labels of one shape."""


def check_labels(
    fn: Callable[..., Any], name: str, available: Mapping[str, Any], *, compiled: bool
) -> Mapping[str, Any]:
    """Refuse labels that don't fit one of optax's losses.

    **Arguments:**

    - `compiled`: whether to check the values of labels in a compiled step, too.

    **Returns:** what is available, with labels that carry the check.
    """
    fn = _optax_loss(fn)
    y_pred: Any = available.get("y_pred")
    y_true: Any = available.get("y_true")
    if not hasattr(y_pred, "dtype") or not hasattr(y_true, "dtype"):
        return available
    p, t = tuple(np.shape(y_pred)), tuple(np.shape(y_true))
    if fn in _INDICES:
        _check_indices(name, p, t, y_true)
        return {**available, "y_true": _check_range(name, available, p[-1], compiled)}
    if fn in _DISTRIBUTIONS and p != t:
        raise ValueError(
            f"The loss `{name}` compares scores of shape {p} with one-hot labels or probabilities "
            f"of the same shape, but `y_true` has shape {t}: for class indices, use "
            "`optax.softmax_cross_entropy_with_integer_labels`."
        )
    if fn in _ELEMENTWISE and p != t:
        raise ValueError(
            f"The loss `{name}` compares element by element, but `y_pred` has shape {p} and "
            f"`y_true` has shape {t}: give both the same shape (`y[:, None]` adds the axis of a "
            "single output)."
        )
    return available


def _optax_loss(fn: Any) -> Any:
    """The optax loss inside a function that may be compiled or have options bound; or None."""
    while True:
        if any(fn is one for one in (*_INDICES, *_DISTRIBUTIONS, *_ELEMENTWISE)):
            return fn
        if isinstance(fn, functools.partial):
            if fn.args or "where" in fn.keywords or fn.keywords.get("axis", -1) != -1:
                return None
            fn = fn.func
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            return None


def _check_indices(name: str, p: tuple[int, ...], t: tuple[int, ...], y_true: Any) -> None:
    if p == t:
        raise ValueError(
            f"The loss `{name}` takes class indices, but `y_true` has the scores' own shape, {t}, "
            "as one-hot labels have: pass `y.argmax(-1)`, or use `optax.softmax_cross_entropy`."
        )
    if t == (*p[:-1], 1):
        raise ValueError(
            f"The loss `{name}` takes one class index for each row of scores {p}, but `y_true` "
            f"has shape {t}: drop its last axis, `y[..., 0]`."
        )
    if t != p[:-1]:
        raise ValueError(
            f"The loss `{name}` takes scores `(batch, ..., classes)` and indices `(batch, ...)`, "
            f"but `y_pred` has shape {p} and `y_true` has shape {t}: make them agree up to the "
            "axis of classes."
        )
    if not jnp.issubdtype(y_true.dtype, jnp.integer):
        raise TypeError(
            f"The loss `{name}` takes class indices, which are integers, but `y_true` is "
            f"{y_true.dtype}: pass `y.astype(np.int32)`."
        )


def _check_range(name: str, available: Mapping[str, Any], classes: int, compiled: bool) -> Any:
    """The labels, with an error if one that counts is not a class."""
    y_true = available["y_true"]
    counts = jnp.ones(np.shape(y_true), bool)
    for factor in ("mask", "sample_weight"):
        if available.get(factor) is not None and np.ndim(available[factor]) <= np.ndim(y_true):
            counts = counts & (mask_weights(available[factor], counts.shape) != 0)
    labels = jnp.asarray(y_true)
    outside = ((labels < 0) | (labels >= classes)) & counts
    remedy = (
        "count classes from 0, or give the labels to leave out a `sample_weight` of 0 (one for "
        "each token, if need be)."
    )
    if is_concrete(outside):
        if bool(outside.any()):
            wrong = int(as_numpy(labels)[as_numpy(outside)][0])
            raise ValueError(
                f"The loss `{name}` was given the label {wrong}, but there are {classes} classes, "
                f"0 to {classes - 1}: {remedy}"
            )
        return y_true
    if not compiled:
        return y_true
    message = f"The loss `{name}` was given a label outside of its {classes} classes: {remedy}"
    return eqx.error_if(labels, outside, message)
