"""The learning rate that an optax optimizer used in a step.

optax keeps no record of it: a rate is bound in the functions that a transformation is made of. So
these are searched for those that scale the updates, by a number or by a schedule.
"""

import math
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._promotion import standard_promotion
from .._types import PyTree
from .hyperparams import injected_now

_REMEDY = (
    "Say what it is at each step, `LearningRate(schedule)` or `LearningRate(1e-3)`; or use an "
    "optimizer that keeps it, `optax.inject_hyperparams(optax.adam)(learning_rate=...)`."
)


class _Scale(NamedTuple):
    """A transformation that multiplies updates with a number, or with a schedule of its count."""

    by: Any
    count: Any = None

    def value(self) -> Any:
        return self.by if self.count is None else self.by(self.count)


class _Found(NamedTuple):
    """What the search takes out of the optimizer's state, in the order of its parts.

    **Arguments:**

    - `counts`: those of schedules.
    - `rates`: injected learning rates.
    """

    counts: Iterator[Any]
    rates: Iterator[Any]


def learning_rate(optimizer: Any, old_state: PyTree, new_state: PyTree) -> Any:
    """The learning rate of one update: the product of all that scales it.

    What comes before a preconditioner such as `scale_by_adam` scales gradients, and does not count.

    **Arguments:**

    - `old_state`, `new_state`: the optimizer's state before and after it.

    **Returns:** a scalar; or a dict of scalars by label, where `optax.multi_transform` has several.

    **Raises:** `ValueError` if the optimizer has none, or it can't be found.
    """
    with standard_promotion():
        # A line search, or a plateau, has its own factor in its state.
        fields = {"ScaleByZoomLinesearchState": "learning_rate", "ReduceLROnPlateauState": "scale"}
        fields["ScaleByBacktrackingLinesearchState"] = "learning_rate"
        nodes = _nodes(new_state, fields)
        factors = [getattr(node, fields[type(node).__name__]) for node in nodes]
        counts = iter([n.count for n in _nodes(old_state, {"ScaleByScheduleState"})])
        state = _Found(counts, iter(injected_now(new_state, "learning_rate")))
        scales = _scales(optimizer.update, state)
        found = {label: _after_preconditioner(part) for label, part in scales.items()}
        rates = {label: [s.value() for s in part] for label, part in found.items() if part}
        is_left = next(state.counts, None) is not None or next(state.rates, None) is not None
        if not rates or is_left:
            raise ValueError(f"The learning rate of the optimizer can't be found. {_REMEDY}")
        return _by_label({label: [*factors, *rate] for label, rate in rates.items()})


def _by_label(factors: dict[str, list[Any]]) -> Any:
    rates = {
        label: jnp.abs(jnp.asarray(math.prod(numbers), jnp.float32))
        for label, numbers in factors.items()
    }
    return rates if len(rates) > 1 else next(iter(rates.values()))


def _nodes(state: PyTree, names: Any) -> list[Any]:
    """The parts of an optimizer's state whose class has one of these names, in order."""

    def has_name(node: Any) -> bool:
        return type(node).__name__ in names

    return [node for node in jax.tree.leaves(state, is_leaf=has_name) if has_name(node)]


def _scales(part: Any, state: _Found) -> dict[str, list[Any]]:
    """The scales within something that an update function is bound to, in order, by label."""
    if isinstance(part, types.MethodType):  # of `optax.MultiSteps`
        return _scales(getattr(part.__self__, "_opt", None), state)
    if isinstance(part, types.FunctionType):
        bound = _bound(part)
        name = f"{part.__module__}.{part.__qualname__}".removesuffix(".<locals>.update_fn")
        if name == "optax._src.transform.scale":
            return {"": [_Scale(bound["step_size"])]}
        if name == "optax._src.transform.scale_by_schedule":
            count = next(state.counts, None)
            return {"": [_Scale(bound["step_size_fn"], count)] if count is not None else []}
        if name.startswith("optax.schedules._inject.inject_hyperparams"):
            rate = next(state.rates, None)
            return {"": [] if rate is None else [_PRECONDITIONED, _Scale(rate)]}
        if name == "optax.transforms._combining.partition":
            return {
                _join(label, inner): scales
                for label in sorted(bound["transforms"], key=str)
                for inner, scales in _scales(bound["transforms"][label], state).items()
            }
        found = _in_order(bound.values(), state)
        return found if not _is_preconditioner(name) else {"": [_PRECONDITIONED]}
    if hasattr(part, "init") and hasattr(part, "update"):
        return _scales(part.update, state)
    return _in_order(part, state) if isinstance(part, tuple | list) else {"": []}


_PRECONDITIONED = object()
"""Stands for a transformation whose result does not depend on the scale of what it is given."""


def _is_preconditioner(name: str) -> bool:
    own = name.rpartition(".")[2]
    by_params = own.startswith("scale_by_param_")
    searches = own.endswith("linesearch")
    return own.startswith("scale_by_") and not by_params and not searches


def _bound(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function takes from the functions around it, by name."""
    code: Any = getattr(function, "__code__")  # noqa: B009
    cells: Any = getattr(function, "__closure__") or ()  # noqa: B009
    return {n: c.cell_contents for n, c in zip(code.co_freevars, cells, strict=True)}


def _in_order(parts: Any, state: _Found) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {"": []}
    for part in parts:
        found = _scales(part, state)
        groups = {
            _join(outer, inner): before + after
            for outer, before in groups.items()
            for inner, after in found.items()
        }
    return groups


def _after_preconditioner(scales: list[Any]) -> list[Any]:
    at = [i for i, scale in enumerate(scales) if scale is _PRECONDITIONED]
    return scales[max(at, default=-1) + 1 :]


def _join(outer: Any, inner: str) -> str:
    return "/".join(filter(None, (str(outer), inner)))
