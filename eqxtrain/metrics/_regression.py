"""Regression."""

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Self
from ._base import Metric, same_shape
from ._modes import Mean


def _difference(who: str, y_pred: Any, y_true: Any) -> Float[Array, "batch *rest"]:
    same_shape(who, y_pred, y_true)
    return jnp.asarray(y_pred).astype(jnp.float32) - jnp.asarray(y_true).astype(jnp.float32)


@final
class MeanSquaredError(Metric):
    """The mean of `(y_pred - y_true)²` over examples and outputs, as in scikit-learn."""

    error: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        error = jnp.square(_difference("MeanSquaredError", y_pred, y_true))
        return type(self)(self.error.merge(Mean.of(error, mask=mask)))

    def compute(self) -> Float[Array, ""]:
        return self.error.compute()


@final
class MeanAbsoluteError(Metric):
    """The mean of `|y_pred - y_true|` over examples and outputs, as in scikit-learn."""

    error: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        error = jnp.abs(_difference("MeanAbsoluteError", y_pred, y_true))
        return type(self)(self.error.merge(Mean.of(error, mask=mask)))

    def compute(self) -> Float[Array, ""]:
        return self.error.compute()
