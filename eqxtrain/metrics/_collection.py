"""The `metrics=` of a learner: containers of metrics and of plain functions."""

import functools
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._naming import named_leaves, unique
from .._request import call, request
from ._base import Metric
from ._calling import UnlabelledError, hint_at_outputs, refuse_broadcast
from ._function import FunctionMetric


def _is_metric(node: Any) -> bool:
    return isinstance(node, Metric)


class WithAdded(NamedTuple):
    """The `metrics` of a learner, and others by name."""

    own: Any
    added: dict[str, Metric]


def with_added(own: Any, added: Mapping[str, Metric]) -> Any:
    """The `metrics` of a learner with others beside them, for `named_metrics`.

    A dict stays one, since a step of the user's may look into it.
    """
    if isinstance(own, dict) and not own.keys() & added.keys():
        return {**own, **added}
    return WithAdded(own, dict(added))


def named_metrics(container: Any) -> list[tuple[str, Metric]]:
    """The metrics of a container by unique names, with functions wrapped as metrics."""
    if isinstance(container, WithAdded):
        own = named_metrics(container.own)
        taken = {name for name, _ in own}
        return own + [(unique(name, taken), metric) for name, metric in container.added.items()]
    found: list[tuple[str, Metric]] = []
    for name, member in named_leaves(container, default="metric", is_leaf=_is_metric):
        metric = member if _is_metric(member) else FunctionMetric(member, name)
        found.append((unique(name, {taken for taken, _ in found}), metric))
    return found


def check_metrics(container: Any) -> None:
    """Refuse what is not a metric."""
    for name, member in named_leaves(container, default="metric", is_leaf=_is_metric):
        if isinstance(member, type) and issubclass(member, Metric):
            raise TypeError(
                f"The metric `{name}` is the class `{member.__name__}`: pass an instance, "
                f"`{member.__name__}()`."
            )
        if hasattr(member, "from_model_output"):
            raise TypeError(
                f"The metric `{name}` comes from another library: wrap it, "
                f"`et.metrics.from_clu({getattr(member, '__name__', name)})`."
            )
        if not callable(member) and not _is_metric(member):
            raise TypeError(
                f"The metric `{name}` is {member!r}, which is neither a metric nor a function: "
                "pass `eqxtrain.metrics.Accuracy()`, or `lambda y_pred, y_true: ...`."
            )


def asks_for(metric: Metric, names: Collection[str]) -> bool:
    """Whether `metric` requires one of `names`."""
    return any(name in names for name in request(metric.asking_function()).required)


def measure_metrics(
    metrics: list[tuple[str, Metric]], available: Mapping[str, Any], taken: Collection[str] = ()
) -> dict[str, Metric]:
    """The contribution of one batch to each metric, by name."""
    logs: dict[str, Metric] = {}
    for name, metric in metrics:
        fresh = metric.reset()
        who = f"{type(metric).__name__}.update"
        _check_masked(name, fresh, available)
        try:
            with hint_at_outputs(
                available.get("y_pred", jnp.zeros(())), f"`{who}`", available.get("y_true")
            ):
                update = functools.partial(call, fresh.update, available, who=who)
                new = refuse_broadcast(update, available, f"The metric `{name}`")
        except UnlabelledError:
            continue
        except (TypeError, ValueError) as error:
            error.add_note(f"This was raised in the metric `{name}`.")
            raise
        if not isinstance(new, Metric):
            raise TypeError(f"`{who}` returned a `{type(new).__name__}`: return a metric.")
        logs[unique(name, {*taken, *logs})] = new
    return logs


def _check_masked(name: str, metric: Metric, available: Mapping[str, Any]) -> None:
    """Refuse a metric that would count padding."""
    if available.get("mask") is None:
        return
    while isinstance(inside := getattr(metric, "metric", None), Metric):
        metric = inside
    asked = request(metric.asking_function())
    if isinstance(metric, FunctionMetric) or asked.everything or "mask" in asked.names:
        return
    if rows := sorted({"y_pred", "y_true", "x", "batch", "sample_weight"} & set(asked.names)):
        raise TypeError(
            f"The metric `{name}` looks at the rows of `{rows[-1]}`, some of which are padding or "
            f"weighted, but `{type(metric).__name__}.update` does not take `mask`: add that "
            "parameter, and leave out the rows where it is false."
        )
