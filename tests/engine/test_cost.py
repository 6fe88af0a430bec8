"""What a step costs."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from jaxtyping import Array

from eqxtrain._engine import cost as _cost


def cost(fn: Any, *args: Any) -> _cost.Cost:
    return _cost.cost(jax.make_jaxpr(fn)(*args).jaxpr)


@pytest.mark.slow
def test_matrix_products_are_counted_as_xla_counts_them() -> None:
    model = eqx.nn.MLP(64, 32, 128, 3, key=jr.key(0))
    x = jnp.ones((16, 64))
    loss = lambda model, x: jnp.mean(jax.vmap(model)(x) ** 2)
    params, static = eqx.partition(model, eqx.is_array)
    fn = lambda params, x: jax.grad(lambda p: loss(eqx.combine(p, static), x))(params)
    ours = cost(fn, params, x)
    analysis: Any = jax.jit(fn).lower(params, x).compile().cost_analysis()
    assert ours.flops == pytest.approx(analysis["flops"], rel=0.05)
    weights = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    first = 2 * 16 * 64 * 128  # the gradient of the input is not wanted
    assert ours.matmul_flops == 6 * 16 * weights - first


def test_convolutions_are_counted_by_their_window() -> None:
    x, kernel = jnp.ones((4, 3, 10, 12)), jnp.ones((8, 3, 3, 5))
    found = cost(lambda x: jax.lax.conv(x, kernel, (1, 1), "VALID"), x)
    assert found.matmul_flops == 2 * (4 * 8 * 8 * 8) * (3 * 3 * 5)
    grouped = lambda x: jax.lax.conv_general_dilated(
        x, jnp.ones((3, 1, 3, 5)), (1, 1), "VALID", feature_group_count=3
    )
    assert cost(grouped, x).matmul_flops == 2 * (4 * 3 * 8 * 8) * (3 * 5)


def test_the_body_of_a_scan_counts_as_often_as_it_runs() -> None:
    w = jnp.ones((8, 8))

    def unrolled(h: Array, times: int) -> Array:
        for _ in range(times):
            h = jnp.tanh(h @ w)
        return h

    def scanned(h: Array, times: int) -> Array:
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), h, None, length=times)[0]

    h = jnp.ones((4, 8))
    for times in (1, 10):
        by_scan, by_hand = (functools.partial(fn, times=times) for fn in (scanned, unrolled))
        assert cost(by_scan, h).flops == cost(by_hand, h).flops
    twice = lambda h: jax.jit(lambda h: scanned(h, 5))(scanned(h, 5))
    assert cost(twice, h).flops == cost(lambda h: unrolled(h, 10), h).flops


def test_of_the_branches_of_a_condition_the_dearer_counts() -> None:
    w = jnp.ones((8, 8))
    fn = lambda h: jax.lax.cond(h[0, 0] > 0, lambda h: h @ w @ w, lambda h: h, h)
    assert cost(fn, jnp.ones((4, 8))).matmul_flops == 2 * 2 * 4 * 8 * 8
