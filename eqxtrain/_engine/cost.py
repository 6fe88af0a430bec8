"""What a step costs, from its program alone, and how many steps a call should run.

Operations are counted in the jaxpr: the `cost_analysis` of a lowered program counts the body of a
loop once, however often it runs.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

StepsPerCall = int | Literal["auto"]

_STACK_BYTES = {"cpu": 2 * 2**20}
"""The most that a stack of batches holds, unless a single batch is larger: on a CPU what its cache
holds, since a larger stack is slower than a call is (measured); 16 MB elsewhere."""

_MOST = {"cpu": 256}
"""Steps in a call. With more, what a call costs by itself is lost in the noise. Elsewhere 16, since
a stack is transferred whole, and one of an iterable holds what is there."""

_CALL_SECONDS = 0.25
"""How long a call should be at most, so that Ctrl-C and the bar need not wait."""

_MATMUL_RATE = {"cpu": 1e11}
_ELEMENT_RATE = {"cpu": 2e9}
"""Operations a second, to the order of magnitude; an accelerator does a hundred times as many."""

_SLOW_IN_LOOPS = {"cpu": ("conv_general_dilated", "fft")}
"""What XLA's CPU backend runs on all threads only outside of loops (measured: up to ten times)."""

_FREE = frozenset({"broadcast_in_dim", "reshape", "squeeze", "transpose", "copy", "slice"})


def stack_bytes(platform: str) -> int:
    """The most that a stack of batches holds, unless a single batch is larger."""
    return _STACK_BYTES.get(platform, 16 * 2**20)


class Cost(NamedTuple):
    """What one step costs.

    **Arguments:**

    - `multiplied`: operations in matrix products and convolutions.
    - `elements`: all others.
    - `primitives`: the names of what it does.
    """

    multiplied: float
    elements: float
    primitives: frozenset[str]

    @property
    def flops(self) -> float:
        """All operations. The body of a scan counts as often as it runs."""
        return self.multiplied + self.elements


def cost(jaxpr: Any) -> Cost:
    """The cost of a jaxpr, that of what it calls included.

    The body of a `while` loop, whose trips are unknown, counts once.
    """
    multiplied = elements = 0.0
    primitives: set[str] = set()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        primitives.add(name)
        inner = [cost(sub) for sub in _inner(eqn)]
        if inner:
            trips = eqn.params.get("length", 1) if name == "scan" else 1
            parts = [max(inner, key=lambda part: part.flops)] if name == "cond" else inner
            multiplied += trips * sum(part.multiplied for part in parts)
            elements += trips * sum(part.elements for part in parts)
            primitives.update(*(part.primitives for part in inner))
        elif name == "dot_general":
            multiplied += 2 * _size(eqn.outvars[0]) * _contracted(eqn)
        elif name == "conv_general_dilated":
            multiplied += 2 * _size(eqn.outvars[0]) * _window(eqn)
        elif name.startswith(("reduce_", "arg")):
            elements += _size(eqn.invars[0])
        elif name not in _FREE:
            elements += sum(map(_size, eqn.outvars))
    return Cost(multiplied, elements, frozenset(primitives))


def _inner(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _contracted(eqn: Any) -> int:
    (axes, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return math.prod(shape[axis] for axis in axes)


def _window(eqn: Any) -> int:
    """How many products one output of a convolution sums."""
    shape = eqn.invars[1].aval.shape
    out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
    return math.prod(shape) // max(shape[out_axis], 1)


def nbytes(shapes: Any) -> int:
    """How many bytes arrays take, or arrays of these shapes."""
    return sum(math.prod(s.shape) * jnp.dtype(s.dtype).itemsize for s in shapes)


def steps_per_call(asked: StepsPerCall, spent: Cost, capacity: int, platform: str) -> int:
    """How many steps one call runs: a function of program, shapes and platform alone.

    **Arguments:**

    - `asked`: what the user wants; an int is heeded.
    - `spent`: the cost of one step.
    - `capacity`: how many batches a stack holds.
    """
    if asked != "auto":
        return asked
    if spent.primitives.intersection(_SLOW_IN_LOOPS.get(platform, ())):
        return 1
    seconds = spent.multiplied / _MATMUL_RATE.get(platform, 1e13)
    seconds += spent.elements / _ELEMENT_RATE.get(platform, 2e11)
    return _power_below(min(capacity, _CALL_SECONDS / max(seconds, 1e-9)))


def stack_capacity(asked: StepsPerCall, held: int, platform: str) -> int:
    """How many batches a stack holds.

    It is the same for every number of steps in a call and of batches in a pass, so that one program
    serves them all.

    **Arguments:**

    - `asked`: how many steps the user wants in a call, for which there must be room.
    - `held`: the bytes of a batch, and of what a step gives beside.
    """
    capacity = _power_below(min(_MOST.get(platform, 16), stack_bytes(platform) / max(held, 1)))
    return capacity if asked == "auto" else max(capacity, asked)


def _power_below(number: int | float) -> int:
    return 1 << max(int(number).bit_length() - 1, 0)
