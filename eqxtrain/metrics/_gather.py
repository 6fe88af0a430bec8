"""The modes that depend on the order of a pass: `Last` and `Gather`."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._placement import as_numpy
from .._types import PyTree, Self
from ._base import Metric
from ._masks import counted_rows


@final
class Last(Metric):
    """The last value seen, in the order of the pass."""

    value: Any = eqx.field(default_factory=lambda: np.zeros((), np.float32))
    seen: Bool[Array, ""] | Bool[np.ndarray, ""] = eqx.field(
        default_factory=lambda: np.zeros((), np.bool_)
    )

    @staticmethod
    def of(value: Any) -> "Last":
        """The contribution of one batch: the value itself, an array of any shape."""
        return Last(jnp.asarray(value), jnp.ones((), bool))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        """Take the last row of `y_pred` that is not padding, or `y_pred` itself if scalar."""
        rows = jnp.atleast_1d(jnp.asarray(y_pred))
        real = counted_rows(mask, len(rows))
        index = jnp.max(jnp.where(real, jnp.arange(len(rows)), -1), initial=-1)
        new = type(self)(rows[index] if len(rows) else jnp.zeros(rows.shape[1:]), index >= 0)
        mine = jnp.asarray(self.value)
        same = (mine.shape, mine.dtype) == (new.value.shape, new.value.dtype)
        return self.merge(new) if same else new

    def merge(self, other: "Last") -> Self:
        value = jnp.where(other.seen, other.value, self.value)
        return type(self)(value, jnp.asarray(self.seen) | other.seen)

    def reset(self) -> Self:
        return type(self)(jnp.zeros_like(self.value), jnp.zeros((), bool))

    def compute(self) -> Array:
        value = jnp.asarray(self.value)
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(jnp.float32)
        return jnp.where(self.seen, value, jnp.nan)


@final
class Gather(Metric):
    """The values of every example of a pass, in order, without padding.

    They leave the device after each call, and are joined on the host at the end of the pass.
    """

    values: PyTree = None
    kept: Any = None

    @staticmethod
    def of(values: PyTree, *, counts: Any = None, ids: Any = None, mask: Any = None) -> "Gather":
        """The contribution of one batch.

        **Arguments:**

        - `values`: an array, or a tree of them, with a leading batch axis.
        - `counts`, `ids`: how much each value stands for, and which example it belongs to. With
            either, the result is a dict that holds them beside `values`.
        - `mask`: false for rows that are padding, which are left out.
        """
        extra = {name: v for name, v in {"counts": counts, "ids": ids}.items() if v is not None}
        values = {"values": values, **extra} if extra else values
        rows = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(values)}
        if () in rows:
            raise ValueError(
                "`Gather.of` joins values along their batch axis, which a scalar does not have: "
                "pass one number per example, or use `Mean` or `Last`."
            )
        if len(rows) > 1:
            lengths = ", ".join(str(length) for (length,) in sorted(rows))
            raise ValueError(
                f"`Gather.of` was given {lengths} rows: every array needs one row per example."
            )
        return Gather(values, None if mask is None else counted_rows(mask, *rows.pop()))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Gather.of(y_pred, mask=mask))

    def merge(self, other: Any) -> Self:
        if other.values is None or self.values is None:
            return self if other.values is None else other
        arrays = jax.tree.leaves((self, other))
        join = jnp.concatenate if any(isinstance(a, jax.Array) for a in arrays) else np.concatenate
        masked = self.kept is not None or other.kept is not None
        kept = join([self._rows(), other._rows()]) if masked else None
        return type(self)(jax.tree.map(lambda a, b: join([a, b]), self.values, other.values), kept)

    def _rows(self) -> Any:
        """Which rows are kept; all of them without a mask."""
        rows = len(jax.tree.leaves(self.values)[0])
        return np.ones(rows, bool) if self.kept is None else self.kept

    def reset(self) -> Self:
        return type(self)()

    def compute(self) -> PyTree:
        if self.values is None:
            return np.zeros((0,), np.float32)
        if self.kept is None:
            return self.values
        return jax.tree.map(lambda leaf: as_numpy(leaf)[as_numpy(self.kept)], self.values)

    def results(self, name: str) -> dict[str, Any]:
        return {name: self.compute()}  # a tree that was gathered stays one
