"""The configured metrics: containers of them, and plain functions among them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp

from .._naming import named_leaves, unique
from .._request import (
    METRIC_NAMES,
    call,
    call_on_predictions,
    hint_at_outputs,
    is_by_name,
    request,
)
from .._types import Self
from ._base import Metric, examples
from ._modes import Mean


@final
class FunctionMetric(Metric):
    """The mean over examples of what a function gives.

    `fn` is called as losses are: by name if it asks for any of our names, else as
    `fn(y_pred, y_true)`. It returns per-example values (trailing axes are averaged), a scalar that
    is their mean already, or a dict of these.
    """

    fn: Callable[..., Any]
    name: str = eqx.field(default="metric", static=True)
    values: Any = eqx.field(default_factory=Mean)

    def update(self, **available: Any) -> Self:
        value = call_on_predictions(
            self.fn, available, names=METRIC_NAMES, kind="metric", who=self.name
        )
        if isinstance(value, Mapping):
            old = self.values if isinstance(self.values, dict) else {}
            new = {key: self._mean(part, available) for key, part in value.items()}
            values = {key: old[key].merge(new[key]) if key in old else new[key] for key in new}
        else:
            values = self.values.merge(self._mean(value, available))
        return type(self)(self.fn, self.name, values)

    def compute(self) -> Any:
        if isinstance(self.values, dict):
            return {key: mean.compute() for key, mean in self.values.items()}
        return self.values.compute()

    def _mean(self, value: Any, available: Mapping[str, Any]) -> Mean:
        value = jnp.asarray(value)
        if value.ndim == 0 and not available.keys() & {"x", "batch", "y_pred", "y_true"}:
            return Mean.of(value)  # `apply_gradients` was not told of the batch
        mask, count = available.get("mask"), examples(available)
        if value.ndim > 0:
            if value.shape[0] != count:
                raise ValueError(
                    f"The metric `{self.name}` returned an array of shape {value.shape} for a "
                    f"batch of {count} examples: return one value an example, or a scalar."
                )
            return Mean.of(value, mask=mask)
        if mask is not None and _looks_at_rows(self.fn):
            raise ValueError(
                f"The metric `{self.name}` returned a scalar, but some rows of the batch are "
                "padding: return one value an example, or ask for `mask`."
            )
        return Mean.of(value, count if mask is None else jnp.sum(jnp.asarray(mask).astype(int)))


def _looks_at_rows(fn: Callable[..., Any]) -> bool:
    """Whether a function's scalar is of rows, some of which it does not know to be padding."""
    if not is_by_name(fn, METRIC_NAMES):
        return True
    asked = set(request(fn).names)
    return "mask" not in asked and bool(asked & {"y_pred", "y_true", "x", "batch"})


def _is_metric(node: Any) -> bool:
    return isinstance(node, Metric)


def collect(container: Any) -> list[tuple[str, Metric]]:
    """The metrics of a container with their names, functions wrapped, names unique."""
    found: list[tuple[str, Metric]] = []
    for name, member in named_leaves(container, default="metric", is_leaf=_is_metric):
        metric = member if _is_metric(member) else FunctionMetric(member, name)
        found.append((unique(name, {taken for taken, _ in found}), metric))
    return found


def check(container: Any) -> None:
    """Refuse what is no metric, with a sentence."""
    for name, member in named_leaves(container, default="metric", is_leaf=_is_metric):
        if isinstance(member, type) and issubclass(member, Metric):
            raise TypeError(
                f"The metric `{name}` is the class `{member.__name__}`: give an instance, "
                f"`{member.__name__}()`."
            )
        if not callable(member) and not _is_metric(member):
            raise TypeError(
                f"The metric `{name}` is {member!r}, which is no metric and no function: give "
                "`eqxtrain.metrics.Accuracy()`, or `lambda y_pred, y_true: ...`."
            )


def asks_for(metric: Metric, names: Collection[str]) -> bool:
    """Whether `metric` can't be measured without one of `names`."""
    fn = metric.fn if isinstance(metric, FunctionMetric) else metric.update
    return any(name in names for name in request(fn).required)


def measure(
    metrics: list[tuple[str, Metric]], available: Mapping[str, Any], taken: Collection[str] = ()
) -> dict[str, Metric]:
    """Each metric's contribution of one batch, under its name."""
    logs: dict[str, Metric] = {}
    for name, metric in metrics:
        fresh = metric.reset()
        who = f"{type(metric).__name__}.update"
        with hint_at_outputs(available.get("y_pred", jnp.zeros(())), f"`{who}`"):
            new = call(fresh.update, available, who=who)
        if not isinstance(new, Metric):
            raise TypeError(f"`{who}` returned a `{type(new).__name__}`; it returns a metric.")
        logs[unique(name, {*taken, *logs})] = new
    return logs
