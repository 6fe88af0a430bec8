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


def learning_rate(optimizer: Any, old_state: PyTree, new_state: PyTree) -> Any:
    """The learning rate of one update.

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
        injected = injected_now(new_state, "learning_rate")
        if injected:
            return _by_label({str(i): [*factors, rate] for i, rate in enumerate(injected)})
        counts = iter([n.count for n in _nodes(old_state, {"ScaleByScheduleState"})])
        found = {label: _from_rate_on(s) for label, s in _scales(optimizer.update, counts).items()}
        rates = {label: [s.value() for s in scales] for label, scales in found.items() if scales}
        if not rates or next(counts, None) is not None:
            raise ValueError(f"The learning rate of the optimizer can't be found. {_REMEDY}")
        return _by_label({label: [*factors, *rate] for label, rate in rates.items()})


def _from_rate_on(scales: list[_Scale]) -> list[_Scale]:
    """Leave out the scales before the rate, which are of gradients, such as a loss scale.

    The rate is a schedule, or a negative number, since updates descend. But -1 may be a mere sign,
    and the rate before it.
    """
    rates = [i for i, s in enumerate(scales) if s.count is not None or (s.by < 0 and s.by != -1)]
    return scales[min(rates, default=0) :]


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


def _scales(part: Any, counts: Iterator[Any]) -> dict[str, list[_Scale]]:
    """The scales within something that an update function is bound to, in order, by label.

    **Arguments:**

    - `counts`: of the schedules, in the same order.
    """
    if isinstance(part, types.MethodType):  # of `optax.MultiSteps`
        return _scales(getattr(part.__self__, "_opt", None), counts)
    if isinstance(part, types.FunctionType):
        bound = _bound(part)
        name = f"{part.__module__}.{part.__qualname__}".removesuffix(".<locals>.update_fn")
        if name == "optax._src.transform.scale":
            return {"": [_Scale(bound["step_size"])]}
        if name == "optax._src.transform.scale_by_schedule":
            count = next(counts, None)
            return {"": [_Scale(bound["step_size_fn"], count)] if count is not None else []}
        if name == "optax.transforms._combining.partition":
            return {
                _join(label, inner): scales
                for label in sorted(bound["transforms"], key=str)
                for inner, scales in _scales(bound["transforms"][label], counts).items()
            }
        return _in_order(bound.values(), counts)
    if hasattr(part, "init") and hasattr(part, "update"):
        return _scales(part.update, counts)
    return _in_order(part, counts) if isinstance(part, tuple | list) else {"": []}


def _bound(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function takes from the functions around it, by name."""
    code: Any = getattr(function, "__code__")  # noqa: B009
    cells: Any = getattr(function, "__closure__") or ()  # noqa: B009
    return {n: c.cell_contents for n, c in zip(code.co_freevars, cells, strict=True)}


def _in_order(parts: Any, counts: Iterator[Any]) -> dict[str, list[_Scale]]:
    groups: dict[str, list[_Scale]] = {"": []}
    for part in parts:
        found = _scales(part, counts)
        groups = {
            _join(outer, inner): before + after
            for outer, before in groups.items()
            for inner, after in found.items()
        }
    return groups


def _join(outer: Any, inner: str) -> str:
    return "/".join(filter(None, (str(outer), inner)))
