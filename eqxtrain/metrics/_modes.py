"""The seven modes: the accumulators that everything else is measured with."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._types import Self
from ._base import Metric, per_example, real_rows
from ._sums import CompensatedSum, Scalar32


def _zero() -> np.ndarray:
    return np.zeros((), np.float32)


def _false() -> np.ndarray:
    return np.zeros((), np.bool_)


def _rows(mask: Any, value: Array) -> Bool[Array, "rows *ones"]:
    """A mask of rows in the rank of `value`."""
    real = real_rows(mask, value.shape[0] if value.ndim else 1)
    return real.reshape(real.shape + (1,) * (value.ndim - 1)) if value.ndim else real[0]


def _scalar(who: str, value: Any, remedy: str) -> Array:
    array = jnp.asarray(value)
    if array.ndim != 0:
        raise ValueError(f"`{who}` was given an array of shape {array.shape} {remedy}")
    return array.astype(jnp.float32)


@final
class Mean(Metric):
    """The mean over examples, `Σ(w·v) / Σw`."""

    total: CompensatedSum = eqx.field(default_factory=CompensatedSum)
    weight: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(value: Any, weight: Any = None, *, mask: Any = None) -> "Mean":
        """A contribution made by hand.

        **Arguments:**

        - `value`: a scalar that is itself a mean, or values with a leading batch axis (trailing
            axes are averaged).
        - `weight`: what it stands for. For a scalar, how many examples (or tokens), 1 by default;
            for a batch, a weight for each example.
        - `mask`: false for rows that are padding.
        """
        value = jnp.asarray(value)
        if value.ndim == 0:
            if mask is not None:
                raise ValueError("`Mean.of` of a scalar can't use a `mask`: give its `weight`.")
            weight = _scalar("Mean.of", 1 if weight is None else weight, "as weight of a scalar.")
            value = jnp.where(weight == 0, jnp.float32(0), value.astype(jnp.float32))
            return Mean(CompensatedSum.of(value * weight), CompensatedSum.of(weight))
        values, real = per_example(value, mask)
        if weight is not None:
            weight = jnp.asarray(weight).astype(jnp.float32)
            if weight.shape != values.shape:
                raise ValueError(
                    f"`Mean.of` was given {values.shape[0]} examples and weights of shape "
                    f"{weight.shape}: give one weight an example."
                )
            real = jnp.where(real > 0, weight, jnp.float32(0))
            values = jnp.where(real != 0, values, jnp.float32(0))
        return Mean(CompensatedSum.of(jnp.sum(values * real)), CompensatedSum.of(jnp.sum(real)))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Mean.of(y_pred, mask=mask))

    def merge(self, other: "Mean") -> Self:
        return type(self)(self.total + other.total, self.weight + other.weight)

    def reset(self) -> Self:
        return type(self)(self.total.zero(), self.weight.zero())

    def compute(self) -> Float[Array, ""]:
        return self.total.total() / self.weight.total()


@final
class Sum(Metric):
    """The sum over examples and trailing axes. The sum of nothing is 0."""

    total: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Sum":
        """A contribution made by hand: a scalar, or values with a leading batch axis."""
        value = jnp.asarray(value).astype(jnp.float32)
        if mask is not None:
            value = jnp.where(_rows(mask, value), value, jnp.float32(0))
        return Sum(CompensatedSum.of(jnp.sum(value)))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Sum.of(y_pred, mask=mask))

    def merge(self, other: "Sum") -> Self:
        return type(self)(self.total + other.total)

    def reset(self) -> Self:
        return type(self)(self.total.zero())

    def compute(self) -> Float[Array, ""]:
        return self.total.total()


class _Extreme(Metric):
    """The part that `Min` and `Max` share. `sign` is +1 for the maximum, -1 for the minimum."""

    value: Scalar32 = eqx.field(default_factory=_zero)
    seen: Bool[Array, ""] | Bool[np.ndarray, ""] = eqx.field(default_factory=_false)

    @classmethod
    def _of(cls, value: Any, mask: Any, worst: float) -> Self:
        value = jnp.asarray(value).astype(jnp.float32)
        if mask is None:
            seen = jnp.asarray(value.size > 0)
        else:
            real = _rows(mask, value)
            seen = jnp.any(real) & (value.size > 0)
            value = jnp.where(real, value, worst)
        reduce = jnp.max if worst < 0 else jnp.min
        return cls(reduce(value, initial=worst), seen)

    def compute(self) -> Float[Array, ""]:
        return jnp.where(self.seen, self.value, jnp.nan)


@final
class Min(_Extreme):
    """The smallest value, over examples and trailing axes."""

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Min":
        """A contribution made by hand: a scalar, or values with a leading batch axis."""
        return Min._of(value, mask, np.inf)

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Min.of(y_pred, mask=mask))

    def merge(self, other: "Min") -> Self:
        mine = jnp.where(self.seen, self.value, jnp.inf)
        theirs = jnp.where(other.seen, other.value, jnp.inf)
        return type(self)(jnp.minimum(mine, theirs), jnp.asarray(self.seen) | other.seen)

    def reset(self) -> Self:
        return type(self)(jnp.full((), jnp.inf, jnp.float32), jnp.zeros((), bool))


@final
class Max(_Extreme):
    """The largest value, over examples and trailing axes."""

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Max":
        """A contribution made by hand: a scalar, or values with a leading batch axis."""
        return Max._of(value, mask, -np.inf)

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Max.of(y_pred, mask=mask))

    def merge(self, other: "Max") -> Self:
        mine = jnp.where(self.seen, self.value, -jnp.inf)
        theirs = jnp.where(other.seen, other.value, -jnp.inf)
        return type(self)(jnp.maximum(mine, theirs), jnp.asarray(self.seen) | other.seen)

    def reset(self) -> Self:
        return type(self)(jnp.full((), -jnp.inf, jnp.float32), jnp.zeros((), bool))


@final
class Std(Metric):
    """The standard deviation over examples (of the population: divided by n).

    Each example counts once: its trailing axes are averaged first.

    Merged as Chan, Golub and LeVeque do (*Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances*, 1979): no difference of large squares.
    """

    weight: CompensatedSum = eqx.field(default_factory=CompensatedSum)
    mean: Scalar32 = eqx.field(default_factory=_zero)
    squares: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(value: Any, *, mask: Any = None) -> "Std":
        """A contribution made by hand: a scalar, or values with a leading batch axis."""
        values, real = per_example(jnp.atleast_1d(jnp.asarray(value)), mask)
        weight = jnp.sum(real)
        mean = jnp.sum(values) / jnp.maximum(weight, 1)
        squares = jnp.sum(jnp.where(real > 0, jnp.square(values - mean), 0))
        return Std(CompensatedSum.of(weight), mean, CompensatedSum.of(squares))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        return self.merge(Std.of(y_pred, mask=mask))

    def merge(self, other: "Std") -> Self:
        mine, theirs = self.weight.total(), other.weight.total()
        weight = self.weight + other.weight
        share = jnp.where(theirs > 0, theirs / jnp.maximum(weight.total(), 1), 0)
        delta = jnp.asarray(other.mean) - self.mean
        between = CompensatedSum.of(jnp.square(delta) * mine * share)
        mean = jnp.where(mine > 0, self.mean + delta * share, other.mean)
        return type(self)(weight, mean, self.squares + other.squares + between)

    def reset(self) -> Self:
        return type(self)(self.weight.zero(), jnp.zeros((), jnp.float32), self.squares.zero())

    def compute(self) -> Float[Array, ""]:
        return jnp.sqrt(self.squares.total() / self.weight.total())


@final
class Last(Metric):
    """The last value seen, in the order of the pass."""

    value: Any = eqx.field(default_factory=_zero)
    seen: Bool[Array, ""] | Bool[np.ndarray, ""] = eqx.field(default_factory=_false)

    @staticmethod
    def of(value: Any) -> "Last":
        """A contribution made by hand: the value itself, an array of any shape."""
        return Last(jnp.asarray(value), jnp.ones((), bool))

    def update(self, y_pred: Any, mask: Any = None) -> Self:
        """Take the last row of `y_pred` that is not padding."""
        rows = jnp.asarray(y_pred)
        if mask is None:
            return type(self)(rows[-1], jnp.ones((), bool))
        real = real_rows(mask, len(rows))
        index = jnp.max(jnp.where(real, jnp.arange(len(rows)), -1))
        new = type(self)(rows[index], index >= 0)
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
        if jnp.issubdtype(value.dtype, jnp.inexact):
            return jnp.where(self.seen, value, jnp.nan)
        return jnp.where(self.seen, value.astype(jnp.float32), jnp.nan)


@final
class Gather(Metric):
    """The values of every example of a pass, in order, padding removed.

    An *emission*: its values leave the device as they come and are joined once, on the host.
    """

    values: PyTree = None

    @staticmethod
    def of(values: PyTree) -> "Gather":
        """A contribution made by hand: an array, or a tree of them, with a leading batch axis."""
        for leaf in jax.tree.leaves(values):
            if np.ndim(leaf) == 0:
                raise ValueError(
                    "`Gather.of` joins values along their batch axis, and a scalar has none: "
                    "give it one number an example, or use `Mean` or `Last`."
                )
        return Gather(values)

    def update(self, y_pred: Any) -> Self:
        return self.merge(Gather.of(y_pred))

    def merge(self, other: "Gather") -> Self:
        if other.values is None:
            return self
        if self.values is None:
            return type(self)(other.values)
        if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((self, other))):
            join = jnp.concatenate
        else:
            join = np.concatenate
        return type(self)(jax.tree.map(lambda a, b: join([a, b]), self.values, other.values))

    def reset(self) -> Self:
        return type(self)(None)

    def compute(self) -> PyTree:
        return np.zeros((0,), np.float32) if self.values is None else self.values
