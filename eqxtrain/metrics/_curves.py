"""Classification: the curves over all thresholds themselves."""

import abc
from typing import Any, ClassVar, final

import jax.numpy as jnp
import numpy as np

from ._pictures import ROC, PrecisionRecall
from ._ranking import RankingMetric, Row, divide


class _CurveMetric(RankingMetric):
    """A curve, as an array of three rows that has a column for each point."""

    def __check_init__(self) -> None:
        who = type(self).__name__
        if self.average not in ("auto", "micro"):
            raise ValueError(
                f"`{who}(average={self.average!r})` is not valid: choose `'auto'`, a curve for "
                "each class, or `'micro'`, one of all decisions."
            )
        if self.class_names is not None:
            raise ValueError(
                f"`{who}` logs all classes as one array, so it has no use for `class_names`: pass "
                "them to the `plot` of that array."
            )

    @abc.abstractmethod
    def points(self, positives: Row, negatives: Row, thresholds: Row) -> tuple[Any, Any, Any]:
        """The three rows, from the weight of both at each threshold."""

    def compute(self) -> Any:
        ranking = self.ranking()
        if ranking is None:
            return jnp.full((3, 1), jnp.nan)
        positives, negatives, thresholds = ranking
        xp = positives.__array_namespace__()
        if self.bins is None and self.from_logits:
            thresholds = _sigmoid(thresholds)
        curves = xp.stack(self.points(positives, negatives, thresholds))
        return xp.where((positives + negatives).sum() > 0, curves, xp.nan)


def _sigmoid(logits: Any) -> np.ndarray:
    """The probabilities of logits, or of log-odds, on the host."""
    return np.exp(-np.logaddexp(0, -logits))


def _with_first(first: float, row: Any) -> Any:
    """A row with another value in front."""
    xp = row.__array_namespace__()
    return xp.concat([xp.full_like(row[..., :1], first), row], axis=-1)


@final
class ROCCurve(_CurveMetric):
    """The receiver operating characteristic, as scikit-learn's `roc_curve`.

    Its value is an array of three rows, `fpr, tpr, thresholds = logs["roc_curve"]`, each of shape
    `(points,)` or, with several classes, `(classes, points)`: at each threshold, the share of
    negatives and of positives that score as high or higher. The first threshold is infinite. Points
    are not dropped where the curve is straight. A class with only positives or only negatives has
    nan. What `evaluate` returns draws itself: `logs["roc_curve"].plot(["cat", "dog", "eel"])`.

    Options are those of [`AUROC`][eqxtrain.metrics.AUROC], which is the area under it, but:

    **Arguments:**

    - `average`: `"auto"`, a curve for each class against the rest, or `"micro"`, one of all
        decisions together.
    - `bins`: how many thresholds between 0 and 1 there are. None for every score that occurs;
        shorter curves then repeat their last point.
    """

    array_class: ClassVar[type[np.ndarray]] = ROC

    def points(self, positives: Row, negatives: Row, thresholds: Row) -> tuple[Any, Any, Any]:
        fpr, tpr = (
            divide(_with_first(0.0, row.cumsum(-1)), row.sum(-1)[..., None])
            for row in (negatives, positives)
        )
        return fpr, tpr, _with_first(np.inf, thresholds)


@final
class PrecisionRecallCurve(_CurveMetric):
    """Precision and recall at each threshold, as scikit-learn's `precision_recall_curve`.

    Its value is an array of three rows, `precision, recall, thresholds = logs[...]`, each of shape
    `(points,)` or, with several classes, `(classes, points)`. Thresholds ascend; where no score is
    as high, precision is 1, as at the last, which is infinite. A class without positives has nan.
    What `evaluate` returns draws itself: `logs[...].plot(["cat", "dog", "eel"])`.

    Options are those of [`ROCCurve`][eqxtrain.metrics.ROCCurve].
    """

    array_class: ClassVar[type[np.ndarray]] = PrecisionRecall

    def points(self, positives: Row, negatives: Row, thresholds: Row) -> tuple[Any, Any, Any]:
        tp, fp = _with_first(0.0, positives.cumsum(-1)), _with_first(0.0, negatives.cumsum(-1))
        xp = tp.__array_namespace__()
        precision = xp.where(tp + fp == 0, 1, divide(tp, tp + fp))
        recall = divide(tp, tp[..., -1:])
        rows = precision, recall, _with_first(np.inf, thresholds)
        return tuple(xp.flip(row, axis=-1) for row in rows)
