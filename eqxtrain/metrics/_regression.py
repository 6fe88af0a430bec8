"""Regression: means of errors."""

import abc
from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._check import check_real_number
from .._types import Self
from ._base import Metric, check_same_shape
from ._modes import Mean

Values = Float[Array, "batch *outputs"]


def as_pair(who: str, y_pred: Any, y_true: Any) -> tuple[Values, Values]:
    """Predictions and labels of one shape, in float32."""
    check_same_shape(who, y_pred, y_true)
    return jnp.asarray(y_pred).astype(jnp.float32), jnp.asarray(y_true).astype(jnp.float32)


class _ErrorMetric(Metric):
    """The mean over examples and outputs of an error."""

    higher_is_better: ClassVar[bool | None] = False

    mean: Mean = eqx.field(default_factory=Mean, kw_only=True)

    @abc.abstractmethod
    def error(self, y_pred: Values, y_true: Values) -> Float[Array, "batch ..."]:
        """The formula, value by value."""

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        error = self.error(*as_pair(type(self).__name__, y_pred, y_true))
        return self.replace(mean=self.mean.merge(Mean.of(error, mask=mask)))

    def compute(self) -> Float[Array, ""]:
        return self.mean.compute()


@final
class MeanSquaredError(_ErrorMetric):
    """The mean of `(y_pred - y_true)²` over examples and outputs, as in scikit-learn."""

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return jnp.square(y_pred - y_true)


@final
class RootMeanSquaredError(_ErrorMetric):
    """The root of the mean of `(y_pred - y_true)²` over examples and outputs.

    As in Keras and torchmetrics. (For several outputs, scikit-learn averages the roots instead.)
    """

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return jnp.square(y_pred - y_true)

    def compute(self) -> Float[Array, ""]:
        return jnp.sqrt(self.mean.compute())


@final
class MeanAbsoluteError(_ErrorMetric):
    """The mean of `|y_pred - y_true|` over examples and outputs, as in scikit-learn."""

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return jnp.abs(y_pred - y_true)


@final
class MeanAbsolutePercentageError(_ErrorMetric):
    """The mean of `|y_pred - y_true| / |y_true|`, as a fraction like scikit-learn's: 0.1 for 10 %.

    The denominator is kept at float32's `eps` or more.
    """

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return jnp.abs(y_pred - y_true) / jnp.maximum(jnp.abs(y_true), jnp.finfo(jnp.float32).eps)


@final
class MeanSquaredLogError(_ErrorMetric):
    """The mean of `(log(1 + y_pred) - log(1 + y_true))²`, as in scikit-learn.

    Values below -1 make it nan.
    """

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return jnp.square(jnp.log1p(y_pred) - jnp.log1p(y_true))


@final
class HuberLoss(_ErrorMetric):
    """The mean of `½·e²` where `|e| ≤ δ` and of `δ·(|e| - ½·δ)` beyond, as Keras's `Huber`.

    Huber, *Robust Estimation of a Location Parameter*, 1964.

    **Arguments:**

    - `delta`: δ; larger errors count linearly.
    """

    delta: float = eqx.field(default=1.0, static=True)

    def __check_init__(self) -> None:
        check_real_number("HuberLoss(delta)", self.delta, at_least=0)

    def error(self, y_pred: Values, y_true: Values) -> Values:
        return optax.huber_loss(y_pred, y_true, delta=float(self.delta))


@final
class PinballLoss(_ErrorMetric):
    """The mean of `α·max(e, 0) + (1 - α)·max(-e, 0)`, with `e = y_true - y_pred`.

    As scikit-learn's `mean_pinball_loss`.

    **Arguments:**

    - `alpha`: α, the quantile that is predicted.
    """

    alpha: float = eqx.field(default=0.5, static=True)

    def __check_init__(self) -> None:
        check_real_number("PinballLoss(alpha)", self.alpha, at_least=0, at_most=1)

    def error(self, y_pred: Values, y_true: Values) -> Values:
        error, alpha = y_true - y_pred, float(self.alpha)
        return alpha * jnp.maximum(error, 0) + (1 - alpha) * jnp.maximum(-error, 0)


@final
class CosineSimilarity(_ErrorMetric):
    """The mean over examples of the cosine between `y_pred` and `y_true` along the last axis.

    As in Keras. With a vector of zeros, the cosine is 0.
    """

    higher_is_better: ClassVar[bool | None] = True

    def error(self, y_pred: Values, y_true: Values) -> Float[Array, "batch ..."]:
        if y_pred.ndim < 2:
            raise ValueError(
                "`CosineSimilarity` compares vectors, arrays of shape `(batch, ..., size)`; got "
                f"{y_pred.shape}."
            )
        return optax.cosine_similarity(y_pred, y_true, epsilon=1e-12)
