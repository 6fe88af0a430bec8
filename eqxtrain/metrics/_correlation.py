"""Regression: how much of the labels' variation the predictions share."""

from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._placement import as_numpy
from .._types import Self
from ._base import Metric
from ._compensated import Moments
from ._gather import Gather
from ._masks import mask_weights
from ._regression import as_pair

Multioutput = Literal["uniform_average", "variance_weighted", "raw_values"]
Outputs = Float[Array, "*outputs"]


class _MomentMetric(Metric):
    """A function of the moments of two variables, output by output."""

    multioutput: Multioutput = eqx.field(default="uniform_average", static=True, kw_only=True)
    moments: Moments = eqx.field(default_factory=Moments, kw_only=True)

    def __check_init__(self) -> None:
        known = ("uniform_average", "variance_weighted", "raw_values")
        if self.multioutput not in known:
            raise ValueError(
                f"`{type(self).__name__}(multioutput={self.multioutput!r})` is not known: it is "
                f"one of {', '.join(map(repr, known))}."
            )

    def _merged(self, first: Array, second: Array, mask: Any) -> Self:
        if mask is not None and jnp.ndim(mask) > 1:
            raise ValueError(
                f"`{type(self).__name__}` takes one weight per example; got weights of shape "
                f"{jnp.shape(mask)}."
            )
        weight = mask_weights(mask, first.shape[:1])
        pair = jnp.stack([first, second], axis=-1)
        real = weight.reshape(weight.shape + (1,) * (pair.ndim - 1)) != 0
        return self.replace(
            moments=self.moments.merge(Moments.of(jnp.where(real, pair, 0), weight))
        )

    def _products(self) -> tuple[Array, Array, Array]:
        """`Σ(u - ū)²`, `Σ(v - v̄)²` and `Σ(u - ū)(v - v̄)`, nan where nothing was seen."""
        products = self.moments.products.total()
        if products.ndim == 0:
            nan = jnp.full((), jnp.nan)
            return nan, nan, nan
        products = jnp.where(self.moments.weight.total() == 0, jnp.nan, products)
        return products[..., 0, 0], products[..., 1, 1], products[..., 0, 1]

    def _over_outputs(self, score: Outputs, variance: Outputs) -> Float[Array, "..."]:
        if self.multioutput == "raw_values" or score.ndim == 0:
            return score
        if self.multioutput == "uniform_average":
            return jnp.mean(score)
        total = jnp.sum(variance)
        weighted = jnp.sum(score * variance) / jnp.where(total == 0, 1, total)
        return jnp.where(total == 0, jnp.mean(score), weighted)


def _explained_share(left: Outputs, whole: Outputs) -> Outputs:
    """`1 - left / whole`; 1 where both are 0, and 0 where only `whole` is, as in scikit-learn."""
    share = left / jnp.where(whole == 0, 1, whole)
    return jnp.where(whole == 0, jnp.where(left == 0, 1.0, 0.0), 1 - share)


@final
class R2Score(_MomentMetric):
    """The coefficient of determination, `1 - Σ(y - ŷ)² / Σ(y - ȳ)²`, as in scikit-learn.

    For constant labels (or a single one) it is 1 if the predictions equal them, else 0.

    **Arguments:**

    - `multioutput`: for several outputs, `"uniform_average"`, `"variance_weighted"` (by the
        variance of the labels), or `"raw_values"`, each by itself.
    """

    higher_is_better: ClassVar[bool | None] = True

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        y_pred, y_true = as_pair("R2Score", y_pred, y_true)
        return self._merged(y_true, y_true - y_pred, mask)

    def compute(self) -> Float[Array, "..."]:
        labels, residuals, _ = self._products()
        bias = jnp.asarray(self.moments.mean)[..., 1] if jnp.ndim(self.moments.mean) else 0
        squares = residuals + self.moments.weight.total() * jnp.square(bias)
        return self._over_outputs(_explained_share(squares, labels), labels)


@final
class ExplainedVariance(_MomentMetric):
    """`1 - Var(y - ŷ) / Var(y)`, as in scikit-learn.

    **Arguments:**

    - `multioutput`: as for [`R2Score`][eqxtrain.metrics.R2Score].
    """

    higher_is_better: ClassVar[bool | None] = True

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        y_pred, y_true = as_pair("ExplainedVariance", y_pred, y_true)
        return self._merged(y_true, y_true - y_pred, mask)

    def compute(self) -> Float[Array, "..."]:
        labels, residuals, _ = self._products()
        return self._over_outputs(_explained_share(residuals, labels), labels)


@final
class PearsonCorrCoef(_MomentMetric):
    """The linear correlation of predictions and labels, as SciPy's `pearsonr`.

    It is nan if either is constant.

    **Arguments:**

    - `multioutput`: as for [`R2Score`][eqxtrain.metrics.R2Score].
    """

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        y_pred, y_true = as_pair("PearsonCorrCoef", y_pred, y_true)
        return self._merged(y_true, y_pred, mask)

    def compute(self) -> Float[Array, "..."]:
        labels, predictions, both = self._products()
        spread = jnp.sqrt(labels) * jnp.sqrt(predictions)
        score = jnp.where(spread == 0, jnp.nan, both / jnp.where(spread == 0, 1, spread))
        return self._over_outputs(jnp.clip(score, -1, 1), labels)


@final
class SpearmanCorrCoef(Metric):
    """The correlation of the ranks of predictions and labels, as SciPy's `spearmanr`.

    It is exact: values are gathered and ranked on the host, and ties share their mean rank. For
    several outputs, it is their mean. It is nan if either is constant, and can't be weighted.
    """

    seen: Gather = eqx.field(default_factory=Gather, kw_only=True)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        if mask is not None and jnp.asarray(mask).dtype != jnp.bool_:
            raise TypeError("`SpearmanCorrCoef` can't be weighted: take it out of `Weighted`.")
        pair = as_pair("SpearmanCorrCoef", y_pred, y_true)
        return self.replace(seen=self.seen.merge(Gather.of(pair, mask=mask)))

    def compute(self) -> Float[Array, ""]:
        if self.seen.values is None:
            return jnp.full((), jnp.nan)
        pair = (as_numpy(a) for a in self.seen.compute())
        columns = [list(a.reshape(len(a), int(np.prod(a.shape[1:]))).T) for a in pair]
        scores = [_correlation(_ranks(a), _ranks(b)) for a, b in zip(*columns, strict=True)]
        return jnp.asarray(np.mean(scores), jnp.float32)


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, from 1, the mean of their ranks for equal ones; nan has none."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.where(np.isnan(values).any(), np.nan, ranks[inverse])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
