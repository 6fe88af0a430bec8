"""Classification: how often the prediction is right."""

from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import whole_number
from .._types import Self
from ._base import Metric
from ._class_inputs import check_classes, decide, require_scores, warning_about_labels
from ._modes import Mean
from ._precision_recall import check_class_options


@final
class Accuracy(Metric):
    """The share of examples whose class is predicted right.

    The shapes decide what is compared, as for Keras's `"accuracy"`:

    - `y_pred` `(batch, ..., classes)` and integer `y_true` `(batch, ...)`: the largest score
      against the label (scores may be logits or probabilities);
    - both integers of one shape: predicted against true class;
    - `y_true` one-hot, of the shape of `y_pred` with at least two classes on the last axis: the
      largest of each;
    - otherwise both of one shape, `(batch,)` or `(batch, ..., 1)`, or with `multilabel` of any:
      `y_pred > threshold` against `y_true`.

    Axes between batch and classes (tokens, pixels) are counted one by one: with `ignore_index` this
    is the accuracy of tokens. Several labels are counted one by one too, as in Keras's
    `BinaryAccuracy` and torchmetrics. (scikit-learn counts an example only if all are right.)

    **Arguments:**

    - `threshold`: above it, a binary prediction counts as class 1. The default fits
        probabilities; for logits, pass 0.
    - `multilabel`: whether the last axis holds independent labels rather than classes.
    - `ignore_index`: a label that is not counted.
    """

    higher_is_better: ClassVar[bool | None] = True

    threshold: float = eqx.field(default=0.5, static=True)
    multilabel: bool = eqx.field(default=False, static=True, kw_only=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    correct: Mean = eqx.field(default_factory=Mean)

    def __check_init__(self) -> None:
        check_class_options("Accuracy", None, self.threshold, self.ignore_index)

    def warning(self) -> str | None:
        return warning_about_labels("Accuracy", self.correct)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        d = decide(
            "Accuracy",
            y_pred,
            y_true,
            mask,
            threshold=self.threshold,
            multilabel=self.multilabel,
            ignore_index=self.ignore_index,
        )
        d = check_classes("Accuracy", d, count=False)
        right = (d.predicted == d.true).reshape(-1)
        return self.replace(correct=self.correct.merge(Mean.of(right, d.weight.reshape(-1))))

    def compute(self) -> Float[Array, ""]:
        return self.correct.compute()


@final
class TopKAccuracy(Metric):
    """The share of examples whose class is among the `k` with the largest scores.

    It is among them if fewer than `k` classes have a larger score, so ties count as right, as in
    Keras's `TopKCategoricalAccuracy`. Labels are indices or one-hot.

    **Arguments:**

    - `k`: how many guesses are allowed.
    - `ignore_index`: a label that is not counted.
    """

    higher_is_better: ClassVar[bool | None] = True

    k: int = eqx.field(default=5, static=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    correct: Mean = eqx.field(default_factory=Mean)

    def __check_init__(self) -> None:
        whole_number("TopKAccuracy(k)", self.k, at_least=1)

    def warning(self) -> str | None:
        return warning_about_labels("TopKAccuracy", self.correct)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        d = decide("TopKAccuracy", y_pred, y_true, mask, ignore_index=self.ignore_index)
        d = check_classes("TopKAccuracy", require_scores("TopKAccuracy", d))
        if d.classes is None or d.scores is None:
            raise ValueError("`TopKAccuracy` needs a score for each of several classes.")
        mine = jnp.take_along_axis(d.scores, d.true[:, None], axis=-1, mode="clip")
        right = jnp.sum((d.scores > mine).astype(jnp.int32), axis=-1) < self.k
        return self.replace(correct=self.correct.merge(Mean.of(right, d.weight)))

    def compute(self) -> Float[Array, ""]:
        return self.correct.compute()
