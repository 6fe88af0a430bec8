"""Compensated sums and moments: what float32 alone would lose is kept beside it."""

import functools
import math
import operator
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from eqxtrain.metrics._compensated import CompensatedSum, Moments

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


@given(hnp.arrays(np.float32, (COUNT, 2, 3), elements=magnitudes | magnitudes.map(operator.neg)))
def test_a_sum_of_arrays_agrees_with_math_fsum_in_each_place(values: np.ndarray) -> None:
    total = np.asarray(functools.reduce(added, terms(values)).total(), float)
    exact = np.apply_along_axis(lambda terms: math.fsum(terms.tolist()), 0, values)
    lost = COUNT * 2.0**-46 * np.abs(values.astype(float)).sum(0)
    assert (np.abs(total - exact) <= 2.0**-24 * np.abs(exact) + lost).all()


def test_an_empty_sum_takes_the_shape_of_what_is_added() -> None:
    some = CompensatedSum.of(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    for total in (CompensatedSum().merge(some), some.merge(CompensatedSum())):
        np.testing.assert_array_equal(total.total(), [[1, 2], [3, 4]])
    assert some.reset().total().shape == CompensatedSum.zeros((2, 2)).total().shape == (2, 2)
    assert not some.reset().total().any()


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.float16, jnp.bfloat16, jnp.bool_])
def test_a_term_of_any_dtype_is_summed_in_float32(dtype: Any) -> None:
    term = CompensatedSum.of(jnp.array([0, 1]).astype(dtype))
    total = functools.reduce(added, [term] * 300).total()
    assert total.dtype == jnp.float32 and total.tolist() == [0, 300]


@eqx.filter_jit
def moments(values: Any, weight: Any) -> Moments:
    return Moments.of(jnp.asarray(values), jnp.asarray(weight))


@eqx.filter_jit
def together(a: Moments, b: Moments) -> Moments:
    return a.merge(b)


def numpys(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's means and centred products of each output, in float64."""
    outputs = np.moveaxis(values.reshape(len(values), -1, values.shape[-1]), 1, 0).astype(float)
    mean = [np.average(v, axis=0, weights=weight) for v in outputs]
    cov = [np.cov(v.T, aweights=weight, ddof=0) * weight.sum(dtype=float) for v in outputs]
    shape = values.shape[1:]
    return np.reshape(mean, shape), np.reshape(cov, (*shape, shape[-1]))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["", "sum of weights below 1"])
@pytest.mark.parametrize("shape", [(40, 2), (40, 3, 2)], ids=str)
def test_moments_of_unequal_batches_are_numpys_covariances(
    shape: tuple[int, ...], scale: float, offset: float, rng: np.random.Generator
) -> None:
    values = (offset + rng.normal(size=shape)).astype(np.float32)
    weight = (scale * rng.uniform(size=40) * (np.arange(40) % 5 > 0)).astype(np.float32)
    parts = [
        moments(v, w)
        for v, w in zip(np.split(values, [5, 25]), np.split(weight, [5, 25]), strict=True)
    ]
    mean, products = numpys(values, weight)
    atol = 1e-3 * np.abs(products).max()
    for total in (functools.reduce(together, parts), functools.reduce(together, parts[::-1])):
        np.testing.assert_allclose(total.weight.total(), weight.sum(dtype=float), rtol=1e-6)
        np.testing.assert_allclose(total.mean, mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(total.products.total(), products, rtol=1e-3, atol=atol)


@pytest.mark.slow
def test_moments_of_nothing_change_no_bit(rng: np.random.Generator) -> None:
    seen = moments(rng.normal(size=(9, 2)).astype(np.float32), np.ones(9, np.float32))
    nothing = moments(np.ones((9, 2), np.float32), np.zeros(9, np.float32))
    for empty in (Moments(), seen.reset(), nothing):
        for both in (together(seen, empty), together(empty, seen)):
            assert eqx.tree_equal(both, seen)


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e4 / 3])
def test_equal_values_have_no_moments_about_their_mean(value: float) -> None:
    parts = [moments(np.full((n, 2), value, np.float32), np.ones(n, np.float32)) for n in (7, 9)]
    assert not functools.reduce(together, parts).products.total().any()


def test_a_million_batches_keep_their_covariance() -> None:
    batch = jnp.array([[1e4 - 1, 0.0], [1e4 + 1, 1.0]])

    @jax.jit
    def folded() -> Moments:
        one = Moments.of(batch, jnp.ones(2))
        start = one.reset()
        return jax.lax.fori_loop(0, 10**6, lambda _, total: total.merge(one), start)

    total = folded()
    covariance = np.asarray(total.products.total() / total.weight.total())
    np.testing.assert_allclose(covariance, np.cov(np.asarray(batch).T, ddof=0), rtol=1e-4)
