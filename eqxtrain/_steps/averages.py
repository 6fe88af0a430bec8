"""Averages of the weights, which training keeps beside the weights themselves."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from .._check import check_real_number, whole_number
from .._identity.static_leaf import StaticLeaf
from .._promotion import standard_promotion
from .._types import FilterSpec, PyTree
from .optimize import partition


@final
@dataclasses.dataclass(frozen=True)
class SWA:
    """Stochastic weight averaging, for `Learner(ema=...)`: the plain mean of the weights.

    The mean is over the weights after the steps `start`, `start + every`, `start + 2 * every`, ...
    of the learner's life, or with `optax.MultiSteps` after so many of its updates. Before the first
    of them, `averaged()` returns the weights themselves.
    From Izmailov et al., [Averaging Weights Leads to Wider Optima and Better
    Generalization](https://arxiv.org/abs/1803.05407).

    **Arguments:**

    - `start`: the step to begin at.
    - `every`: how many steps lie between two contributions.

    !!! example

        ```python
        learner = et.Learner(model, optax.sgd(0.1), loss=loss, ema=et.SWA(start=1000, every=100))
        ```
    """

    start: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", whole_number("SWA(start)", self.start, at_least=0))
        object.__setattr__(self, "every", whole_number("SWA(every)", self.every, at_least=1))


class Averages(eqx.Module):
    """An average of the trainable weights under way.

    **Arguments:**

    - `weighted`: what the weights contributed so far, like the model, with None for what is not
        trained. Low-precision weights are summed in float32.
    - `total`: the sum of the factors of these contributions; divided by it, `weighted` is the
        average. 0 before the first one.
    - `count`: how many contributions there were.
    - `updates`: with `optax.MultiSteps`, how many updates it had made at the last look.
    """

    weighted: PyTree
    total: Float32[Array, ""]
    count: Int32[Array, ""]
    updates: Int32[Array, ""]


Averaging = float | SWA | StaticLeaf | None
"""A constant decay, stochastic weight averaging, or a schedule of the decay."""


def as_averaging(ema: Any) -> Averaging:
    """The user's `ema`, made hashable.

    **Raises:** `ValueError` or `TypeError` if it is neither a decay, nor a schedule, nor `SWA`.
    """
    if ema is None or isinstance(ema, SWA | StaticLeaf):
        return ema
    if isinstance(ema, type):
        raise TypeError(f"`ema` is the class `{ema.__name__}`: give an instance of it.")
    if callable(ema):
        return StaticLeaf(ema)
    if not isinstance(ema, int | float):
        raise TypeError(
            "`ema` must be a decay such as 0.999, a function from the step to the decay, or "
            f"`et.SWA(start=..., every=...)`; got {ema!r}."
        )
    check_real_number("ema", ema, at_least=0)
    if ema >= 1:
        raise ValueError(f"`ema` must be a decay below 1, such as 0.999; got {ema!r}.")
    return float(ema)


def init(averaging: Averaging, spec: FilterSpec, model: PyTree) -> Averages | None:
    """The average before the first contribution; None if there is none to keep."""
    if averaging is None:
        return None
    params, _ = partition(spec, model)
    weighted = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _dtype(leaf)), params)
    none = jnp.zeros((), jnp.int32)
    return Averages(weighted, jnp.zeros((), jnp.float32), none, none)


def _dtype(leaf: Any) -> Any:
    is_low = jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32
    return jnp.float32 if is_low else leaf.dtype


def update(
    averaging: Averaging,
    averages: Averages,
    spec: FilterSpec,
    *,
    model: PyTree,
    opt_state: PyTree,
    step: Int32[Array, ""],
) -> Averages:
    """Add the weights after an update of the optimizer.

    With `optax.MultiSteps`, wherever it stands in the optimizer, the steps that count are its own:
    those that change the weights.

    **Arguments:**

    - `step`: how many steps the learner had taken before.
    """
    note_updated()
    is_due, updates = jnp.ones((), bool), averages.updates
    if made := [node.gradient_step for node in _nodes(opt_state, "MultiStepsState")]:
        updates = jnp.max(jnp.stack(made)).astype(jnp.int32)
        step, is_due = updates - 1, updates > averages.updates
    if isinstance(averaging, SWA):
        after = step + 1 - averaging.start
        is_due &= (after >= 0) & (after % averaging.every == 0)
        # Taken with these factors, all contributions so far weigh the same.
        count = averages.count.astype(jnp.float32)
        decay = count / (count + 1)
    elif isinstance(averaging, StaticLeaf):
        with standard_promotion():
            decay = jnp.asarray(averaging.value(step), jnp.float32)
    else:
        decay = jnp.asarray(averaging, jnp.float32)

    def add(sum: Any, leaf: Any) -> Any:
        new = sum + (1 - decay).astype(sum.dtype) * (leaf.astype(sum.dtype) - sum)
        return jnp.where(is_due, new, sum)  # weights that do not count may be infinite

    return Averages(
        jax.tree.map(add, averages.weighted, partition(spec, model)[0]),
        jnp.where(is_due, averages.total + (1 - decay) * (1 - averages.total), averages.total),
        averages.count + is_due.astype(jnp.int32),
        updates,
    )


def _nodes(state: PyTree, name: str) -> list[Any]:
    """The parts of an optimizer's state whose class has this name."""

    def has_name(node: Any) -> bool:
        return type(node).__name__ == name

    return [node for node in jax.tree.leaves(state, is_leaf=has_name) if has_name(node)]


_updated: ContextVar[list[bool] | None] = ContextVar("updated", default=None)


def note_updated() -> None:
    """Report that the current step has updated the averages."""
    if (found := _updated.get()) is not None:
        found.append(True)


@contextmanager
def watching() -> Iterator[list[bool]]:
    """Watch a step; returns a list that is empty as long as it has not updated the averages."""
    found: list[bool] = []
    token = _updated.set(found)
    try:
        yield found
    finally:
        _updated.reset(token)


@jax.jit
def _means(sums: list[Any], params: list[Any], total: Any) -> list[Any]:
    """Averages of arrays, in the dtypes of `params`; these before there are any."""
    divisor = jnp.where(total > 0, total, 1)

    def mean(sum: Any, leaf: Any) -> Any:
        return jnp.where(total > 0, (sum / divisor.astype(sum.dtype)).astype(leaf.dtype), leaf)

    return [mean(sum, leaf) for sum, leaf in zip(sums, params, strict=True)]


def averaged(learner: Any) -> PyTree:
    """The model of a learner with averaged weights.

    **Raises:** `ValueError` if it keeps no average, or has no state yet.
    """
    averages = getattr(learner.state, "averages", None)
    if averages is None:
        remedy = "give it one, `Learner(..., ema=0.999)` or `learner.replace(ema=0.999)`"
        if learner.ema is not None:
            remedy = "`init` or `fit` it first"
        raise ValueError(f"This learner has no averaged weights: {remedy}.")
    params, rest = partition(learner.trainable, learner.model)
    leaves, structure = jax.tree.flatten(params)
    means = _means(jax.tree.leaves(averages.weighted), leaves, averages.total)
    return eqx.combine(jax.tree.unflatten(structure, means), rest)
