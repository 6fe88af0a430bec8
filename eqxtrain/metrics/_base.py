"""`Metric`: a value that is measured over batches and merged."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax.core import Tracer

from .._check import check_fields
from .._tree import with_fields
from .._types import Self, replaces_fields
from ._monoid import Monoid


class Metric(Monoid):
    """A value measured over a pass, however the data are split into batches.

    A metric has four operations.

    - `update(...) -> Self` adds a batch. It is called with the arguments that it asks for by name:
      `y_pred`, `y_true`, `mask`, `x`, `batch`, `model`, `state`, `loss`, `grads`, ...
    - `merge(other) -> Self` adds everything that another metric has seen. It is associative, and
      updating two metrics and merging them equals updating one with all of the data.
    - `compute()` returns the value: a scalar, an array, or a dict of them. The value of a metric
      that has seen nothing is nan.
    - `reset() -> Self` returns a metric that has seen nothing.

    `mask` says how much each row counts: None for 1 each, false for padding, or a weight (see
    `Weighted`), with further axes for the weights of tokens. A metric that passes it on to its
    parts handles all of these cases.

    A subclass that accumulates in other metrics (the modes `Mean`, `Sum`, ...) needs only `update`
    and `compute`; `merge` and `reset` work part by part.

    **Class attributes:**

    - `higher_is_better`: whether callbacks such as `EarlyStopping` should take a higher value for
        an improvement, or a lower one; None if neither is better, or it is unknown.
    - `array_class`: the class of the NumPy array that `evaluate` and `fit` return, if the value is
        an array: one that can draw itself, for example.

    !!! example

        ```python
        class Bias(et.metrics.Metric):
            error: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

            def update(self, y_pred, y_true, mask=None):
                error = et.metrics.Mean.of(y_pred - y_true, mask=mask)
                return self.replace(error=self.error.merge(error))

            def compute(self):
                return self.error.compute()
        ```
    """

    update: ClassVar[Callable[..., Any]]

    higher_is_better: ClassVar[bool | None] = None

    array_class: ClassVar[type[np.ndarray]] = np.ndarray

    def compute(self) -> Any:
        """The value of everything seen so far."""
        raise NotImplementedError(
            f"`{type(self).__name__}` does not define `compute`: a metric needs one."
        )

    def results(self, name: str) -> dict[str, Any]:
        """The value by the names that it is logged under: `name`, or `name/key` for a dict."""
        return _flat(self.compute(), name)

    @replaces_fields
    def replace(self, **parts: Any) -> Self:
        """The same metric with other parts. Its constructor is not called."""
        check_fields(type(self), parts, [field.name for field in dataclasses.fields(self)])
        return with_fields(self, **parts)

    def warning(self) -> str | None:
        """A warning about the value of a pass, as a sentence without its subject, or None."""
        return None

    def asking_function(self) -> Callable[..., Any]:
        """The function whose parameters name what this metric asks for."""
        return self.update


# Not defined in the class: for type checkers, a subclass may then give `update` any parameters.
def _update_missing(self: Metric, **available: Any) -> Any:
    raise NotImplementedError(
        f"`{type(self).__name__}` does not define `update`: a metric needs one."
    )


Metric.update = _update_missing


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [_flat(part, f"{name}/{key}") for key, part in value.items()]
    return {path: part for flat in parts for path, part in flat.items()}


Direction = Literal["min", "max"]
"""Whether the lowest value of something is the best, or the highest."""

Directions = Mapping[str, Direction | None]
"""The names that are measured, and which of their values are best; None where that is unknown."""


def direction_of(metric: Metric) -> Direction | None:
    """Which values of a metric are best; None if that is unknown."""
    return {True: "max", False: "min", None: None}[unwrapped(metric).higher_is_better]


def unwrapped(metric: Metric) -> Metric:
    """The metric inside of wrappers such as `Weighted`, whose value is theirs."""
    while isinstance(inside := getattr(metric, "metric", None), Metric):
        metric = inside
    return metric


def num_examples(available: Mapping[str, Any]) -> int:
    """The number of rows of a batch, padding included: the first axis of `x`, else of `y_pred`."""
    for name in ("x", "batch", "y_pred", "y_true"):
        for leaf in jax.tree.leaves(available.get(name)):
            if np.ndim(leaf) > 0:
                return np.shape(leaf)[0]
    raise TypeError("The number of examples is unknown: pass `y_pred` or `x`.")


def check_same_shape(who: str, y_pred: Any, y_true: Any) -> None:
    """Refuse predictions and labels of different shapes, which would broadcast silently."""
    p, t = np.shape(y_pred), np.shape(y_true)
    if p == t:
        return
    remedy = "reshape one of them to match"
    if t == (*p[:-1], 1):
        remedy = "drop the last axis of the labels, `y[..., 0]`"
    elif p == (*t, 1):
        remedy = "add a last axis to the labels, `y[:, None]`"
    elif t == (*p, 1):
        remedy = "drop the last axis of the labels, `y[..., 0]`"
    raise ValueError(
        f"`{who}` compares element by element, but `y_pred` has shape {p} and `y_true` has shape "
        f"{t}: {remedy}."
    )


def is_concrete(*arrays: Any) -> bool:
    """Whether the values of arrays can be read, since none of them is traced."""
    return not any(isinstance(array, Tracer) for array in arrays)
