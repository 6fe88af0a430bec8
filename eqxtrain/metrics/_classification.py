"""Classification."""

from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import Self
from ._base import Metric, same_shape
from ._modes import Mean


@final
class Accuracy(Metric):
    """The share of examples whose class is predicted right.

    What is compared follows from the shapes, as in Keras's `"accuracy"`:

    - `y_pred` `(batch, ..., classes)` and integer `y_true` `(batch, ...)`: the largest score
      against the label (scores may be logits or probabilities);
    - `y_true` one-hot, of the shape of `y_pred` with at least two classes on the last axis: the
      largest of each;
    - otherwise both of one shape, `(batch,)` or `(batch, 1)`: `y_pred > threshold` against
      `y_true`.

    Axes between batch and classes (tokens, pixels) are averaged within their example.

    **Arguments:**

    - `threshold`: above it, a binary prediction counts as class 1. The default fits
        probabilities; for logits, give 0.
    """

    threshold: float = 0.5
    correct: Mean = eqx.field(default_factory=Mean)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        right = self._right(jnp.asarray(y_pred), jnp.asarray(y_true))
        new = self.correct.merge(Mean.of(right, mask=mask))
        return eqx.tree_at(lambda m: m.correct, self, new)

    def compute(self) -> Float[Array, ""]:
        return self.correct.compute()

    def _right(self, y_pred: Array, y_true: Array) -> Bool[Array, "batch *rest"]:
        if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] > 1:
            if not jnp.issubdtype(y_true.dtype, jnp.integer):
                raise ValueError(
                    f"`Accuracy` compares {y_pred.shape[-1]} scores with the index of a class, but "
                    f"`y_true` is {y_true.dtype}: cast the labels to int32."
                )
            if y_pred.shape[:-1] == y_true.shape:
                return jnp.argmax(y_pred, axis=-1).astype(jnp.int32) == y_true.astype(jnp.int32)
        same_shape("Accuracy", y_pred, y_true)
        if y_pred.ndim > 1 and y_pred.shape[-1] > 1:
            return jnp.argmax(y_pred, axis=-1) == jnp.argmax(y_true, axis=-1)
        return (y_pred.astype(jnp.float32) > self.threshold) == (y_true.astype(jnp.float32) > 0.5)
