"""Plain functions as metrics."""

from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp

from .._request import METRIC_NAMES, is_by_name, name_of, request
from .._types import Self
from ._base import Metric, num_examples
from ._calling import call_on_predictions, refuse_pairs
from ._masks import mask_weights
from ._mode_metric import ModeMetric
from ._modes import Mean, Modes, check_modes


@final
class FunctionMetric(ModeMetric):
    """The values of a function, accumulated by a mode. Made by `from_function`.

    `fn` is called as losses are: by name if it asks for any of our names, else as
    `fn(y_pred, y_true)`. It returns per-example values (trailing axes are averaged), a scalar that
    stands for the batch, or a dict of these.
    """

    fn: Callable[..., Any]
    name: str = eqx.field(default="metric", static=True)

    def asking_function(self) -> Callable[..., Any]:
        return self.fn

    def update(self, **available: Any) -> Self:
        value = call_on_predictions(
            self.fn, available, names=METRIC_NAMES, role="metric", who=self.name
        )
        return self.accumulated(
            value, lambda mode, part: self._contribution(mode, self._array(part), available)
        )

    def _array(self, value: Any) -> Any:
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"The metric `{self.name}` returned a `{type(value).__name__}`: return one value "
                "an example, a scalar, or a dict of them."
            ) from None

    def _contribution(self, mode: Metric, value: Any, available: Mapping[str, Any]) -> Metric:
        if isinstance(mode, Modes):
            return Modes(*(self._contribution(part, value, available) for part in mode.modes))
        if value.ndim == 0:
            if isinstance(mode, Mean):  # the only mode that heeds how much a scalar stands for
                return Mean.of(value, self._count(available))
            return mode.update(y_pred=value)
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
            return 1  # `apply_gradients` was called without the batch
        return jnp.sum(
            mask_weights(mask, (num_examples(available),) if mask is None else jnp.shape(mask))
        )


def _looks_at_rows(fn: Callable[..., Any]) -> bool:
    """Whether a function reads the rows of a batch without knowing which of them are padding."""
    if not is_by_name(fn, METRIC_NAMES):
        return True
    asked = set(request(fn).names)
    return "mask" not in asked and bool(asked & {"y_pred", "y_true", "x", "batch"})


def from_function(
    fn: Callable[..., Any], *modes: Metric, name: str | None = None
) -> FunctionMetric:
    """A metric from any function.

    **Arguments:**

    - `fn`: `fn(y_pred, y_true)`, or a function that asks for what it needs by name. It returns
        per-example values, a scalar that stands for the batch, or a dict of these.
    - `modes`: how its values are reduced, `Mean()` by default. With several modes, the logs have a
        suffix for each, as with `Modes`.
    - `name`: its name in the logs; by default that of the function.

    !!! example

        ```python
        et.metrics.from_function(lambda y_pred: abs(y_pred), et.metrics.Max(), name="peak")
        ```
    """
    check_modes("from_function", modes)
    mode = modes[0] if len(modes) == 1 else Modes(*modes) if modes else Mean()
    return FunctionMetric(fn, name or name_of(fn) or "metric", mode=mode)


def as_metric(member: Any) -> Metric:
    """The metric itself, or a function as a metric."""
    if isinstance(member, type) and issubclass(member, Metric):
        raise TypeError(f"`{member.__name__}` is a class: pass an instance, `{member.__name__}()`.")
    if not isinstance(member, Metric) and not callable(member):
        raise TypeError(
            f"{member!r} is neither a metric nor a function: pass one, such as `Accuracy()`."
        )
    return member if isinstance(member, Metric) else from_function(member)
