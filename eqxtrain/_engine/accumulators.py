"""What a pass has measured so far."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PyTree

from .. import _placement, _tree
from ..metrics import _logs
from ..metrics._base import Direction, direction_of
from .call_queue import Call, CallQueue
from .programs import TracedStep
from .step import Y_PRED

Pick = Callable[[int], Any]
"""Returns the value after one step of the stack."""


class Computing:
    """Values that the device computes.

    **Arguments:**

    - `values`: the arrays, which no later call donates.
    - `array_classes`: the classes of those that are to be of another one than NumPy's own.
    """

    def __init__(self, values: dict[str, Any], array_classes: _logs.ArrayClasses) -> None:
        self._values = values
        self._array_classes = array_classes

    def have_arrived(self) -> bool:
        """Whether `fetch` would not wait."""
        return _placement.is_ready(self._values)

    def fetch(self) -> dict[str, Any]:
        """The values; waits until they have arrived."""
        return _logs.as_result(_placement.fetch(self._values), self._array_classes)


class Accumulators:
    """The accumulators of a pass: arrays on the device, and what its calls have emitted.

    **Attributes:**

    - `leaves`: the arrays, which each call takes and gives back.
    """

    def __init__(self, calls: CallQueue) -> None:
        self._calls = calls
        self._traced: TracedStep | None = None
        self._agreeing: list[TracedStep] = []  # those that are known to log the same
        self.leaves, self._static = _tree.partition_leaves({})
        self._empty_leaves: list[Any] = self.leaves
        self._computed_leaves: list[Any] | None = None
        self._rows: tuple[Call | None, dict[str, Pick]] = (None, {})
        self._cleared: Mapping[str, Any] = {}
        self._directions: tuple[tuple[str, ...], dict[str, Direction | None]] | None = None

    def clear(self) -> None:
        """Empty them, for another pass over data."""
        self._calls.clear()
        self._rows, self._computed_leaves = (None, {}), None
        self._cleared = self._metrics() or self._cleared
        self.leaves, self._static = _tree.partition_leaves({})

    def prepare_for(self, traced: TracedStep) -> None:
        """Begin with the empty accumulators of a step, or go on if there are some.

        **Raises:** `ValueError` if the step logs something else than those before.
        """
        if not any(known is traced for known in self._agreeing):
            if self._static.leaves:
                _logs.check_same_structure(self._metrics(), traced.empty)
            self._agreeing.append(traced)
        if not self._static.leaves:
            self.leaves, self._static = _tree.partition_leaves(_placement.copy(traced.empty))
            self._empty_leaves = self.leaves
        self._traced = traced

    def merge(self, logs: Mapping[str, Any]) -> None:
        """Merge the logs of a step that ran eagerly."""
        metrics = _logs.merge(self._metrics() or _logs.empty_accumulators(logs), logs)
        metrics = _placement.as_jax_arrays(metrics)
        self.leaves, self._static = _tree.partition_leaves(metrics)

    @property
    def names(self) -> tuple[str, ...]:
        """What is logged, once a batch was traced."""
        return tuple(self._metrics())

    def metric_directions(self) -> dict[str, Direction | None]:
        """For each metric, which of its values are best. Costs less than those of all values."""
        metrics = self._metrics() or self._cleared
        return {n: direction_of(m) for n, m in metrics.items() if not _logs.is_hidden(n)}

    def directions(self) -> dict[str, Direction | None]:
        """The names that `compute_logs` returns, and which of their values are best.

        Of the pass before, if this one has measured nothing yet; empty if there was none.
        """
        metrics = self._metrics() or self._cleared
        if self._directions is None or self._directions[0] != tuple(metrics):
            self._directions = tuple(metrics), _logs.directions(metrics)
        return dict(self._directions[1])

    def compute_logs(self, *, whole: bool = True, after: int | None = None) -> dict[str, Any]:
        """Compute and fetch what was measured so far; waits for the device.

        **Arguments:**

        - `whole`: whether the pass is over. What is gathered is concatenated only then.
        - `after`: the step of the stack that the numbers should be as of; None for the last one.
        """
        if after is not None and (rows := self._rows_of_last_call()):
            return {name: pick(after) for name, pick in rows.items()}
        metrics: Mapping[str, Any] = self._metrics()
        if not whole:
            metrics = _logs.without_gathers(metrics)
        if self._traced is None or any(map(_logs.has_gather, metrics.values())):
            metrics = self._calls.with_emitted(metrics)
            values = _logs.compute(metrics)
        else:
            values = self._traced.compute(metrics)
        result = _logs.as_result(_placement.fetch(values), _logs.array_classes(metrics))
        if whole:
            _logs.emit_warnings(metrics)
        return result

    def _rows_of_last_call(self) -> dict[str, Pick]:
        """The values after each step of the last call, computed together once somebody asks."""
        call = self._calls.last
        if self._traced is None or call is None or not call.output.metrics_per_step:
            return {}  # it had one step
        if self._rows[0] is not call:
            values = _placement.fetch(self._traced.compute_rows(call.output, call.step_range))
            classes = _logs.array_classes(self._metrics())
            self._rows = call, _logs.as_rows(values, classes)
        return self._rows[1]

    def begin_computing(self) -> Computing | None:
        """Have the device compute what is measured up to the last call, without waiting for it.

        What gathers is left out: its value is computed on the host. None as long as there is
        nothing to compute, or no program to do it.
        """
        is_empty = not self.leaves or self.leaves is self._empty_leaves
        if is_empty or self.leaves is self._computed_leaves:  # there is nothing newer
            return None
        compute = _logs.compute
        if self._traced is not None:  # a program for batches of another shape does the same
            able = next((traced for traced in self._agreeing if traced.can_compute()), None)
            if able is None:
                return None
            compute = able.compute
        self._computed_leaves = self.leaves
        metrics = _logs.without_gathers(self._metrics())
        return Computing(compute(metrics), _logs.array_classes(metrics))

    def compute_outputs(self) -> PyTree:
        """Of a predict pass: what the step returned, one row an example, as NumPy arrays."""
        return _placement.fetch(self.with_emitted()[Y_PRED].compute())

    def with_emitted(self) -> Any:
        """The accumulators with what was gathered in its place; waits for the device."""
        return self._calls.with_emitted(self._metrics())

    def _metrics(self) -> dict[str, Any]:
        return self._static.merge(self.leaves)
