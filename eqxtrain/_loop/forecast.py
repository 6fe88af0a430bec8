"""What training will cost, read off the compiled program before it runs."""

import dataclasses
from typing import Any

import jax
import numpy as np

from .. import _data as data, _tree
from .._check import whole_number
from .._engine import call_plan
from .._engine.programs import Options
from .._engine.runner import StepRunner
from .._engine.step import TRAIN
from .._format import Table, num_bytes
from .._losses.class_weight import class_weight_table
from .._types import PyTree
from .ready import ensure_ready


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a training step costs. `str(...)` is a table; notebooks show it as HTML.

    **Arguments:**

    - `batch_size`: how many examples a step sees.
    - `steps_per_call`: how many steps a call of the device runs at most.
    - `flops`: operations of one step. The body of a `lax.scan` counts as often as it runs.
    - `bytes_moved`: bytes that one step reads and writes, by XLA's cost analysis, which counts the
        bodies of a model's inner loops once.
    - `arguments`, `outputs`, `temporaries`: bytes that the program holds while it runs: what goes
        in (the model, the optimizer's state, a stack of batches), what comes out, and what is
        needed between. Outputs that take the place of donated arguments are counted once, there.
    - `example`: bytes of one example.
    - `stack`: bytes of a stack of batches, a part of `arguments`.
    - `beside`: bytes that `fit` holds in addition to the program: the next stack of batches, and
        the caller's learner, unless it is donated.
    - `parameters`, `parameter_bytes`: of the model, frozen ones included.
    - `optimizer_bytes`: of the optimizer's state.
    - `checkpoint_bytes`: of the arrays of a learner. `eqx.tree_serialise_leaves` writes a header of
        some 128 bytes before each.
    - `compile_seconds`: how long it took to trace, lower and compile the program.
    - `memory`: how many bytes of memory there are, if known.
    - `largest_batch`: the largest batch size that fits into `memory`, extrapolated from two.
    - `second`: the forecast for the second batch size.
    """

    batch_size: int
    steps_per_call: int
    flops: float
    bytes_moved: float
    arguments: int
    outputs: int
    temporaries: int
    example: int
    stack: int
    beside: int
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int
    checkpoint_bytes: int
    compile_seconds: float
    memory: int | None = None
    largest_batch: int | None = None
    second: "Forecast | None" = None

    @property
    def peak(self) -> int:
        """Bytes of the program at its peak: arguments, outputs and temporaries."""
        return self.arguments + self.outputs + self.temporaries

    def __str__(self) -> str:
        return "\n".join([str(self._table()), *self._last_lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html() + "".join(f"<div>{line}</div>" for line in self._last_lines())

    def _table(self) -> Table:
        sides = [self] if self.second is None else [self, self.second]
        rows = [[name, *map(cell, sides)] for name, cell in _ROWS.items()]
        return Table(rows, "<" + ">" * len(sides))

    def _last_lines(self) -> list[str]:
        if self.largest_batch is None or self.memory is None:
            return []
        return [f"The largest batch that fits {num_bytes(self.memory)}: {self.largest_batch:,}"]


_ROWS: dict[str, Any] = {
    "Batch size": lambda f: f"{f.batch_size:,}",
    "Steps per call": lambda f: f"{f.steps_per_call:,}",
    "FLOPs per step": lambda f: f"{f.flops:.3g}",
    "Bytes moved per step": lambda f: num_bytes(f.bytes_moved),
    "Peak memory": lambda f: num_bytes(f.peak),
    "  arguments": lambda f: num_bytes(f.arguments),
    "  outputs": lambda f: num_bytes(f.outputs),
    "  temporaries": lambda f: num_bytes(f.temporaries),
    "Held alongside": lambda f: num_bytes(f.beside),
    "Parameters": lambda f: f"{f.parameters:,} ({num_bytes(f.parameter_bytes)})",
    "Optimizer state": lambda f: num_bytes(f.optimizer_bytes),
    "Checkpoint": lambda f: num_bytes(f.checkpoint_bytes),
    "Compile time": lambda f: f"{f.compile_seconds:.2f} s",
}


def forecast(
    learner: Any,
    arrays: tuple[PyTree, ...],
    sizes: int | tuple[int, ...],
    class_weight: Any,
    options: Options,
    donate: bool,
    memory: int | None,
) -> Forecast:
    """The forecast for `fit` with these arguments.

    **Arguments:**

    - `arrays`: `x`, `y` and `sample_weight`, or their shapes.
    - `sizes`: one batch size, or two.
    - `memory`: in bytes; by default that of the device, if it tells.
    """
    sizes = sizes if isinstance(sizes, tuple) else (sizes,)
    if not 1 <= len(sizes) <= 2:
        raise ValueError(f"`batch_size` must be one size or a pair of sizes; got {sizes!r}.")
    if memory is not None:
        memory = whole_number("memory", memory, at_least=1)
    checked = [whole_number("batch_size", size, at_least=1) for size in sizes]
    table = class_weight_table(class_weight, arrays[1])
    source = data.as_source(*map(_stand_in, arrays))
    source.check_passes(2, "x")  # it takes a batch here, which `fit` would then miss
    ready = ensure_ready(learner, _first(source, checked[0]), "train")
    forecasts = [
        _forecast_for_size(ready, source, size, class_weight=table, options=options, donate=donate)
        for size in checked
    ]
    return forecasts[0] if len(forecasts) == 1 else _extrapolate(forecasts[0], forecasts[1], memory)


def _first(source: data.Source, batch_size: int) -> data.Batch:
    with source.open_reader(data.Batching(batch_size)) as reader:
        return reader.peek()


def _stand_in(tree: PyTree) -> PyTree:
    """Replace shapes with arrays that take no memory: views of a single zero."""

    def stand_in(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

    return jax.tree.map(stand_in, tree)


def _forecast_for_size(
    learner: Any,
    source: data.Source,
    batch_size: int,
    *,
    class_weight: Any,
    options: Options,
    donate: bool,
) -> Forecast:
    """Compile `train_step` for batches of this size, or take it from the cache, and look at it."""
    first = _first(source, batch_size)
    runner = StepRunner(learner, TRAIN, class_weight=class_weight, options=options)
    compiled = runner.prepare(first)
    if compiled is None or (executable := compiled.program.wait_for_executable()) is None:
        raise ValueError(
            f"`{type(learner).__name__}.jit_step` compiles nothing ahead of time, so there is no "
            "program to inspect: return what `eqx.filter_jit` or `jax.jit` returns."
        )
    compiled.program.take_compilation()  # recorded here, not in the `fit` that will use it
    analysis: Any = executable.memory_analysis()
    moved: Any = executable.cost_analysis()
    parameters, parameter_bytes = _tree.count_and_bytes(learner.model)
    stack = compiled.plan.capacity * call_plan.nbytes(jax.tree.leaves(first))
    learner_bytes = _tree.count_and_bytes((learner.model, learner.state))[1]
    return Forecast(
        batch_size=data.num_rows(first),
        steps_per_call=compiled.plan.steps,
        flops=compiled.traced.cost.flops,
        bytes_moved=float((moved or {}).get("bytes accessed", float("nan"))),
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        example=call_plan.nbytes(jax.tree.leaves(first)) // data.num_rows(first),
        stack=stack,
        beside=stack + (0 if donate else learner_bytes),
        parameters=parameters,
        parameter_bytes=parameter_bytes,
        optimizer_bytes=_tree.count_and_bytes(learner.state.opt_state)[1],
        checkpoint_bytes=_tree.count_and_bytes(learner)[1],
        compile_seconds=compiled.program.wait_for_seconds(),
    )


def _extrapolate(first: Forecast, second: Forecast, memory: int | None) -> Forecast:
    """Two forecasts as one, with the largest batch that fits."""
    if first.batch_size == second.batch_size:
        raise ValueError(
            f"Both batches of `batch_size` have {first.batch_size} examples (perhaps the data have "
            "no more), which leaves nothing to extrapolate from: give two different sizes."
        )
    memory = _device_memory() if memory is None else memory
    largest = None if memory is None else _largest(first, second, memory)
    return dataclasses.replace(first, second=second, memory=memory, largest_batch=largest)


def _largest(first: Forecast, second: Forecast, memory: int) -> int:
    """The largest batch that fits, on the line through both forecasts.

    Stacks of batches are left out of the line and added afterwards: they do not grow with the
    batch until a single batch exceeds their bound.
    """
    bound = call_plan.max_stack_bytes(jax.default_backend())
    without = [f.peak + f.beside - 2 * f.stack for f in (first, second)]
    slope = (without[1] - without[0]) / (second.batch_size - first.batch_size)
    fixed = without[0] - slope * first.batch_size

    def fits(batch_size: int) -> bool:
        stacks = 2 * max(bound, batch_size * first.example)
        return fixed + max(slope, 0.0) * batch_size + stacks <= memory

    low, high = 0, 1
    while fits(high) and high < 2**40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _device_memory() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return (stats or {}).get("bytes_limit")
