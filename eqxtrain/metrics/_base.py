"""`Metric`: what is measured over batches and merged."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from .._check import known_fields
from .._tree import with_fields
from .._types import Self, replaces_fields
from ._monoid import Monoid


class Metric(Monoid):
    """Something measured over a pass, however its data are split into batches.

    A metric has four operations.

    - `update(**asked by name) -> Self` takes a batch in. It is called with the arguments that it
      names: `y_pred`, `y_true`, `mask`, `x`, `batch`, `model`, `state`, `loss`, `grads`, ...
    - `merge(other) -> Self` adds what another metric has seen. It is associative, and updating two
      metrics and merging them equals updating one with all of the data.
    - `compute()` returns the value: a scalar, an array, or a dict of them. The value of a metric
      that has seen nothing is nan.
    - `reset() -> Self` returns one that has seen nothing.

    `mask` says how much each row counts: None for 1 each, false for padding, or a weight (see
    `Weighted`), with further axes for weights of tokens. A metric that passes it on to its parts
    is right in all of these cases.

    A subclass that accumulates in other metrics (the modes `Mean`, `Sum`, ...) needs only `update`
    and `compute`; `merge` and `reset` go through the parts.

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

    def compute(self) -> Any:
        """The value of what it has seen so far."""
        raise NotImplementedError(
            f"`{type(self).__name__}` does not define `compute`: a metric needs one."
        )

    def results(self, name: str) -> dict[str, Any]:
        """What `compute` returns, by the names that it is logged under: `name`, or `name/key`."""
        return _flat(self.compute(), name)

    @replaces_fields
    def replace(self, **parts: Any) -> Self:
        """The same metric with other parts. Its constructor is not called."""
        known_fields(type(self), parts, [field.name for field in dataclasses.fields(self)])
        return with_fields(self, **parts)

    def warning(self) -> str | None:
        """What users should know about the value of a pass: a sentence without its subject."""
        return None

    def asking_function(self) -> Callable[..., Any]:
        """The function whose parameters are what this metric asks for."""
        return self.update


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


def mask_weights(mask: Any, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """How much each of the values of a batch counts, as float32 of the given shape.

    **Arguments:**

    - `mask`: None, or a bool or a weight for each row, or for each value of it.
    - `shape`: of the values, the batch axis first.
    """
    if mask is None:
        return jnp.ones(shape, jnp.float32)
    mask = jnp.asarray(mask)
    if mask.ndim == 0 or mask.ndim > len(shape) or mask.shape != shape[: mask.ndim]:
        raise ValueError(
            f"`mask` has shape {mask.shape}, but the values have shape {shape}: give one mask "
            "value or weight per example, or one per value."
        )
    mask = mask.astype(jnp.float32)
    return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def masked_values(values: Any, mask: Any = None) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Values with a leading batch axis as float32, and how much each counts.

    Axes beyond those of the mask (beyond the first, without one) are averaged. What counts nothing
    is replaced, not multiplied: padding may be nan.
    """
    values = jnp.asarray(values).astype(jnp.float32)
    rank = 1 if mask is None else max(jnp.ndim(mask), 1)
    weight = mask_weights(mask, values.shape)
    if values.ndim > rank:
        axes = tuple(range(rank, values.ndim))
        values, weight = jnp.mean(values, axis=axes), weight[(...,) + (0,) * len(axes)]
    return jnp.where(weight == 0, 0, values), weight


def combine_weights(weight: Any, mask: Any) -> Float[Array, "..."]:
    """A weight and a mask (or None) as one weight, of the higher of their ranks."""
    shape = max(jnp.shape(weight), () if mask is None else jnp.shape(mask), key=len)
    counts = mask_weights(mask, shape)
    return jnp.where(counts == 0, 0, counts * mask_weights(weight, shape))


def row_mask(mask: Any, rows: int) -> Bool[Array, "rows"]:
    """A mask as one bool a row, true where the row is not padding."""
    real = jnp.asarray(mask).astype(bool)
    if real.shape != (rows,):
        raise ValueError(
            f"`mask` has shape {real.shape} for {rows} examples: give one value per example."
        )
    return real


def num_examples(available: Mapping[str, Any]) -> int:
    """How many rows the batch has, padding included: the first axis of `x`, else of `y_pred`."""
    for name in ("x", "batch", "y_pred", "y_true"):
        for leaf in jax.tree.leaves(available.get(name)):
            if np.ndim(leaf) > 0:
                return np.shape(leaf)[0]
    raise TypeError("The number of examples is unknown: pass `y_pred` or `x`.")


def check_same_shape(who: str, y_pred: Any, y_true: Any) -> None:
    """Refuse predictions and labels of different shapes, which would broadcast in silence."""
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
    """Whether the values of arrays can be looked at: nothing is traced."""
    return not any(isinstance(array, Tracer) for array in arrays)
