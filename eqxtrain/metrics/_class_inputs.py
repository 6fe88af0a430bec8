"""What is compared in classification: predictions and labels of any form, as rows of classes."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from ._base import check_same_shape, is_concrete, mask_weights

Average = Literal["micro", "macro", "weighted", "none"]


class Decisions(NamedTuple):
    """One batch, with a row for each thing that was classified: example, token, pixel.

    **Arguments:**

    - `predicted`, `true`: of several classes, their indices `(rows,)`; of one class or several
        labels, booleans `(rows,)` or `(rows, labels)`.
    - `weight`: how much each of them counts.
    - `scores`: `(rows, classes)`, `(rows,)` or `(rows, labels)`; None where classes were predicted.
    - `classes`: how many, where there are indices; else None.
    - `outside`: where labels or predictions that count are no class.
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
    """Bring predictions and labels into one form. What is compared follows from the shapes.

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
    scores: Array | None = None if form == "indices" else p
    shaped = None if form == "one class" else p.shape[-1]
    classes = num_classes if form == "indices" else shaped
    if num_classes not in (None, classes):
        has = "scores of a single class" if classes is None else f"{classes} classes"
        raise ValueError(
            f"`{who}(num_classes={num_classes})` was given {has}, `y_pred` of shape {p.shape}: "
            "make them agree, or leave `num_classes` out."
        )
    if form == "one-hot" and ignore_index is not None:
        raise ValueError(
            f"`{who}(ignore_index={ignore_index})` needs labels that are indices, but these are "
            "one-hot: pass `y_true.argmax(-1)`."
        )
    p = jnp.argmax(p, axis=-1) if form in ("scores", "one-hot") else p
    t = jnp.argmax(t, axis=-1) if form == "one-hot" else t
    weight = mask_weights(mask, t.shape)
    if ignore_index is not None:
        wide = t.astype(jnp.int32 if _are_integers(t) else jnp.float32)
        weight = jnp.where(wide == ignore_index, 0, weight)
    if scores is not None and jnp.issubdtype(scores.dtype, jnp.inexact):
        is_nan = jnp.isnan(scores)
        is_nan = jnp.any(is_nan, axis=-1) if form in ("scores", "one-hot") else is_nan
        weight = jnp.where(is_nan & (weight != 0), jnp.nan, weight)
    if form in ("one class", "labels"):
        shape = (-1, p.shape[-1]) if form == "labels" else (-1,)
        outside = jnp.zeros(t.shape, bool) if t.dtype == jnp.bool_ else (t < 0) | (t > 1)
        scores = None if scores is None else scores.reshape(shape)
        p = p if p.dtype == jnp.bool_ else p.astype(jnp.float32) > float(threshold)
        t = (t.astype(jnp.float32) > 0.5) & (weight != 0)
    else:
        shape = (-1,)
        p, t = p.astype(jnp.int32), jnp.where(weight == 0, 0, t.astype(jnp.int32))
        top = jnp.iinfo(jnp.int32).max if classes is None else classes
        outside = (t < 0) | (t >= top) | (p < 0) | (p >= top)
        scores = None if scores is None else scores.reshape(-1, scores.shape[-1])
    p, t, weight, outside = (a.reshape(shape) for a in (p, t, weight, outside & (weight != 0)))
    return Decisions(p, t, weight, scores, None if form == "labels" else classes, outside)


def _form(who: str, p: Array, t: Array, multilabel: bool) -> str:
    """Which of the cases of `decide` it is."""
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
    """Refuse labels that are no class; a compiled program, which can't, makes all of them nan.

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
        predicted, true = (np.asarray(a)[np.asarray(d.outside)] for a in d[:2])
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
    inside = lambda index: jnp.where(d.outside, jnp.zeros((), index.dtype), index)
    return d._replace(predicted=inside(d.predicted), true=inside(d.true), weight=poisoned)


def tally(
    index: Integer[Array, "rows"], weight: Float[Array, "rows"], bins: int
) -> Float[Array, "bins"]:
    """The total weight that falls on each index. Indices outside are dropped."""
    empty = jnp.zeros(bins, jnp.float32)
    return empty.at[index].add(weight, mode="drop", wrap_negative_indices=False)


def probabilities(d: Decisions, *, from_logits: bool) -> Float[Array, "rows *classes"]:
    """The scores as probabilities in float32; nan where they are given as such, but are none."""
    assert d.scores is not None
    scores = d.scores.astype(jnp.float32)
    real = (d.weight != 0).reshape(d.weight.shape + (1,) * (scores.ndim - d.weight.ndim))
    scores = jnp.where(real, scores, 0)
    if from_logits:
        return jax.nn.softmax(scores) if d.classes else jax.nn.sigmoid(scores)
    return jnp.where((scores >= 0) & (scores <= 1), scores, jnp.nan)


def ranking_scores(d: Decisions, *, from_logits: bool) -> Float[Array, "rows *classes"]:
    """What orders the scores as their probabilities are ordered, without the ties of rounding.

    Float32 probabilities of logits above 17 are all 1. The logits themselves are still apart; of
    several classes, their log-odds `log(p / (1 - p))` are, since softmax compares with the others.
    """
    if not from_logits:
        return probabilities(d, from_logits=False)
    assert d.scores is not None
    scores = d.scores if d.scores.dtype == jnp.float64 else d.scores.astype(jnp.float32)
    real = (d.weight != 0).reshape(d.weight.shape + (1,) * (scores.ndim - d.weight.ndim))
    scores = jnp.where(real, scores, 0)
    return _log_odds(scores) if d.classes else scores


def _log_odds(logits: Float[Array, "rows classes"]) -> Float[Array, "rows classes"]:
    """Each logit less the `logsumexp` of the others, to the last digits however near 1 or 0 p is.

    For the largest logit it is summed without it. For any other one that term can be subtracted
    from the whole sum, of which it is at most half.
    """
    first = jnp.max(logits, axis=-1, keepdims=True)
    index = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, :]
    is_first = index == jnp.argmax(logits, axis=-1).astype(jnp.int32)[:, None]
    without = jax.nn.logsumexp(jnp.where(is_first, -jnp.inf, logits), axis=-1, keepdims=True)
    terms = jnp.exp(logits - first)
    less = jnp.sum(terms, axis=-1, keepdims=True) - terms
    return logits - jnp.where(is_first, without, first + jnp.log(jnp.where(is_first, 1, less)))


def warning_about_labels(who: str, seen: Any, *, from_logits: bool | None = None) -> str | None:
    """What a metric says of accumulators that are nan.

    **Arguments:**

    - `from_logits`: whether scores are taken as logits; None where any are good.
    """
    arrays = [a for a in jax.tree.leaves(seen) if jnp.issubdtype(a.dtype, jnp.inexact)]
    if not any(np.isnan(np.asarray(array)).any() for array in arrays):
        return None
    reasons = "a score that is nan, or a label that is not one of its classes"
    if from_logits is False:
        reasons += ", or a score that is not a probability (for logits, set `from_logits=True`)"
    return f"is nan: `{who}` was given {reasons}"


def require_scores(who: str, d: Decisions) -> Decisions:
    """Refuse predictions that are classes already."""
    if d.scores is None or d.scores.dtype == jnp.bool_:
        raise ValueError(
            f"`{who}` needs scores, but `y_pred` holds decisions of dtype {d.predicted.dtype}: "
            "pass probabilities or logits."
        )
    return d
