"""How many steps one call runs, and how many batches a stack holds.

Both depend on the program, the shapes and the platform alone, so that a rerun decides alike.
"""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from .cost import Cost

StepsPerCall = int | Literal["auto"]

_MAX_STACK_BYTES = {"cpu": 4 * 2**20}
"""On a CPU, a stack that outgrows the cache costs more than the calls that it saves (measured).
Elsewhere 16 MiB."""

_MAX_STEPS = {"cpu": 256}
"""Beyond this, the overhead of a call is lost in the noise. Elsewhere 16: a stack is
transferred whole, even if an iterable has filled only a part of it."""

_MAX_CALL_SECONDS = 0.25
"""A call can't be interrupted, so Ctrl-C and the progress bar wait for this long at most."""

_MATMUL_RATE = {"cpu": 1e11}
_ELEMENTWISE_RATE = {"cpu": 2e9}
"""Operations per second, to the order of magnitude; an accelerator does a hundred times as many."""

_SLOW_IN_LOOPS = {"cpu": ("conv_general_dilated", "fft")}
"""Primitives that XLA's CPU backend runs on all threads only outside of loops (measured: up to ten
times as fast)."""


class CallPlan(NamedTuple):
    """How batches of one shape are run.

    **Arguments:**

    - `steps`: how many steps one call may run.
    - `capacity`: how many batches a stack holds.
    """

    steps: int
    capacity: int

    @property
    def key(self) -> tuple[int, bool]:
        """The part of the plan that a program depends on."""
        return self.capacity, self.steps > 1


def max_stack_bytes(platform: str) -> int:
    """How large a stack of batches may be, unless a single batch is larger."""
    return _MAX_STACK_BYTES.get(platform, 16 * 2**20)


def nbytes(arrays: Any) -> int:
    """How many bytes arrays take, or arrays of these shapes."""
    return sum(math.prod(a.shape) * jnp.dtype(a.dtype).itemsize for a in arrays)


def steps_per_call(requested: StepsPerCall, cost: Cost, capacity: int, platform: str) -> int:
    """How many steps one call runs.

    **Arguments:**

    - `requested`: what the user asked for; an int is taken as it is.
    - `cost`: the cost of one step.
    - `capacity`: how many batches a stack holds.
    """
    if requested != "auto":
        return requested
    if cost.primitives.intersection(_SLOW_IN_LOOPS.get(platform, ())):
        return 1
    seconds = cost.matmul_flops / _MATMUL_RATE.get(platform, 1e13)
    seconds += cost.elementwise_flops / _ELEMENTWISE_RATE.get(platform, 2e11)
    return _power_of_two_below(min(capacity, _MAX_CALL_SECONDS / max(seconds, 1e-9)))


def stack_capacity(requested: StepsPerCall, bytes_per_batch: int, platform: str) -> int:
    """How many batches a stack holds.

    It depends neither on the number of steps in a call nor on that of batches in a pass, so that
    one program serves them all.

    **Arguments:**

    - `requested`: how many steps per call the user asked for; the stack has room for them.
    - `bytes_per_batch`: the bytes of a batch, of the values that a step emits, and of the
        accumulators.
    """
    max_steps = min(
        _MAX_STEPS.get(platform, 16), max_stack_bytes(platform) / max(bytes_per_batch, 1)
    )
    capacity = _power_of_two_below(max_steps)
    return capacity if requested == "auto" else max(capacity, requested)


def _power_of_two_below(number: int | float) -> int:
    return 1 << max(int(number).bit_length() - 1, 0)
