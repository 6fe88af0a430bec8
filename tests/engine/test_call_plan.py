"""How many steps one call runs, and how many batches a stack holds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, strategies as st

from eqxtrain._engine import call_plan
from eqxtrain._engine.cost import Cost


def cost_of(matmul_flops: float, *primitives: str) -> Cost:
    return Cost(float(matmul_flops), 0.0, frozenset(primitives))


def test_small_steps_are_fused_and_large_ones_are_not() -> None:
    def auto(flops: float, capacity: int = 256) -> int:
        return call_plan.steps_per_call("auto", cost_of(flops), capacity, "cpu")

    assert auto(1e5) == 256
    assert auto(1e5, capacity=4) == 4
    assert auto(1e13) == 1
    assert auto(1e9) > auto(8e9) >= 1


def test_an_int_is_heeded_and_auto_knows_what_is_slow_in_loops() -> None:
    conv = cost_of(1e5, "conv_general_dilated")
    assert call_plan.steps_per_call("auto", conv, 256, "cpu") == 1
    assert call_plan.steps_per_call("auto", conv, 256, "gpu") == 256
    assert call_plan.steps_per_call(7, conv, 256, "cpu") == 7


@given(requested=st.integers(1, 300) | st.just("auto"), bytes_per_batch=st.integers(0, 2**24))
def test_a_stack_has_room_for_a_call_and_is_bounded(requested: Any, bytes_per_batch: int) -> None:
    capacity = call_plan.stack_capacity(requested, bytes_per_batch, "cpu")
    by_itself = call_plan.stack_capacity("auto", bytes_per_batch, "cpu")
    assert 1 <= by_itself <= 256
    assert by_itself * bytes_per_batch <= call_plan.max_stack_bytes("cpu") or by_itself == 1
    assert capacity == (by_itself if requested == "auto" else max(by_itself, requested))


def test_bytes_are_those_of_the_arrays() -> None:
    shapes = [jax.ShapeDtypeStruct((3, 4), jnp.bfloat16), np.ones(5, np.float32)]
    assert call_plan.nbytes(shapes) == 24 + 20
