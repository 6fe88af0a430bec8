"""Sums that keep their digits: a float32 total beside its accumulated rounding error."""

import math
from collections.abc import Sequence
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Self
from ._monoid import Monoid

Floats = Float[Array, "..."] | Float[np.ndarray, "..."]


@final
class CompensatedSum(Monoid):
    """A float32 sum as an unevaluated pair `value + error`; of arrays, elementwise.

    Adding 0.1 a hundred million times in plain float32 stops at 2097152; the pair keeps about 48
    bits. Each addition is Knuth's exact TwoSum (*The Art of Computer Programming*, vol. 2, 4.2.2),
    which is symmetric, so `a + b` and `b + a` are the same bits, and adding zero changes nothing.

    An empty sum may be a scalar zero, which takes the shape of the first term.
    """

    value: Floats = eqx.field(default_factory=lambda: np.zeros((), np.float32))
    error: Floats = eqx.field(default_factory=lambda: np.zeros((), np.float32))

    @staticmethod
    def of(value: Array) -> "CompensatedSum":
        """The sum of one term."""
        value = jnp.asarray(value).astype(jnp.float32)
        return CompensatedSum(value, jnp.zeros_like(value))

    @staticmethod
    def zeros(shape: tuple[int, ...] = ()) -> "CompensatedSum":
        """The empty sum."""
        return CompensatedSum(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def merge(self, other: "CompensatedSum") -> Self:
        total, lost = _two_sum(self.value, other.value)
        value, error = _two_sum(total, lost + (jnp.asarray(self.error) + other.error))
        return type(self)(value, error)

    def reset(self) -> Self:
        zeros = jnp.zeros(jnp.shape(self.value), jnp.float32)
        return type(self)(zeros, zeros)

    def total(self) -> Float[Array, "..."]:
        """The sum, in float32."""
        return jnp.asarray(self.value) + self.error


def merge_sums(
    mine: Sequence[CompensatedSum], theirs: Sequence[CompensatedSum]
) -> list[CompensatedSum]:
    """Merge each sum of `mine` with the same one of `theirs`, as one vector, in few kernels."""
    shapes = [np.shape(a.value) for a in mine]
    if shapes != [np.shape(b.value) for b in theirs]:
        return [a.merge(b) for a, b in zip(mine, theirs, strict=True)]
    if not mine:
        return []
    merged = _as_vector(mine).merge(_as_vector(theirs))
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    values, errors = (jnp.split(array, ends[:-1]) for array in (merged.value, merged.error))
    pairs = zip(values, errors, shapes, strict=True)
    return [CompensatedSum(v.reshape(shape), e.reshape(shape)) for v, e, shape in pairs]


def _as_vector(sums: Sequence[CompensatedSum]) -> CompensatedSum:
    values, errors = (
        jnp.concatenate([jnp.ravel(array) for array in arrays])
        for arrays in ([s.value for s in sums], [s.error for s in sums])
    )
    return CompensatedSum(values, errors)


def _two_sum(a: Floats, b: Floats) -> tuple[Array, Array]:
    total = jnp.asarray(a) + b
    shadow = total - a
    lost = (a - (total - shadow)) + (b - shadow)
    # For an infinite total, `lost` would be `inf - inf`, which is nan.
    return total, jnp.where(jnp.isfinite(total), lost, 0.0)


@final
class Moments(Monoid):
    """The weight, means and centred products of one or several variables.

    They are merged as in Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances*, 1979, without differences of large squares.

    **Arguments:**

    - `weight`: `Σw`.
    - `mean`: of each variable, `(*outputs, variables)`.
    - `products`: `Σ w·(u - ū)·(v - v̄)` for each pair, `(*outputs, variables, variables)`.
    """

    weight: CompensatedSum = eqx.field(default_factory=CompensatedSum)
    mean: Floats = eqx.field(default_factory=lambda: np.zeros((), np.float32))
    products: CompensatedSum = eqx.field(default_factory=CompensatedSum)

    @staticmethod
    def of(values: Float[Array, "rows *outputs n"], weight: Float[Array, "rows"]) -> "Moments":
        """The moments of one batch. Values of weight 0 must be finite."""
        total = jnp.sum(weight)
        each = weight.reshape(weight.shape + (1,) * (values.ndim - 1))
        # Relative to one of the values, so that the mean of equal values is exact.
        pivot = values[jnp.argmax(weight != 0)] if len(values) else jnp.zeros(values.shape[1:])
        offset = jnp.sum(each * (values - pivot[None]), axis=0) / jnp.where(total > 0, total, 1)
        mean = jnp.where(total > 0, pivot + offset, 0)
        centred = jnp.where(each > 0, values - mean[None], 0)
        products = (each * centred)[..., :, None] * centred[..., None, :]
        return Moments(CompensatedSum.of(total), mean, CompensatedSum.of(jnp.sum(products, axis=0)))

    @staticmethod
    def zeros(variables: int) -> "Moments":
        """The moments of nothing."""
        mean = np.zeros(variables, np.float32)
        return Moments(CompensatedSum(), mean, CompensatedSum.zeros((variables, variables)))

    def merge(self, other: "Moments") -> Self:
        mine, theirs = self.weight.total(), other.weight.total()
        weight = self.weight.merge(other.weight)
        both = weight.total()
        share = jnp.where(theirs > 0, theirs / jnp.where(both > 0, both, 1), 0)
        delta = jnp.where((mine > 0) & (theirs > 0), jnp.asarray(other.mean) - self.mean, 0)
        outer = delta[..., :, None] * delta[..., None, :] if delta.ndim else delta
        between = CompensatedSum.of(outer * mine * share)
        mean = jnp.where(mine > 0, self.mean + delta * share, other.mean)
        products = self.products.merge(other.products).merge(between)
        return type(self)(weight, mean, products)

    def reset(self) -> Self:
        mean = jnp.zeros(jnp.shape(self.mean), jnp.float32)
        return type(self)(self.weight.reset(), mean, self.products.reset())
