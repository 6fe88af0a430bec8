"""Compensated sums: what float32 alone would lose is kept beside it."""

import functools
import math
import operator

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from eqxtrain.metrics._sums import CompensatedSum

COUNT = 8

# XLA flushes subnormal numbers to zero, which no sum can make up for.
magnitudes = st.floats(2.0**-20, 2.0**30, width=32)
numbers = hnp.arrays(np.float32, COUNT, elements=magnitudes | magnitudes.map(operator.neg))


@eqx.filter_jit
def terms(values: jax.Array | np.ndarray) -> list[CompensatedSum]:
    return [CompensatedSum.of(value) for value in jnp.asarray(values)]


@eqx.filter_jit
def added(a: CompensatedSum, b: CompensatedSum) -> CompensatedSum:
    return a.merge(b)


def bits(total: CompensatedSum) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(total)]


@given(numbers)
def test_a_sum_agrees_with_math_fsum(values: np.ndarray) -> None:
    total = float(functools.reduce(added, terms(values)).total())
    exact = math.fsum(values.tolist())
    lost = 2.0**-24 * abs(exact) + COUNT * 2.0**-46 * float(np.abs(values.astype(float)).sum())
    assert abs(total - exact) <= lost


@given(numbers)
def test_addition_is_symmetric_bit_for_bit(values: np.ndarray) -> None:
    first, *rest = terms(values)
    a, b = added(first, rest[0]), functools.reduce(added, rest)
    assert bits(added(a, b)) == bits(added(b, a))


@given(numbers)
def test_adding_the_empty_sum_changes_no_bit(values: np.ndarray) -> None:
    total = functools.reduce(added, terms(values))
    assert bits(added(total, total.reset())) == bits(total)
    assert bits(added(total.reset(), total)) == bits(total)
    assert bits(added(total, CompensatedSum())) == bits(total)


def test_a_small_term_survives_between_large_ones() -> None:
    total = functools.reduce(
        CompensatedSum.merge, map(CompensatedSum.of, jnp.array([1e8, 1, -1e8]))
    )
    assert total.total() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.inf, 1.0], np.inf),
        ([1.0, -np.inf], -np.inf),
        ([np.inf, np.inf], np.inf),
        ([3e38, 3e38], np.inf),
        ([np.inf, -np.inf], np.nan),
        ([np.nan, 1.0], np.nan),
    ],
)
def test_what_is_not_finite_behaves_as_in_numpy(values: list[float], expected: float) -> None:
    total = functools.reduce(
        CompensatedSum.merge, map(CompensatedSum.of, jnp.array([*values, 1.0]))
    )
    np.testing.assert_equal(float(total.total()), expected)


def test_the_sum_of_nothing_is_a_float32_zero() -> None:
    for empty in (CompensatedSum(), CompensatedSum().reset()):
        assert empty.total() == 0 and empty.total().dtype == jnp.float32
