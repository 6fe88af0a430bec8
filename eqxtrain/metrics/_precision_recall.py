"""Classification: what follows from the counts of right and wrong decisions, class by class."""

import abc
from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import check_real_number, whole_number
from .._types import Self
from ._base import Metric
from ._class_inputs import (
    Average,
    Decisions,
    check_classes,
    decide,
    require_scores,
    tally,
    warning_about_labels,
)
from ._compensated import CompensatedSum

Rates = Float[Array, "..."]


def ratio(a: Array, b: Array) -> Rates:
    """`a / b`, and 0 where both are 0, as with scikit-learn's default `zero_division`."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def average_over(average: str, score: Rates, support: Rates, defined: Array) -> Float[Array, "..."]:
    """Average scores over classes: nan if there are none, and class by class for `"none"`.

    **Arguments:**

    - `defined`: which classes have a score. The others are left out; by class, they are nan.
    """
    if average == "none":
        return jnp.where(defined, score, jnp.nan)
    weight = jnp.where(defined, support if average == "weighted" else jnp.ones_like(score), 0)
    return jnp.sum(jnp.where(defined, score, 0) * weight) / jnp.sum(weight)


def by_class(values: Rates, class_names: tuple[str, ...] | None) -> dict[str, Float[Array, ""]]:
    """A vector of one value per class as a dict, by class name or index."""
    names = class_names or tuple(map(str, range(len(values))))
    return {name: values[index] for index, name in enumerate(names)}


def _as_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, str):
        raise TypeError(f"`class_names={names!r}` is one string: pass a list of names.")
    return None if names is None else tuple(names)


def check_class_options(
    who: str, num_classes: int | None, threshold: float, ignore_index: int | None
) -> None:
    """Refuse options that are not numbers."""
    check_real_number(f"{who}(threshold)", threshold)
    if num_classes is not None:
        whole_number(f"{who}(num_classes)", num_classes, at_least=2)
    if ignore_index is not None:
        whole_number(f"{who}(ignore_index)", ignore_index)


class ClassMetric(Metric):
    """The options that the metrics of classification share.

    **Arguments:**

    - `num_classes`: how many classes there are. It is needed only if `y_pred` holds the indices of
        classes; scores show it by their shape.
    - `average`: `"macro"`, the mean over classes; `"micro"`, over all decisions together;
        `"weighted"`, by how often each class is the true one; or `"none"` (or None), each class by
        itself. `"auto"` is `"macro"`, or with a single score per example the value of class 1.
    - `threshold`: above it, a binary score counts as class 1.
    - `multilabel`: whether the last axis holds independent labels rather than classes.
    - `ignore_index`: a label that is not counted.
    - `class_names`: the names of classes in the logs, with `average="none"`; by default their
        indices.
    """

    num_classes: int | None = eqx.field(default=None, static=True, kw_only=True)
    average: Average | Literal["auto"] = eqx.field(
        default="auto", static=True, kw_only=True, converter=lambda a: "none" if a is None else a
    )
    threshold: float = eqx.field(default=0.5, static=True, kw_only=True)
    multilabel: bool = eqx.field(default=False, static=True, kw_only=True)
    ignore_index: int | None = eqx.field(default=None, static=True, kw_only=True)
    class_names: tuple[str, ...] | None = eqx.field(
        default=None, static=True, kw_only=True, converter=_as_names
    )

    def __post_init__(self) -> None:
        who = type(self).__name__
        check_class_options(who, self.num_classes, self.threshold, self.ignore_index)

    def __check_init__(self) -> None:
        who = type(self).__name__
        if self.average not in ("auto", "micro", "macro", "weighted", "none"):
            raise ValueError(
                f"`{who}(average={self.average!r})` is not valid: choose one of `'auto'`, "
                "`'micro'`, `'macro'`, `'weighted'`, `'none'`."
            )
        named = None if self.class_names is None else len(self.class_names)
        if named is not None and len(set(self.class_names or ())) != named:
            raise ValueError(
                f"`{who}(class_names={self.class_names})` gives two classes the same name."
            )
        if named is not None and self.num_classes not in (None, named):
            raise ValueError(
                f"`{who}` was given {named} `class_names`, but `num_classes={self.num_classes}`."
            )

    def _decide(self, y_pred: Any, y_true: Any, mask: Any, *, scored: bool = False) -> Decisions:
        who = type(self).__name__
        decisions = decide(
            who,
            y_pred,
            y_true,
            mask,
            num_classes=self.num_classes,
            threshold=self.threshold,
            multilabel=self.multilabel,
            ignore_index=self.ignore_index,
        )
        decisions = check_classes(who, require_scores(who, decisions) if scored else decisions)
        classes = decisions.classes or (decisions.true.shape[1:] or (2,))[0]
        if self.class_names is not None and len(self.class_names) != classes:
            raise ValueError(
                f"`{who}` was given {len(self.class_names)} `class_names` for {classes} classes."
            )
        return decisions


class _CountMetric(ClassMetric):
    """A ratio of true and false positives and negatives, for each class."""

    higher_is_better: ClassVar[bool | None] = True

    mirrors: ClassVar[bool] = False
    """Whether a single class counts as two, so that their scores are averaged."""

    counts: Any = eqx.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.counts is None:
            shape = () if self.num_classes is None else (4, self.num_classes)
            self.counts = CompensatedSum.zeros(shape)

    @abc.abstractmethod
    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        """The formula, class by class."""

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> Self:
        new = CompensatedSum.of(_count_cases(self._decide(y_pred, y_true, mask)))
        return self.replace(counts=self.counts.merge(new))

    def compute(self) -> Any:
        counts = self.counts.total()
        seen = jnp.sum(counts) != 0
        if counts.ndim == 0:  # not even a shape was seen
            counts = jnp.zeros((4,), jnp.float32)
        if counts.ndim == 1:  # of one class; the other is its mirror image
            if self.average == "auto" and not self.mirrors:
                return jnp.where(seen, self.score(*counts), jnp.nan)
            counts = jnp.stack([counts[::-1], counts], axis=1)
        tp, fp, fn, tn = counts
        if self.average == "micro":
            counts = jnp.sum(counts, axis=1)
            return jnp.where(seen, self.score(*counts), jnp.nan)
        result = average_over(
            self.average, self.score(tp, fp, fn, tn), tp + fn, seen & self._defined(tp, fp, fn)
        )
        return by_class(result, self.class_names) if self.average == "none" else result

    def warning(self) -> str | None:
        return warning_about_labels(type(self).__name__, self.counts)

    def _defined(self, tp: Rates, fp: Rates, fn: Rates) -> Array:
        """Which classes occur in labels or predictions, as in scikit-learn; every one of labels."""
        return jnp.full(tp.shape, True) if self.multilabel else tp + fp + fn != 0


def _count_cases(d: Decisions) -> Float[Array, "4 *classes"]:
    """True positives, false positives, false negatives and true negatives of each class."""
    if d.classes is None:
        p, t = d.predicted, d.true
        cases = (p & t, p & ~t, ~p & t, ~p & ~t)
        return jnp.stack([jnp.sum(jnp.where(case, d.weight, 0), axis=0) for case in cases])
    tp = tally(d.true, jnp.where(d.predicted == d.true, d.weight, 0), d.classes)
    fp = tally(d.predicted, d.weight, d.classes) - tp
    fn = tally(d.true, d.weight, d.classes) - tp
    return jnp.stack([tp, fp, fn, jnp.sum(d.weight) - tp - fp - fn])


@final
class Precision(_CountMetric):
    """`TP / (TP + FP)`, the share of positive predictions that are right, as in scikit-learn.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].
    """

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(tp, tp + fp)


@final
class Recall(_CountMetric):
    """`TP / (TP + FN)`, the share of positives that are found, as in scikit-learn.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].
    """

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(tp, tp + fn)


@final
class Specificity(_CountMetric):
    """`TN / (TN + FP)`, the share of negatives that are found, as in torchmetrics.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].
    """

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(tn, tn + fp)


@final
class FBeta(_CountMetric):
    """`(1 + β²)·TP / ((1 + β²)·TP + β²·FN + FP)`, as in scikit-learn.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].

    **Arguments:**

    - `beta`: how many times recall counts more than precision.
    """

    beta: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_real_number("FBeta(beta)", self.beta, at_least=0)

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        squared = float(self.beta) ** 2
        return ratio((1 + squared) * tp, (1 + squared) * tp + squared * fn + fp)


@final
class F1(_CountMetric):
    """`2·TP / (2·TP + FN + FP)`, the harmonic mean of precision and recall, as in scikit-learn.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].
    """

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(2 * tp, 2 * tp + fn + fp)


@final
class Jaccard(_CountMetric):
    """`TP / (TP + FP + FN)`, intersection over union (IoU), as scikit-learn's `jaccard_score`.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric].
    """

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(tp, tp + fp + fn)


@final
class BalancedAccuracy(_CountMetric):
    """The mean recall of the classes that occur among the labels, as in scikit-learn.

    Options are those of [`ClassMetric`][eqxtrain.metrics.ClassMetric]. With a single score per
    example, it is the mean over both classes.
    """

    mirrors: ClassVar[bool] = True

    def score(self, tp: Rates, fp: Rates, fn: Rates, tn: Rates) -> Rates:
        return ratio(tp, tp + fn)

    def _defined(self, tp: Rates, fp: Rates, fn: Rates) -> Array:
        return tp + fn != 0
