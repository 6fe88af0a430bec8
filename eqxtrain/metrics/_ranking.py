"""Classification: the ranking of scores, over all thresholds, and what follows from it.

Scores are counted in bins, or gathered and then sorted. Either way, a ranking is a row of positives
and a row of negatives, from the highest score to the lowest. Those in the same place are tied.
"""

import abc
from typing import Any, ClassVar, NamedTuple, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._check import check_real_number, whole_number
from .._placement import as_numpy
from .._types import Self
from ._class_inputs import probabilities, ranking_scores, tally, warning_about_labels
from ._compensated import CompensatedSum
from ._gather import Gather
from ._precision_recall import ClassMetric, average_over, by_class

Row = Float[Array, "*classes thresholds"] | Float[np.ndarray, "*classes thresholds"]


class Ranking(NamedTuple):
    """Scores from the highest to the lowest, those of each class in a row.

    **Arguments:**

    - `positives`, `negatives`: the weight of both at each threshold.
    - `thresholds`: the lowest score that counts as positive there.
    """

    positives: Row
    negatives: Row
    thresholds: Row


_CROWDED = 0.2
"""We warn when more than this share of pairs, a positive and a negative, are in the same bin."""


class RankingMetric(ClassMetric):
    """What follows from the ranking of each class; with several classes, each against the rest."""

    bins: int | None = eqx.field(default=200, static=True, kw_only=True)
    from_logits: bool = eqx.field(default=False, static=True, kw_only=True)
    seen: Any = eqx.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins is not None:
            whole_number(f"{type(self).__name__}(bins)", self.bins, at_least=2)
        if self.seen is None and self.bins is None:
            self.seen = Gather()
        elif self.seen is None:
            known = self.num_classes is not None
            self.seen = CompensatedSum.zeros((2, self.num_classes, self.bins) if known else ())  # pyright: ignore[reportArgumentType]

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        d = self._decide(y_pred, y_true, mask, scored=True)
        scores = ranking_scores if self.bins is None else probabilities  # bins are of probabilities
        p, true, weight = scores(d, from_logits=self.from_logits), d.true, d.weight
        if d.classes:
            true = true[:, None] == jnp.arange(d.classes, dtype=jnp.int32)[None, :]
            weight = jnp.broadcast_to(weight[:, None], p.shape)
        weight = jnp.where(jnp.isnan(p), jnp.nan, weight)
        if self.bins is None:
            new: Any = Gather.of((p, true, weight))
        else:
            new = CompensatedSum.of(_histograms(p, true, weight, self.bins))
        return self.replace(seen=self.seen.merge(new))

    def ranking(self) -> Ranking | None:
        """The ranking of each class, or of all decisions together; None if nothing was seen."""
        micro = self.average == "micro"
        return _binned(self.seen, micro) if self.bins else _exact(self.seen, micro)

    def warning(self) -> str | None:
        about_nan = warning_about_labels(
            type(self).__name__, self.seen, from_logits=self.from_logits
        )
        if about_nan or self.bins is None or jnp.ndim(self.seen.value) == 0:
            return about_nan
        positives, negatives = as_numpy(self.seen.total()).astype(np.float64)
        pairs = positives.sum(-1) * negatives.sum(-1)
        tied = (positives * negatives).sum(-1) / np.where(pairs == 0, 1, pairs)
        if np.max(tied) <= _CROWDED:
            return None
        return (
            f"is only approximate: the scores crowd into a few of the {self.bins} bins. For the "
            f"exact value, use `{type(self).__name__}(bins=None)`"
        )


class _RankingScore(RankingMetric):
    """A number that follows from the ranking of each class, and their average."""

    higher_is_better: ClassVar[bool | None] = True

    @abc.abstractmethod
    def score(self, positives: Row, negatives: Row) -> Any:
        """The formula, from the weight of both at each threshold; nan where there is no curve."""

    def compute(self) -> Any:
        ranking = self.ranking()
        if ranking is None:
            classes = self.num_classes or len(self.class_names or ())
            nothing = jnp.full((classes,), jnp.nan) if self.average == "none" and classes else None
            return jnp.full((), jnp.nan) if nothing is None else by_class(nothing, self.class_names)
        positives, negatives, _ = ranking
        if positives.ndim == 1 and self.average not in ("auto", "micro"):
            xp = positives.__array_namespace__()  # the other class is the mirror image
            mirrored = xp.stack([negatives[::-1], positives])
            positives, negatives = mirrored, xp.stack([positives[::-1], negatives])
        scores = jnp.asarray(self.score(positives, negatives)).astype(jnp.float32)
        support = jnp.asarray(positives.sum(-1)).astype(jnp.float32)
        if scores.ndim == 0:
            return scores
        is_known = ~jnp.isnan(jnp.asarray(positives.sum() + negatives.sum()))
        defined = ~(jnp.isnan(scores) & is_known)
        result = average_over(self.average, scores, support, defined)
        return by_class(result, self.class_names) if self.average == "none" else result


def _histograms(
    p: Float[Array, "rows *classes"],
    true: Bool[Array, "rows *classes"],
    weight: Float[Array, "rows *classes"],
    bins: int,
) -> Float[Array, "2 *classes bins"]:
    """The weight of positives and of negatives, in bins of equal width over [0, 1]."""
    shape = (2, *p.shape[1:], bins)
    index = jnp.clip((jnp.where(jnp.isnan(p), 0, p) * bins).astype(jnp.int32), 0, bins - 1)
    if p.ndim > 1:
        index = index + bins * jnp.arange(p.shape[1], dtype=jnp.int32)[None, :]
    index = index + (~true).astype(jnp.int32) * int(np.prod(shape[1:]))
    return tally(index.reshape(-1), weight.reshape(-1), int(np.prod(shape))).reshape(shape)


def _binned(seen: CompensatedSum, micro: bool) -> Ranking | None:
    counts = seen.total()
    if counts.ndim == 0:
        return None
    bins = counts.shape[-1]
    thresholds = jnp.arange(bins, dtype=jnp.float32)[::-1] / bins
    positives, negatives = counts[..., ::-1]
    if micro and positives.ndim > 1:
        positives, negatives = positives.sum(0), negatives.sum(0)
    return Ranking(positives, negatives, jnp.broadcast_to(thresholds, positives.shape))


def _exact(seen: Gather, micro: bool) -> Ranking | None:
    """The exact ranking, in float64 on the host; shorter rows are padded with weights of zero."""
    if seen.values is None:
        return None
    p, true, weight = (as_numpy(leaf) for leaf in seen.compute())
    weight = weight.astype(np.float64)
    if micro:
        p, true, weight = (a.reshape(-1) for a in (p, true, weight))
    rows = [_rank(*column) for column in zip(*map(_columns, (p, true, weight)), strict=True)]
    length = max(len(row.positives) for row in rows)
    padded = [_padded(row, length) for row in rows]
    if p.ndim == 1:
        return padded[0]
    return Ranking._make(np.stack(columns) for columns in zip(*padded, strict=True))


def _columns(a: np.ndarray) -> list[np.ndarray]:
    return list(a.T) if a.ndim > 1 else [a]


def _rank(p: np.ndarray, true: np.ndarray, weight: np.ndarray) -> Ranking:
    order = np.argsort(-p, kind="stable")
    order = order[weight[order] != 0]  # padding, for one
    p, true, weight = p[order], true[order], weight[order]
    starts = np.flatnonzero(np.concatenate([[True], p[1:] != p[:-1]])[: len(p)])
    if not len(starts):
        return Ranking(*np.zeros((3, 1)))
    positives, negatives = np.where(true, weight, 0), np.where(true, 0, weight)
    sums = (np.add.reduceat(weights, starts) for weights in (positives, negatives))
    return Ranking(*sums, thresholds=p[starts])


def _padded(row: Ranking, length: int) -> Ranking:
    more = (0, length - len(row.positives))
    positives, negatives = (np.pad(weights, more) for weights in row[:2])
    return Ranking(positives, negatives, np.pad(row.thresholds, more, mode="edge"))


def divide(a: Any, b: Any) -> Any:
    """`a / b`, and nan where `b` is 0, in the array library and precision of `b`."""
    xp = b.__array_namespace__()
    return xp.where(b == 0, xp.nan, a / xp.where(b == 0, 1, b))


@final
class AUROC(_RankingScore):
    """The area under the receiver operating characteristic, as in scikit-learn's `roc_auc_score`.

    It is the probability that a positive has a higher score than a negative, where ties count half.
    Scores in one bin are tied. So it differs from the exact value by at most half the share of
    pairs, a positive and a negative, that are in the same bin. With several classes, each is
    compared with the rest. A class with only positives or only negatives has no curve, and is left
    out.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric] (with scores of a single
    class, `"micro"` is the value of class 1), and:

    **Arguments:**

    - `bins`: how many bins of equal width probabilities are counted in. None gathers all scores and
        gives the exact value; logits are then ranked as they are, however far from 0.
    - `from_logits`: whether `y_pred` are logits. If not, they must be probabilities; outside of
        [0, 1] they make the result nan.
    """

    def score(self, positives: Row, negatives: Row) -> Any:
        above = positives.cumsum(-1) - positives
        pairs = (negatives * (above + positives / 2)).sum(-1)
        return divide(pairs, positives.sum(-1) * negatives.sum(-1))


@final
class AveragePrecision(_RankingScore):
    """The mean of precision over positives, `Σ ΔR·P`, as in scikit-learn.

    Scores in one bin are tied. So with equal weights, it differs from the exact value by at most
    `Σ (p/P)·max(n, p - 1) / (TP + FP)` over bins of p positives and n negatives, where TP and FP
    count this bin and those above. A class without positives has no curve, and is left out.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric], and:

    **Arguments:**

    - `bins`, `from_logits`: as for [`AUROC`][eqxtrain.metrics.AUROC].
    """

    def score(self, positives: Row, negatives: Row) -> Any:
        return divide((positives * _precision(positives, negatives)).sum(-1), positives.sum(-1))


def _precision(positives: Row, negatives: Row) -> Any:
    """The precision at each threshold; 0 where no score is above it."""
    tp, fp = positives.cumsum(-1), negatives.cumsum(-1)
    xp = tp.__array_namespace__()
    return tp / xp.where(tp + fp == 0, 1, tp + fp)


def _recall(positives: Row) -> Any:
    return divide(positives.cumsum(-1), positives.sum(-1)[..., None])


@final
class PrecisionAtRecall(_RankingScore):
    """The highest precision at a threshold that finds at least the share `recall`.

    As torchmetrics' `PrecisionAtFixedRecall`. (Keras takes the threshold whose recall is nearest.)

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric], and:

    **Arguments:**

    - `recall`: the share of positives to be found.
    - `bins`, `from_logits`: as for [`AUROC`][eqxtrain.metrics.AUROC].
    """

    recall: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_real_number("PrecisionAtRecall(recall)", self.recall, at_least=0, at_most=1)

    def score(self, positives: Row, negatives: Row) -> Any:
        recall = _recall(positives)
        xp = recall.__array_namespace__()
        best = xp.where(recall >= self.recall, _precision(positives, negatives), 0).max(-1)
        return xp.where(xp.isnan(recall[..., 0]), xp.nan, best)


@final
class RecallAtPrecision(_RankingScore):
    """The highest recall at a threshold where at least the share `precision` is right; else 0.

    As Keras's metric of this name, and torchmetrics' `RecallAtFixedPrecision`.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric], and:

    **Arguments:**

    - `precision`: the share of those above the threshold that is to be right.
    - `bins`, `from_logits`: as for [`AUROC`][eqxtrain.metrics.AUROC].
    """

    precision: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_real_number("RecallAtPrecision(precision)", self.precision, at_least=0, at_most=1)

    def score(self, positives: Row, negatives: Row) -> Any:
        recall = _recall(positives)
        xp = recall.__array_namespace__()
        best = xp.where(_precision(positives, negatives) >= self.precision, recall, 0).max(-1)
        return xp.where(xp.isnan(recall[..., 0]), xp.nan, best)
