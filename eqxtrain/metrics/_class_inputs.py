"""The inputs of classification metrics: predictions and labels of any form, as decisions."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from .._placement import as_numpy
from ._base import check_same_shape, is_concrete
from ._masks import mask_weights

Average = Literal["micro", "macro", "weighted", "none"]

InputForm = Literal["labels", "scores", "indices", "one-hot", "one class"]


class Decisions(NamedTuple):
    """One batch, with a row for each thing that was classified: example, token, pixel.

    **Arguments:**

    - `predicted`, `true`: with several classes, their indices, `(rows,)`; with one class or
        several labels, booleans, `(rows,)` or `(rows, labels)`.
    - `weight`: how much each of them counts.
    - `scores`: `(rows, classes)`, `(rows,)` or `(rows, labels)`; None if classes were predicted.
    - `classes`: how many classes there are, if `predicted` and `true` are indices; else None.
    - `outside`: where a label or prediction that counts is not a class.
    """

    predicted: Array
    true: Array
    weight: Float[Array, "..."]
    scores: Array | None
    classes: int | None
    outside: Bool[Array, "..."]


def decide(
    who: str,
    y_pred: Any,
    y_true: Any,
    mask: Any = None,
    *,
    num_classes: int | None = None,
    threshold: float = 0.5,
    multilabel: bool = False,
    ignore_index: int | None = None,
) -> Decisions:
    """Bring predictions and labels into one form. Their shapes decide what is compared.

    - `multilabel`: both `(batch, ..., labels)`, `y_pred > threshold` against `y_true`;
    - `y_pred` `(batch, ..., classes)` and integer `y_true` `(batch, ...)`: the largest score
      against the index;
    - both integers of one shape: indices of classes;
    - `y_true` one-hot, of the shape of `y_pred` with at least two classes on the last axis: the
      largest of each;
    - otherwise both of one shape, `(batch,)` or `(batch, ..., 1)`: `y_pred > threshold` against
      `y_true`.
    """
    p, t = jnp.asarray(y_pred), jnp.asarray(y_true)
    form = _form(who, p, t, multilabel)
    if form != "indices":
        _check_num_classes(who, num_classes, p, None if form == "one class" else p.shape[-1])
    if form == "one-hot":
        if ignore_index is not None:
            raise ValueError(
                f"`{who}(ignore_index={ignore_index})` needs labels that are indices, but these "
                "are one-hot: pass `y_true.argmax(-1)`."
            )
        t = jnp.argmax(t, axis=-1)
    weight = mask_weights(mask, t.shape)
    if ignore_index is not None:
        wide = t.astype(jnp.int32 if _are_integers(t) else jnp.float32)  # or -1 would wrap
        weight = jnp.where(wide == ignore_index, 0, weight)
    if form == "indices":
        return _from_indices(p, t, weight, num_classes)
    if form in ("scores", "one-hot"):
        return _from_scores(p, t, weight)
    return _from_thresholds(p, t, weight, threshold, multilabel)


def _from_indices(predicted: Array, true: Array, weight: Array, classes: int | None) -> Decisions:
    """Decisions where predictions and labels are both indices of classes."""
    predicted = predicted.astype(jnp.int32)
    true = jnp.where(weight == 0, 0, true.astype(jnp.int32))
    end = jnp.iinfo(jnp.int32).max if classes is None else classes
    outside = (true < 0) | (true >= end) | (predicted < 0) | (predicted >= end)
    rows = (a.reshape(-1) for a in (predicted, true, weight, outside & (weight != 0)))
    predicted, true, weight, outside = rows
    return Decisions(predicted, true, weight, None, classes, outside)


def _from_scores(scores: Array, true: Array, weight: Array) -> Decisions:
    """Decisions for the class with the largest score, where labels are indices of classes."""
    classes = scores.shape[-1]
    weight = _nan_where(jnp.any(_is_nan(scores), axis=-1), weight)
    decisions = _from_indices(jnp.argmax(scores, axis=-1), true, weight, classes)
    return decisions._replace(scores=scores.reshape(-1, classes))


def _from_thresholds(
    scores: Array, true: Array, weight: Array, threshold: float, multilabel: bool
) -> Decisions:
    """Decisions by a threshold: for one class, or for each of several independent labels."""
    weight = _nan_where(_is_nan(scores), weight)
    shape = (-1, scores.shape[-1]) if multilabel else (-1,)
    outside = jnp.zeros(true.shape, bool) if true.dtype == jnp.bool_ else (true < 0) | (true > 1)
    is_bool = scores.dtype == jnp.bool_
    predicted = scores if is_bool else scores.astype(jnp.float32) > float(threshold)
    true = (true.astype(jnp.float32) > 0.5) & (weight != 0)
    rows = (a.reshape(shape) for a in (predicted, true, weight, scores, outside & (weight != 0)))
    predicted, true, weight, scores, outside = rows
    return Decisions(predicted, true, weight, scores, None, outside)


def _is_nan(scores: Array) -> Array:
    is_inexact = jnp.issubdtype(scores.dtype, jnp.inexact)
    return jnp.isnan(scores) if is_inexact else jnp.zeros(scores.shape, bool)


def _nan_where(condition: Array, weight: Array) -> Array:
    """A weight that makes the whole metric nan where a score that counts is nan."""
    return jnp.where(condition & (weight != 0), jnp.nan, weight)


def _check_num_classes(who: str, num_classes: int | None, p: Array, classes: int | None) -> None:
    if num_classes in (None, classes):
        return
    has = "scores of a single class" if classes is None else f"{classes} classes"
    raise ValueError(
        f"`{who}(num_classes={num_classes})` was given {has}, `y_pred` of shape {p.shape}: make "
        "them agree, or leave `num_classes` out."
    )


def _form(who: str, p: Array, t: Array, multilabel: bool) -> InputForm:
    """Which of the forms of `decide` the inputs have."""
    if multilabel:
        check_same_shape(who, p, t)
        if p.ndim < 2:
            raise ValueError(
                f"`{who}(multilabel=True)` compares arrays of shape `(batch, labels)`; got "
                f"{p.shape}."
            )
        return "labels"
    if p.ndim == t.ndim + 1 and p.shape[-1] > 1:
        if not _are_integers(t):
            raise ValueError(
                f"`{who}` compares {p.shape[-1]} scores with the index of a class, but `y_true` is "
                f"{t.dtype}: cast the labels to int32."
            )
        if p.shape[:-1] == t.shape:
            return "scores"
    check_same_shape(who, p, t)
    if _are_integers(p, t):
        return "indices"
    return "one-hot" if p.ndim > 1 and p.shape[-1] > 1 else "one class"


def _are_integers(*arrays: Array) -> bool:
    return all(jnp.issubdtype(array.dtype, jnp.integer) for array in arrays)


def check_classes(who: str, d: Decisions, *, count: bool = True) -> Decisions:
    """Refuse labels that are not classes. A compiled program can't, and makes the metric nan.

    **Arguments:**

    - `count`: whether the number of classes must be known.
    """
    uncounted = d.classes is None and jnp.issubdtype(d.predicted.dtype, jnp.integer)
    if uncounted and count:
        raise ValueError(
            f"`{who}` was given class indices, but not how many there are: pass "
            f"`{who}(num_classes=...)` (or booleans, where there is only one class)."
        )
    if is_concrete(d.outside) and bool(jnp.any(d.outside)):
        if d.classes is None:
            raise ValueError(
                f"`{who}` of a single class takes labels of 0 or 1, but others are among them: "
                "check how the labels are made."
            )
        predicted, true = (as_numpy(a)[as_numpy(d.outside)] for a in d[:2])
        wrong = next((int(c) for c in true if not 0 <= c < d.classes), None)
        if wrong is None:
            predicted = next(int(c) for c in predicted if not 0 <= c < d.classes)
            raise ValueError(
                f"`{who}` was given {predicted} as a prediction, but there are {d.classes} "
                f"classes, 0 to {d.classes - 1}: check how `y_pred` is made."
            )
        raise ValueError(
            f"`{who}` was given the class {wrong}, but there are {d.classes}, 0 to "
            f"{d.classes - 1}: check how the labels are made, or leave it out with "
            f"`ignore_index={wrong}`."
        )
    poisoned = jnp.where(jnp.any(d.outside), jnp.nan, d.weight)
    predicted, true = (
        jnp.where(d.outside, jnp.zeros((), index.dtype), index) for index in (d.predicted, d.true)
    )
    return d._replace(predicted=predicted, true=true, weight=poisoned)


def tally(
    index: Integer[Array, "rows"], weight: Float[Array, "rows"], bins: int
) -> Float[Array, "bins"]:
    """The total weight of each index. Indices out of range are dropped."""
    empty = jnp.zeros(bins, jnp.float32)
    return empty.at[index].add(weight, mode="drop", wrap_negative_indices=False)


def probabilities(d: Decisions, *, from_logits: bool) -> Float[Array, "rows *classes"]:
    """The scores as float32 probabilities; nan for one that is out of range."""
    assert d.scores is not None
    scores = d.scores.astype(jnp.float32)
    real = (d.weight != 0).reshape(d.weight.shape + (1,) * (scores.ndim - d.weight.ndim))
    scores = jnp.where(real, scores, 0)
    if from_logits:
        return jax.nn.softmax(scores) if d.classes else jax.nn.sigmoid(scores)
    return jnp.where((scores >= 0) & (scores <= 1), scores, jnp.nan)


def ranking_scores(d: Decisions, *, from_logits: bool) -> Float[Array, "rows *classes"]:
    """Numbers in the same order as the probabilities, but without ties from rounding.

    The float32 probabilities of logits above 17 are all 1. The logits themselves still differ; so,
    with several classes, do their log-odds `log(p / (1 - p))`, since softmax is relative.
    """
    if not from_logits:
        return probabilities(d, from_logits=False)
    assert d.scores is not None
    scores = d.scores if d.scores.dtype == jnp.float64 else d.scores.astype(jnp.float32)
    real = (d.weight != 0).reshape(d.weight.shape + (1,) * (scores.ndim - d.weight.ndim))
    scores = jnp.where(real, scores, 0)
    return _log_odds(scores) if d.classes else scores


def _log_odds(logits: Float[Array, "rows classes"]) -> Float[Array, "rows classes"]:
    """Each logit minus the `logsumexp` of the others, accurate however near 0 or 1 p is.

    For the largest logit, the others are summed directly. For any other logit, its own term is
    subtracted from the sum of all, of which it is at most half, so nothing cancels.
    """
    first = jnp.max(logits, axis=-1, keepdims=True)
    index = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, :]
    is_first = index == jnp.argmax(logits, axis=-1).astype(jnp.int32)[:, None]
    without = jax.nn.logsumexp(jnp.where(is_first, -jnp.inf, logits), axis=-1, keepdims=True)
    terms = jnp.exp(logits - first)
    others = jnp.sum(terms, axis=-1, keepdims=True) - terms
    return logits - jnp.where(is_first, without, first + jnp.log(jnp.where(is_first, 1, others)))


def warning_about_labels(who: str, seen: Any, *, from_logits: bool | None = None) -> str | None:
    """The warning of a metric whose accumulators are nan.

    **Arguments:**

    - `from_logits`: whether scores are taken to be logits; None if any scores will do.
    """
    arrays = [a for a in jax.tree.leaves(seen) if jnp.issubdtype(a.dtype, jnp.inexact)]
    if not any(np.isnan(as_numpy(array)).any() for array in arrays):
        return None
    reasons = "a score that is nan, or a label that is not one of its classes"
    if from_logits is False:
        reasons += ", or a score that is not a probability (for logits, set `from_logits=True`)"
    return f"is nan: `{who}` was given {reasons}"


def require_scores(who: str, d: Decisions) -> Decisions:
    """Refuse predictions that are decisions already."""
    if d.scores is None or d.scores.dtype == jnp.bool_:
        raise ValueError(
            f"`{who}` needs scores, but `y_pred` holds decisions of dtype {d.predicted.dtype}: "
            "pass probabilities or logits."
        )
    return d
