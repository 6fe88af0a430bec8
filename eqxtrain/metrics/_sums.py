"""Sums that keep their digits: a float32 total with the error of its roundings beside it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar32 = Float[Array, ""] | Float[np.ndarray, ""]


class CompensatedSum(eqx.Module):
    """A float32 sum as an unevaluated pair `value + error`.

    Adding 0.1 a hundred million times in plain float32 stops at 2097152; the pair keeps about 48
    bits. Each addition is Knuth's exact TwoSum (*The Art of Computer Programming*, vol. 2, 4.2.2),
    which is symmetric, so `a + b` and `b + a` are the same bits, and adding zero changes nothing.
    """

    value: Scalar32 = eqx.field(default_factory=lambda: np.zeros((), np.float32))
    error: Scalar32 = eqx.field(default_factory=lambda: np.zeros((), np.float32))

    @staticmethod
    def of(value: Array) -> "CompensatedSum":
        """The sum of one number."""
        value = jnp.asarray(value).astype(jnp.float32)
        return CompensatedSum(value, jnp.zeros_like(value))

    def __add__(self, other: "CompensatedSum") -> "CompensatedSum":
        total, lost = _two_sum(self.value, other.value)
        value, error = _two_sum(total, lost + (self.error + other.error))
        return CompensatedSum(value, error)

    def total(self) -> Float[Array, ""]:
        """The sum, in float32."""
        return jnp.asarray(self.value) + self.error

    def zero(self) -> "CompensatedSum":
        """The empty sum."""
        return CompensatedSum(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def _two_sum(a: Scalar32, b: Scalar32) -> tuple[Array, Array]:
    total = jnp.asarray(a) + b
    shadow = total - a
    lost = (a - (total - shadow)) + (b - shadow)
    # An infinite total has lost nothing: `inf - inf` must not make it nan.
    return total, jnp.where(jnp.isfinite(total), lost, 0.0)
