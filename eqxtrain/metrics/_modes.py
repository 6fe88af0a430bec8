"""Modes: the accumulators of numbers that other metrics are made of."""

from typing import Any, Literal, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._naming import unique
from .._request import request, snake_case
from .._types import Self
from ._base import Metric
from ._compensated import CompensatedSum, Moments
from ._masks import combine_weights, mask_weights, masked_values

Flag = Bool[Array, ""] | Bool[np.ndarray, ""]
Number = Float[Array, ""] | Float[np.ndarray, ""]


def _zero() -> np.ndarray:
    return np.zeros((), np.float32)


def _false() -> np.ndarray:
    return np.zeros((), np.bool_)


@final
class Mean(Metric):
    """The mean over examples, `Σ(w·v) / Σw`."""

    total: CompensatedSum = eqx.field(default_factory=CompensatedSum)
    weight: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(value: Any, weight: Any = None, *, mask: Any = None) -> "Mean":
        """The contribution of one batch.

        **Arguments:**

        - `value`: a scalar that is itself a mean, or values with a leading batch axis (trailing
            axes are averaged).
        - `weight`: for a scalar, the number of examples (or tokens) that it is the mean of, 1 by
            default; for a batch, a weight for each example, or for each value.
        - `mask`: false for rows that are padding, or a weight for each.
        """
        value = jnp.asarray(value)
        if value.ndim == 0:
            if mask is not None:
                raise ValueError("`Mean.of` a scalar can't use a `mask`: pass its `weight`.")
            weight = jnp.asarray(1 if weight is None else weight).astype(jnp.float32)
            if weight.ndim != 0:
                raise ValueError(
                    f"`Mean.of` was given an array of shape {weight.shape} as the weight of a "
                    "scalar: pass one number."
                )
            value = jnp.where(weight == 0, jnp.float32(0), value.astype(jnp.float32))
            return Mean(CompensatedSum.of(value * weight), CompensatedSum.of(weight))
        if weight is not None:
            weights = jnp.asarray(weight)
            if weights.ndim == 0 or weights.shape != value.shape[: weights.ndim]:
                raise ValueError(
                    f"`Mean.of` was given {value.shape[0]} examples and weights of shape "
                    f"{weights.shape}: give one weight per example."
                )
            mask = combine_weights(weights, mask)
        values, weight = masked_values(value, mask)
        return Mean(CompensatedSum.of(jnp.sum(values * weight)), CompensatedSum.of(jnp.sum(weight)))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Mean.of(y_pred, mask=mask))

    def compute(self) -> Float[Array, ""]:
        return self.total.total() / self.weight.total()


@final
class Sum(Metric):
    """The sum over examples and trailing axes, `Σ(w·v)`. The sum of nothing is 0."""

    total: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Sum":
        """The contribution of one batch: a scalar, or values with a leading batch axis."""
        value = jnp.asarray(value).astype(jnp.float32)
        weight = mask_weights(mask, value.shape)
        return Sum(CompensatedSum.of(jnp.sum(jnp.where(weight == 0, 0, value * weight))))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Sum.of(y_pred, mask=mask))

    def compute(self) -> Float[Array, ""]:
        return self.total.total()


def _extreme(value: Any, mask: Any, worst: float) -> tuple[Array, Array]:
    """The extreme of a batch, and whether there was any value."""
    value = jnp.asarray(value).astype(jnp.float32)
    real = mask_weights(mask, value.shape) != 0
    reduce = jnp.max if worst < 0 else jnp.min
    return reduce(jnp.where(real, value, worst), initial=worst), jnp.any(real)


@final
class Min(Metric):
    """The smallest value, over examples and trailing axes."""

    value: Number = eqx.field(default_factory=_zero)
    seen: Flag = eqx.field(default_factory=_false)

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Min":
        """The contribution of one batch: a scalar, or values with a leading batch axis."""
        return Min(*_extreme(value, mask, np.inf))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Min.of(y_pred, mask=mask))

    def merge(self, other: "Min") -> Self:
        mine = jnp.where(self.seen, self.value, jnp.inf)
        theirs = jnp.where(other.seen, other.value, jnp.inf)
        return type(self)(jnp.minimum(mine, theirs), jnp.asarray(self.seen) | other.seen)

    def reset(self) -> Self:
        return type(self)(jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), bool))

    def compute(self) -> Float[Array, ""]:
        return jnp.where(self.seen, self.value, jnp.nan)


@final
class Max(Metric):
    """The largest value, over examples and trailing axes."""

    value: Number = eqx.field(default_factory=_zero)
    seen: Flag = eqx.field(default_factory=_false)

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Max":
        """The contribution of one batch: a scalar, or values with a leading batch axis."""
        return Max(*_extreme(value, mask, -np.inf))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Max.of(y_pred, mask=mask))

    def merge(self, other: "Max") -> Self:
        mine = jnp.where(self.seen, self.value, -jnp.inf)
        theirs = jnp.where(other.seen, other.value, -jnp.inf)
        return type(self)(jnp.maximum(mine, theirs), jnp.asarray(self.seen) | other.seen)

    def reset(self) -> Self:
        return type(self)(jnp.full((), -jnp.inf, jnp.float32), jnp.zeros((), bool))

    def compute(self) -> Float[Array, ""]:
        return jnp.where(self.seen, self.value, jnp.nan)


@final
class Std(Metric):
    """The standard deviation of a population: divided by n, not by n - 1.

    **Arguments:**

    - `over`: `"examples"`, where each example counts once, its trailing axes averaged first; or
        `"steps"`, where the mean of each step counts once, so that the result depends on how the
        data are split into batches.
    """

    over: Literal["examples", "steps"] = eqx.field(default="examples", static=True)
    moments: Moments = eqx.field(default_factory=lambda: Moments.zeros(1))

    def __check_init__(self) -> None:
        if self.over not in ("examples", "steps"):
            raise ValueError(
                f'`Std(over={self.over!r})` is not valid: choose "examples" or "steps".'
            )

    @staticmethod
    def of(
        value: Any, *, mask: Any = None, over: Literal["examples", "steps"] = "examples"
    ) -> "Std":
        """The contribution of one batch: a scalar, or values with a leading batch axis."""
        values, weight = masked_values(jnp.atleast_1d(jnp.asarray(value)), mask)
        values, weight = values.reshape(-1), weight.reshape(-1)
        if over == "steps":
            total = jnp.sum(weight)
            mean = jnp.sum(values * weight) / jnp.where(total == 0, 1, total)
            values, weight = mean[None], (total != 0).astype(jnp.float32)[None]
        return Std(over, Moments.of(values[:, None], weight))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Std.of(y_pred, mask=mask, over=self.over))

    def compute(self) -> Float[Array, ""]:
        products = self.moments.products.total()[0, 0]
        return jnp.sqrt(products / self.moments.weight.total())


def check_modes(who: str, modes: tuple[Any, ...]) -> None:
    """Refuse what is not an accumulator of one value."""
    for mode in modes:
        if not isinstance(mode, Metric):
            got = f"the class `{mode.__name__}`" if isinstance(mode, type) else repr(mode)
            raise TypeError(f"`{who}` takes modes, such as `Mean()` or `Max()`; got {got}.")
        if any(name != "y_pred" for name in request(mode.update).required):
            raise TypeError(
                f"`{who}` takes modes, which accumulate one value, but `{type(mode).__name__}` "
                f"asks for {', '.join(request(mode.update).required)}."
            )


@final
class Modes(Metric):
    """Several modes of one value, each logged with its suffix: `norm_mean`, `norm_max`.

    !!! example

        ```python
        et.metrics.Modes(et.metrics.Mean(), et.metrics.Std())  # in `metrics=`: of `y_pred`
        et.metrics.Modes.of(norm, et.metrics.Mean(), et.metrics.Max())  # in the logs of a step
        ```

    **Arguments:**

    - `modes`: any number of `Mean()`, `Sum()`, `Min()`, `Max()`, `Std()`, `Last()`, `Gather()`.
    """

    modes: tuple[Metric, ...]

    def __init__(self, *modes: Metric) -> None:
        if not modes:
            raise TypeError("`Modes` takes at least one mode, `Modes(Mean(), Max())`.")
        check_modes("Modes", modes)
        self.modes = modes

    @staticmethod
    def of(value: Any, *modes: Metric, mask: Any = None) -> "Modes":
        """The contribution of one batch to each of `modes`."""
        return Modes(*modes).reset().update(value, mask=mask)

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return type(self)(*(mode.update(y_pred, mask=mask) for mode in self.modes))

    def compute(self) -> dict[str, Any]:
        return dict(zip(self._suffixes(), (mode.compute() for mode in self.modes), strict=True))

    def results(self, name: str) -> dict[str, Any]:
        parts = zip(self._suffixes(), self.modes, strict=True)
        flat = [mode.results(f"{name}_{suffix}") for suffix, mode in parts]
        return {path: value for part in flat for path, value in part.items()}

    def _suffixes(self) -> list[str]:
        names: list[str] = []
        for mode in self.modes:
            names.append(unique(snake_case(type(mode).__name__), names))
        return names
