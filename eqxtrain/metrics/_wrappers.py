"""Metrics that wrap another: with sample weights, or on one of several outputs."""

from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp

from .._request import METRIC_NAMES, call, name_of, request
from .._types import Self
from ._base import Metric
from ._calling import UnlabelledError, needs_labels, pick
from ._function import as_metric
from ._masks import combine_weights

Key = str | int


class _Wrapper(Metric):
    """What wrappers share: they forward to the metric inside."""

    metric: Metric = eqx.field(converter=as_metric)

    def asking_function(self) -> Callable[..., Any]:
        return self.metric.asking_function()

    def compute(self) -> Any:
        return self.metric.compute()

    def results(self, name: str) -> dict[str, Any]:
        return self.metric.results(name)

    def warning(self) -> str | None:
        return self.metric.warning()

    def _updated(self, available: Mapping[str, Any]) -> Self:
        who = f"{type(self.metric).__name__}.update"
        return self.replace(metric=call(self.metric.update, available, who=who))


@final
class Weighted(_Wrapper):
    """A metric that applies `sample_weight`: `Weighted(Accuracy())` is `Σ(m·w·right) / Σ(m·w)`.

    As in Keras, other metrics ignore weights; unlike Keras's `weighted_metrics`, this one ignores
    `class_weight`. The metric inside receives the weights as its `mask`, so it must take one.
    Weights of rank 2 weigh each token of an example. Without weights, the result is that of the
    metric inside.
    """

    def __check_init__(self) -> None:
        inside = self.metric
        while isinstance(inside, On):
            inside = inside.metric
        if isinstance(inside, Weighted):
            raise TypeError("`Weighted(Weighted(...))` would apply the weights twice: remove one.")

    @property
    def name(self) -> str:
        """Its name in a list of metrics."""
        return f"weighted_{name_of(self.metric) or 'metric'}"

    def update(self, **available: Any) -> Self:
        inside, picked = self.metric, available
        while isinstance(inside, On):  # it picks a part of the weights too
            inside, picked = inside.metric, inside.picked(picked)
        weight = picked.get("sample_weight")
        if weight is None:
            return self._updated(available)
        if not hasattr(weight, "shape"):
            raise TypeError(
                f"`{self.name}` was given a `{type(weight).__name__}` as `sample_weight`, but "
                "needs one array: pick it with `On(Weighted(...), key)`."
            )
        asked = request(inside.update)
        if not asked.everything and "mask" not in asked.names:
            inside_name = type(inside).__name__
            raise TypeError(
                f"`{inside_name}` can't be weighted: its `update` does not take `mask`, which says "
                "how much each row counts. Add that parameter, and pass it on to the parts."
            )
        weight = jnp.asarray(weight)
        if weight.ndim > 1 and weight.shape[-1] == 1:
            weight = weight[..., 0]
        return self._updated(available | {"mask": combine_weights(weight, available.get("mask"))})


@final
class On(_Wrapper):
    """A metric on one of several outputs: `On(Accuracy(), "label")`.

    **Arguments:**

    - `metric`: a metric or a function.
    - `on`: a key, or a sequence of keys to follow, that picks a part of `y_pred`, and of `y_true`
        and `sample_weight` where these have parts. If the labels of that part are None, the metric
        is left out.
    """

    on: Key | tuple[Key, ...] = eqx.field(static=True)

    @property
    def name(self) -> str:
        """Its name in a list of metrics."""
        return name_of(self.metric) or "metric"

    def picked(self, available: dict[str, Any]) -> dict[str, Any]:
        """What is available, with the picked parts in place of the whole."""
        return available | pick(available, self.on, who=f"The metric `{self.name}`")

    def update(self, **available: Any) -> Self:
        picked = self.picked(available)
        unlabelled = picked.get("y_true", 0) is None
        if unlabelled and needs_labels(self.asking_function(), METRIC_NAMES | available.keys()):
            raise UnlabelledError(f"The metric `{self.name}` is on {self.on!r}, without labels.")
        return self._updated(picked)
