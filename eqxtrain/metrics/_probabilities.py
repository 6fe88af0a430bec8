"""Classification: how good the probabilities are."""

from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import whole_number
from .._types import Self
from ._base import Metric
from ._class_inputs import (
    Decisions,
    check_classes,
    decide,
    probabilities,
    require_scores,
    tally,
    warning_about_labels,
)
from ._compensated import CompensatedSum
from ._modes import Mean
from ._pictures import Calibration


class _LikelihoodMetric(Metric):
    """The mean of `-log p(true class)`."""

    higher_is_better: ClassVar[bool | None] = False

    from_logits: bool = eqx.field(default=False, static=True, kw_only=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    loss: Mean = eqx.field(default_factory=Mean, kw_only=True)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        d = _decide_with_scores(type(self).__name__, y_pred, y_true, mask, self.ignore_index)
        log_p = _log_probability(d, self.from_logits)
        return self.replace(loss=self.loss.merge(Mean.of(-log_p, d.weight)))

    def warning(self) -> str | None:
        return warning_about_labels(type(self).__name__, self.loss, from_logits=self.from_logits)


def _decide_with_scores(
    who: str, y_pred: Any, y_true: Any, mask: Any, ignore_index: int | None
) -> Decisions:
    d = decide(who, y_pred, y_true, mask, ignore_index=ignore_index)
    return check_classes(who, require_scores(who, d))


def _log_probability(d: Decisions, from_logits: bool) -> Float[Array, "rows"]:
    """The logarithm of the probability that was given to the true class."""
    assert d.scores is not None
    if from_logits and d.classes:
        log_p = jax.nn.log_softmax(d.scores.astype(jnp.float32))
    elif from_logits:
        signed = jnp.where(d.true, d.scores, -d.scores).astype(jnp.float32)
        return jax.nn.log_sigmoid(signed)
    else:
        p = probabilities(d, from_logits=False)
        p = p if d.classes else jnp.where(d.true, p, 1 - p)
        log_p = jnp.log(jnp.clip(p, jnp.finfo(jnp.float32).eps, 1))
    if not d.classes:
        return log_p
    return jnp.take_along_axis(log_p, d.true[:, None], axis=-1, mode="clip")[:, 0]


@final
class LogLoss(_LikelihoodMetric):
    """The mean of `-log p(true class)` over what is classified, as in scikit-learn.

    Probabilities are kept at float32's `eps` or more. Tokens and pixels are counted one by one.

    **Arguments:**

    - `from_logits`: whether `y_pred` are logits. If not, they must be probabilities; outside of
        [0, 1] they make the log loss nan.
    - `ignore_index`: a label that is not counted.
    """

    def compute(self) -> Float[Array, ""]:
        return self.loss.compute()


@final
class Perplexity(_LikelihoodMetric):
    """`exp` of the mean of `-log p(true token)` over tokens, as in torchmetrics.

    **Arguments:**

    - `from_logits`: whether `y_pred` `(batch, ..., tokens, vocabulary)` are logits. If not, they
        must be probabilities; outside of [0, 1] they make the perplexity nan.
    - `ignore_index`: a label that is not counted, such as that of padding. (Alternatively, use
        `Weighted` and a `sample_weight` of rank 2.)
    """

    def compute(self) -> Float[Array, ""]:
        return jnp.exp(self.loss.compute())


class _CalibrationMetric(Metric):
    """Confidence and how often it is right, over bins of confidence."""

    bins: int = eqx.field(default=15, static=True)
    from_logits: bool = eqx.field(default=False, static=True, kw_only=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    counts: Any = eqx.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        whole_number(f"{type(self).__name__}(bins)", self.bins, at_least=1)
        if self.counts is None:
            self.counts = CompensatedSum.zeros((3, self.bins))

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        who = type(self).__name__
        d = _decide_with_scores(who, y_pred, y_true, mask, self.ignore_index)
        p = probabilities(d, from_logits=self.from_logits)
        confidence = jnp.max(p, axis=-1) if d.classes else p
        right = (d.predicted == d.true if d.classes else d.true).astype(jnp.float32)
        index = jnp.clip((confidence * self.bins).astype(jnp.int32), 0, self.bins - 1)
        weight = jnp.where(jnp.isnan(confidence), jnp.nan, d.weight)
        terms = (weight, weight * confidence, weight * right)
        counts = jnp.stack([tally(index, term, self.bins) for term in terms])
        return self.replace(counts=self.counts.merge(CompensatedSum.of(counts)))

    def warning(self) -> str | None:
        return warning_about_labels(type(self).__name__, self.counts, from_logits=self.from_logits)


@final
class CalibrationError(_CalibrationMetric):
    """How far confidence is from accuracy (ECE), over bins of confidence, as in torchmetrics.

    Guo et al., *On Calibration of Modern Neural Networks*, 2017. Confidence is the probability of
    the predicted class. With a single score per example, that score is compared with how often
    class 1 is true.

    **Arguments:**

    - `bins`: how many bins of equal width there are.
    - `norm`: `"l1"`, the mean gap; `"l2"`, the root of the mean square; `"max"`, the largest.
    - `from_logits`: whether `y_pred` are logits. If not, they must be probabilities; outside of
        [0, 1] they make the error nan.
    - `ignore_index`: a label that is not counted.
    """

    higher_is_better: ClassVar[bool | None] = False

    norm: Literal["l1", "l2", "max"] = eqx.field(default="l1", static=True, kw_only=True)

    def __check_init__(self) -> None:
        if self.norm not in ("l1", "l2", "max"):
            raise ValueError(
                f"`CalibrationError(norm={self.norm!r})` is not valid: choose `'l1'`, `'l2'` or "
                "`'max'`."
            )

    def compute(self) -> Float[Array, ""]:
        weight, confidence, right = self.counts.total()
        share = weight / jnp.sum(weight)
        gap = jnp.abs(confidence - right) / jnp.where(weight == 0, 1, weight)
        if self.norm == "max":
            return jnp.where(jnp.isnan(jnp.sum(share)), jnp.nan, jnp.max(gap))
        if self.norm == "l2":
            return jnp.sqrt(jnp.sum(share * jnp.square(gap)))
        return jnp.sum(share * gap)


@final
class CalibrationCurve(_CalibrationMetric):
    """How often predictions are right, by confidence: the reliability diagram.

    Its value is an array of three rows, with a column for each bin:
    `prob_true, prob_pred, share = logs["calibration_curve"]`. The first two are those of
    scikit-learn's `calibration_curve`, how often the bin is right and its mean confidence, nan for
    a bin without any; the third is its share of all. What `evaluate` returns draws itself:
    `logs["calibration_curve"].plot()`.

    **Arguments:**

    - `bins`, `from_logits`, `ignore_index`: as for
        [`CalibrationError`][eqxtrain.metrics.CalibrationError].
    """

    array_class: ClassVar[type[np.ndarray]] = Calibration

    def compute(self) -> Float[Array, "3 bins"]:
        weight, confidence, right = self.counts.total()
        total = jnp.sum(weight)
        mean = lambda summed: jnp.where(weight == 0, jnp.nan, summed / weight)
        rows = jnp.stack([mean(right), mean(confidence), weight / total])
        return jnp.where(total > 0, rows, jnp.nan)
