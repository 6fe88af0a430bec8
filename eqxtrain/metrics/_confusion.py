"""Classification: the confusion matrix, and what follows from the whole of it."""

from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Self
from ._base import Metric
from ._class_inputs import check_classes, decide, tally, warning_about_labels
from ._compensated import CompensatedSum
from ._pictures import Matrix
from ._precision_recall import check_class_options, ratio


class _MatrixMetric(Metric):
    """The counts of each true class and each predicted one.

    Scores of a single class count as two classes.
    """

    num_classes: int | None = eqx.field(default=None, static=True, kw_only=True)
    threshold: float = eqx.field(default=0.5, static=True, kw_only=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    counts: Any = eqx.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_class_options(
            type(self).__name__, self.num_classes, self.threshold, self.ignore_index
        )
        if self.counts is None:
            shape = () if self.num_classes is None else (self.num_classes,) * 2
            self.counts = CompensatedSum.zeros(shape)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        who = type(self).__name__
        options: dict[str, Any] = {"threshold": self.threshold, "ignore_index": self.ignore_index}
        d = decide(who, y_pred, y_true, mask, num_classes=self.num_classes, **options)
        d = check_classes(who, d)
        classes = d.classes or 2
        pair = d.true.astype(jnp.int32) * classes + d.predicted.astype(jnp.int32)
        matrix = tally(pair, d.weight, classes**2).reshape(classes, classes)
        return self.replace(counts=self.counts.merge(CompensatedSum.of(matrix)))

    def warning(self) -> str | None:
        return warning_about_labels(type(self).__name__, self.counts)

    def _matrix(self) -> Float[Array, "true predicted"]:
        counts = self.counts.total()
        return counts if counts.ndim else jnp.zeros((1, 1), jnp.float32)


@final
class ConfusionMatrix(_MatrixMetric):
    """How often each class is taken for each: rows are true, columns predicted classes.

    As scikit-learn's `confusion_matrix`. It is all zeros if it has seen nothing. What `evaluate`
    returns draws itself: `logs["confusion_matrix"].plot(["cat", "dog"])`.

    **Arguments:**

    - `normalize`: None for counts; `"true"`, over rows; `"pred"`, over columns; `"all"`.
    - `num_classes`: needed if `y_pred` holds the indices of classes.
    - `threshold`: above it, a binary score counts as class 1.
    - `ignore_index`: a label that is not counted.
    """

    array_class: ClassVar[type[np.ndarray]] = Matrix

    normalize: Literal["true", "pred", "all"] | None = eqx.field(
        default=None, static=True, kw_only=True
    )

    def __check_init__(self) -> None:
        if self.normalize not in (None, "true", "pred", "all"):
            raise ValueError(
                f"`ConfusionMatrix(normalize={self.normalize!r})` is not valid: choose None, "
                "`'true'`, `'pred'` or `'all'`."
            )

    def compute(self) -> Float[Array, "true predicted"]:
        matrix = self._matrix()
        if self.normalize is None:
            return matrix
        axis = {"true": 1, "pred": 0, "all": None}[self.normalize]
        return ratio(matrix, jnp.broadcast_to(matrix.sum(axis, keepdims=True), matrix.shape))


@final
class CohenKappa(_MatrixMetric):
    """Agreement beyond chance, `1 - Σ w·observed / Σ w·expected`, as in scikit-learn.

    **Arguments:**

    - `weights`: None, if all mistakes count alike; for ordered classes, `"linear"` or
        `"quadratic"` in the distance between them.
    - `num_classes`, `threshold`, `ignore_index`: as for `ConfusionMatrix`.
    """

    higher_is_better: ClassVar[bool | None] = True

    weights: Literal["linear", "quadratic"] | None = eqx.field(
        default=None, static=True, kw_only=True
    )

    def __check_init__(self) -> None:
        if self.weights not in (None, "linear", "quadratic"):
            raise ValueError(
                f"`CohenKappa(weights={self.weights!r})` is not valid: choose None, `'linear'` or "
                "`'quadratic'`."
            )

    def compute(self) -> Float[Array, ""]:
        matrix = self._matrix() / jnp.sum(self._matrix())
        index = jnp.arange(len(matrix), dtype=jnp.float32)
        distance = jnp.abs(index[:, None] - index[None, :])
        if self.weights is None:
            distance = (distance > 0).astype(jnp.float32)
        elif self.weights == "quadratic":
            distance = jnp.square(distance)
        expected = matrix.sum(1)[:, None] * matrix.sum(0)[None, :]
        return 1 - jnp.sum(distance * matrix) / jnp.sum(distance * expected)


@final
class MatthewsCorrCoef(_MatrixMetric):
    """The correlation of labels and predictions, for any number of classes, as in scikit-learn.

    Gorodkin, *Comparing two K-category assignments by a K-category correlation coefficient*, 2004.
    It is 0 where all labels, or all predictions, are of one class.

    **Arguments:**

    - `num_classes`, `threshold`, `ignore_index`: as for `ConfusionMatrix`.
    """

    higher_is_better: ClassVar[bool | None] = True

    def compute(self) -> Float[Array, ""]:
        # Sums over all other classes, never `1 - p`, which would lose what is rare.
        matrix = self._matrix() / jnp.sum(self._matrix())
        diagonal = jnp.diagonal(matrix)
        wrong = matrix - jnp.diag(diagonal)
        others = jnp.sum(_of_others(matrix) * (1 - jnp.eye(len(matrix), dtype=jnp.float32)), axis=0)
        both = jnp.sum(diagonal * others - wrong.sum(0) * wrong.sum(1))
        true, predicted = matrix.sum(1), matrix.sum(0)
        spread = jnp.sqrt(jnp.sum(true * _of_others(true)))
        spread = spread * jnp.sqrt(jnp.sum(predicted * _of_others(predicted)))
        return jnp.where(spread == 0, 0, both / jnp.where(spread == 0, 1, spread))


def _of_others(values: Float[Array, "*rows classes"]) -> Float[Array, "*rows classes"]:
    """For each class, the sum over all others."""
    none = jnp.zeros_like(values[..., :1])
    before = jnp.cumsum(values[..., :-1], axis=-1)
    after = jnp.cumsum(values[..., :0:-1], axis=-1)[..., ::-1]
    sides = jnp.concatenate([none, before], axis=-1), jnp.concatenate([after, none], axis=-1)
    return sides[0] + sides[1]
