"""Plain functions as metrics."""

from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp

from .._request import METRIC_NAMES, is_by_name, name_of, request
from .._types import Self
from ._base import Metric, mask_weights, num_examples
from ._calling import call_on_predictions, refuse_pairs
from ._modes import Mean, Modes, check_modes


@final
class FunctionMetric(Metric):
    """What a function gives, folded by a mode. Made by `from_function`.

    `fn` is called as losses are: by name if it asks for any of our names, else as
    `fn(y_pred, y_true)`. It returns per-example values (trailing axes are averaged), a scalar that
    stands for the batch, or a dict of these.
    """

    fn: Callable[..., Any]
    name: str = eqx.field(default="metric", static=True)
    values: Any = eqx.field(default_factory=Mean)

    def asking_function(self) -> Callable[..., Any]:
        return self.fn

    def update(self, **available: Any) -> Self:
        value = call_on_predictions(
            self.fn, available, names=METRIC_NAMES, role="metric", who=self.name
        )
        take = lambda mode, part: self._contribution(mode, self._array(part), available)
        return self.replace(values=fold(self.values, value, take))

    def _array(self, value: Any) -> Any:
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"The metric `{self.name}` returned a `{type(value).__name__}`: return one value "
                "an example, a scalar, or a dict of them."
            ) from None

    def merge(self, other: Any) -> Self:
        return self.replace(values=merged(self.values, other.values))

    def compute(self) -> Any:
        return values_of(self.values)

    def results(self, name: str) -> dict[str, Any]:
        return results_of(self.values, name)

    def _contribution(self, mode: Metric, value: Any, available: Mapping[str, Any]) -> Metric:
        if isinstance(mode, Modes):
            return Modes(*(self._contribution(part, value, available) for part in mode.modes))
        if value.ndim == 0:
            weighs = isinstance(mode, Mean)
            return Mean.of(value, self._count(available)) if weighs else mode.update(y_pred=value)
        if value.shape[0] != num_examples(available):
            raise ValueError(
                f"The metric `{self.name}` returned an array of shape {value.shape} for a "
                f"batch of {num_examples(available)} examples: return one value per example, or a "
                "scalar."
            )
        refuse_pairs(value.shape, available, f"The metric `{self.name}`")
        asked = request(mode.update)
        if asked.everything or "mask" in asked.names:
            return mode.update(y_pred=value, mask=available.get("mask"))
        if available.get("mask") is not None:
            raise TypeError(
                f"The metric `{self.name}` can't leave out padding, and `{type(mode).__name__}` "
                "can't be weighted: its `update` does not take `mask`. Add that parameter."
            )
        return mode.update(y_pred=value)

    def _count(self, available: Mapping[str, Any]) -> Any:
        """How many examples a scalar stands for."""
        mask = available.get("mask")
        if mask is not None and _looks_at_rows(self.fn):
            raise ValueError(
                f"The metric `{self.name}` returned a scalar, but some rows of the batch are "
                "padding or weighted: return one value per example, or ask for `mask`."
            )
        if not available.keys() & {"x", "batch", "y_pred", "y_true"}:
            return 1  # `apply_gradients` was not told of the batch
        return jnp.sum(
            mask_weights(mask, (num_examples(available),) if mask is None else jnp.shape(mask))
        )


def _looks_at_rows(fn: Callable[..., Any]) -> bool:
    """Whether a function's scalar is of rows, some of which it does not know to be padding."""
    if not is_by_name(fn, METRIC_NAMES):
        return True
    asked = set(request(fn).names)
    return "mask" not in asked and bool(asked & {"y_pred", "y_true", "x", "batch"})


def fold(modes: Any, value: Any, take: Callable[[Metric, Any], Metric]) -> Any:
    """Accumulators with one more value: a metric, or a dict of them for a dict of values.

    **Arguments:**

    - `modes`: the accumulators; one metric for all, before the first dict of values.
    - `take`: from an empty accumulator and a value to the contribution.
    """
    if isinstance(value, Mapping):
        each = modes if isinstance(modes, dict) else dict.fromkeys(value, modes)
        return {key: fold(each[key], part, take) for key, part in value.items()}
    return modes.merge(take(modes.reset(), value))


def merged(modes: Any, others: Any) -> Any:
    """Accumulators as `fold` makes them, merged; one that has seen no dict yet has seen nothing."""
    if isinstance(modes, dict) and isinstance(others, dict):
        return {key: merged(modes[key], others[key]) for key in modes}
    if isinstance(modes, dict) or isinstance(others, dict):
        return modes if isinstance(modes, dict) else others
    return modes.merge(others)


def values_of(modes: Any) -> Any:
    """What accumulators as `fold` makes them have come to."""
    if isinstance(modes, dict):
        return {key: values_of(part) for key, part in modes.items()}
    return modes.compute()


def results_of(modes: Any, name: str) -> dict[str, Any]:
    """The results of accumulators as `fold` makes them."""
    if isinstance(modes, Metric):
        return modes.results(name)
    parts = [results_of(part, f"{name}/{key}") for key, part in modes.items()]
    return {path: value for flat in parts for path, value in flat.items()}


def from_function(
    fn: Callable[..., Any], *modes: Metric, name: str | None = None
) -> FunctionMetric:
    """A metric from any function.

    **Arguments:**

    - `fn`: `fn(y_pred, y_true)`, or a function that asks for what it needs by name. It returns
        per-example values, a scalar that stands for the batch, or a dict of these.
    - `modes`: how its values are reduced, `Mean()` by default. With several modes, each has its
        suffix, as in `Modes`.
    - `name`: its name in the logs; by default that of the function.

    !!! example

        ```python
        et.metrics.from_function(lambda y_pred: abs(y_pred), et.metrics.Max(), name="peak")
        ```
    """
    check_modes("from_function", modes)
    folded = modes[0] if len(modes) == 1 else Modes(*modes) if modes else Mean()
    return FunctionMetric(fn, name or name_of(fn) or "metric", folded)


def as_metric(member: Any) -> Metric:
    """A metric as it is, and a function as one."""
    if isinstance(member, type) and issubclass(member, Metric):
        raise TypeError(f"`{member.__name__}` is a class: pass an instance, `{member.__name__}()`.")
    if not isinstance(member, Metric) and not callable(member):
        raise TypeError(
            f"{member!r} is neither a metric nor a function: pass one, such as `Accuracy()`."
        )
    return member if isinstance(member, Metric) else from_function(member)
