"""`Metric`: what is folded over batches."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._types import Self


class Metric(eqx.Module):
    """Something measured over a pass, as a monoid: any split of the data gives the same number.

    A metric has four operations.

    - `update(**asked by name) -> Self` takes a batch in. It is called with the arguments that it
      names: `y_pred`, `y_true`, `mask`, `x`, `batch`, `model`, `state`, `loss`, `grads`, ...
    - `merge(other) -> Self` adds what another one has seen. It is associative, and an update
      followed by a merge equals one update with all of the data.
    - `compute()` gives the value: a scalar, an array, or a dict of them. A metric that has seen
      nothing gives nan.
    - `reset() -> Self` is the identity of `merge`.

    Subclasses that hold their accumulators in other metrics (the modes `Mean`, `Sum`, ...) write
    `update` and `compute` alone; `merge` and `reset` go through the parts.

    !!! example

        ```python
        class Bias(et.metrics.Metric):
            error: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

            def update(self, y_pred, y_true, mask=None):
                mean = et.metrics.Mean.of(y_pred - y_true, mask=mask)
                return eqx.tree_at(lambda m: m.error, self, self.error.merge(mean))

            def compute(self):
                return self.error.compute()
        ```
    """

    update: ClassVar[Callable[..., Any]]

    def merge(self, other: Any) -> Self:
        """What `self` and then `other` have seen, together."""
        self._check_has_parts("merge")
        return jax.tree.map(
            lambda mine, theirs: mine.merge(theirs) if isinstance(mine, Metric) else theirs,
            self,
            other,
            is_leaf=self._is_part,
        )

    def reset(self) -> Self:
        """The same metric, having seen nothing."""
        self._check_has_parts("reset")
        return jax.tree.map(
            lambda part: part.reset() if isinstance(part, Metric) else part,
            self,
            is_leaf=self._is_part,
        )

    def compute(self) -> Any:
        """The value of what was seen so far."""
        raise NotImplementedError(f"`{type(self).__name__}` is a metric without a `compute`.")

    def _is_part(self, node: Any) -> bool:
        return isinstance(node, Metric) and node is not self

    def _check_has_parts(self, operation: str) -> None:
        if not any(map(self._is_part, jax.tree.leaves(self, is_leaf=self._is_part))):
            name = type(self).__name__
            raise NotImplementedError(
                f"`{name}` has no accumulators among its fields, so `{operation}` has nothing to "
                f"go through. Hold what is counted in modes (`total: Sum`), or define "
                f"`{name}.merge` and `{name}.reset`."
            )


def _update_missing(self: Metric, **available: Any) -> Any:
    raise NotImplementedError(f"`{type(self).__name__}` is a metric without an `update`.")


Metric.update = _update_missing


def per_example(values: Any, mask: Any = None) -> tuple[Array, Array]:
    """Values with a leading batch axis as one float32 number and one weight (0 or 1) an example.

    Trailing axes are averaged. Masked values are replaced, not multiplied: padding may be nan.
    """
    values = jnp.asarray(values).astype(jnp.float32)
    if values.ndim > 1:
        values = jnp.mean(values, axis=tuple(range(1, values.ndim)))
    if mask is None:
        return values, jnp.ones(values.shape, jnp.float32)
    real = real_rows(mask, len(values))
    return jnp.where(real, values, jnp.float32(0)), real.astype(jnp.float32)


def real_rows(mask: Any, rows: int) -> Bool[Array, "rows"]:
    """A mask as one bool a row, true where the row is no padding."""
    real = jnp.asarray(mask).astype(bool)
    if real.shape != (rows,):
        raise ValueError(
            f"`mask` has the shape {real.shape} for {rows} examples: it has one value an example."
        )
    return real


def examples(available: Mapping[str, Any]) -> int:
    """How many rows the batch has, padding included: the first axis of `x`, else of `y_pred`."""
    for name in ("x", "batch", "y_pred", "y_true"):
        for leaf in jax.tree.leaves(available.get(name)):
            if np.ndim(leaf) > 0:
                return np.shape(leaf)[0]
    raise TypeError("There is no telling how many examples there are: give `y_pred` or `x`.")


def same_shape(who: str, y_pred: Any, y_true: Any) -> None:
    """Refuse predictions and labels of different shapes, which would broadcast in silence."""
    if np.shape(y_pred) != np.shape(y_true):
        raise ValueError(
            f"`{who}` compares element by element, but `y_pred` has the shape {np.shape(y_pred)} "
            f"and `y_true` {np.shape(y_true)}: reshape one of them to match (`y[:, None]` adds "
            "the axis of a single output)."
        )
