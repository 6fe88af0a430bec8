"""What a step costs, read off its jaxpr.

`Lowered.cost_analysis` would do the same, but counts the body of a loop once, however often it
runs.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

_FREE = frozenset({"broadcast_in_dim", "reshape", "squeeze", "transpose", "copy", "slice"})
"""Primitives that move data at most, and that XLA mostly fuses away."""


class Cost(NamedTuple):
    """What one step costs.

    **Arguments:**

    - `matmul_flops`: operations in matrix products and convolutions.
    - `elementwise_flops`: all other operations.
    - `primitives`: the names of the primitives in it.
    """

    matmul_flops: float
    elementwise_flops: float
    primitives: frozenset[str]

    @property
    def flops(self) -> float:
        """All operations. The body of a scan counts as often as it runs."""
        return self.matmul_flops + self.elementwise_flops


def cost(jaxpr: Any) -> Cost:
    """The cost of a jaxpr, including the jaxprs that it calls.

    The body of a `while` loop counts once, since nothing tells how often it will run. Of the
    branches of a `cond`, the most expensive one counts.
    """
    matmul = elementwise = 0.0
    primitives: set[str] = set()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        primitives.add(name)
        inner = [cost(sub) for sub in _inner_jaxprs(eqn)]
        if inner:
            trips = eqn.params.get("length", 1) if name == "scan" else 1
            parts = [max(inner, key=lambda part: part.flops)] if name == "cond" else inner
            matmul += trips * sum(part.matmul_flops for part in parts)
            elementwise += trips * sum(part.elementwise_flops for part in parts)
            primitives.update(*(part.primitives for part in inner))
        elif name == "dot_general":
            matmul += 2 * _size(eqn.outvars[0]) * _contracted_size(eqn)
        elif name == "conv_general_dilated":
            matmul += 2 * _size(eqn.outvars[0]) * _window_size(eqn)
        elif name.startswith(("reduce_", "arg")):
            elementwise += _size(eqn.invars[0])
        elif name not in _FREE:
            elementwise += sum(map(_size, eqn.outvars))
    return Cost(matmul, elementwise, frozenset(primitives))


def _inner_jaxprs(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(part, "jaxpr", part)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _contracted_size(eqn: Any) -> int:
    """How many products one output of a matrix product sums."""
    (axes, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return math.prod(shape[axis] for axis in axes)


def _window_size(eqn: Any) -> int:
    """How many products one output of a convolution sums."""
    shape = eqn.invars[1].aval.shape
    out_axis = eqn.params["dimension_numbers"].rhs_spec[0]
    return math.prod(shape) // max(shape[out_axis], 1)
