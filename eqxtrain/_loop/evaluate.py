"""Passes that change no learner: `evaluate`, `predict`, and the validation of a `fit`."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

import jax

from .. import _data as data
from .._engine.programs import Options
from .._engine.runner import StepRunner
from .._engine.step import StepKind
from .._history import History
from .._losses import class_weight as _class_weight
from .._naming import unique
from .._steps import frozen_leaves as _frozen
from .._steps.ladder import AbstractLearner
from .._types import PyTree
from .._warn import warn
from ..callbacks import Run
from ..callbacks._base import Callbacks
from .driver import Driver
from .interrupt import Interrupt
from .ready import Padding, ensure_ready
from .rescue import noting, plainly, telling_of_exceptions

L = TypeVar("L", bound=AbstractLearner[Any])


class PassInputs(NamedTuple):
    """What `fit`, `evaluate` and `predict` are given alike, checked.

    **Arguments:**

    - `source`, `batching`: the data, and how they are cut into batches.
    - `weights`: which of `sample_weight` and `class_weight` are given.
    """

    source: data.Source
    batching: data.Batching
    callbacks: Callbacks
    options: Options
    params: Mapping[str, Any]
    class_weight: Any = None
    weights: tuple[str, ...] = ()

    def ready(self, learner: L, first: data.Batch, kind: StepKind) -> L:
        """The learner, initialised and checked, from the first batch."""
        return ensure_ready(
            learner, data.strip_mask(first), kind, weights=self.weights, padding=self._padding()
        )

    def _padding(self) -> Padding:
        if not self.batching.pads:
            return "none"
        if not isinstance(self.source, data.RowSource):
            return "some"
        rows = self.source.length
        return "none yet" if rows % self.batching.of_rows(rows).batch_size == 0 else "some"


def evaluate(learner: AbstractLearner[Any], given: PassInputs, steps: int | None) -> dict[str, Any]:
    """One pass of `test_step`. The arguments are those of `Learner.evaluate`, checked."""
    return _whole(learner, given, "test", steps)


def predict(learner: AbstractLearner[Any], given: PassInputs, steps: int | None) -> PyTree:
    """One pass of `pred_step`. The arguments are those of `Learner.predict`, checked."""
    return _whole(learner, given, "predict", steps)


def _whole(
    learner: AbstractLearner[Any], given: PassInputs, kind: StepKind, steps: int | None
) -> Any:
    """A pass that is no part of a run: what it measured, or what it predicted."""
    batches = given.source.steps(given.batching)
    known = [n for n in (steps, batches) if isinstance(n, int)]
    run = Run(learner, History(), {"steps": min(known, default=None), **given.params})
    with (
        telling_of_exceptions(run, given.callbacks, lambda: learner),
        given.source.read(given.batching, max_batches=steps) as reader,
    ):
        learner = given.ready(learner, reader.peek(), kind)
        run.begin(learner)
        pass_ = StepRunner(learner, kind, class_weight=given.class_weight, options=given.options)
        run.enter(training=None, measuring=pass_ if kind == "test" else None)
        measured = _pass_over(run, given.callbacks, pass_, reader, steps)
        return measured if kind == "test" else pass_.outputs()


def on_batch(
    learner: L, kind: StepKind, given: tuple[PyTree, ...], class_weight: Any, eager: bool
) -> tuple[L, Any]:
    """One step on one batch: the learner after it, and what it measured, or predicted."""
    batch = data.array_source(*given).tree
    batch = jax.tree.map(lambda leaf: data.take(leaf, slice(None)), batch)
    table = _class_weight.class_weight_table(class_weight, given[1])
    with plainly():
        learner = ensure_ready(learner, batch, kind)
        one = StepRunner(learner, kind, class_weight=table, options=Options(eager, 1))
        one(batch)
        if kind == "train":
            _frozen.may_change_yet(learner, lambda: one.learner)
        measured = one.outputs() if kind == "predict" else one.logs()
    return one.learner, measured


def _pass_over(
    run: Run,
    callbacks: Callbacks,
    pass_: StepRunner,
    reader: data.Reader,
    most: int | None,
    halted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """A pass that changes no learner, told to the callbacks."""
    kind: StepKind = pass_.kind
    measures = kind == "test"
    callbacks.tell(f"on_{kind}_begin", run)
    for program in pass_.prepare_for(reader, most):
        program.begin()
    with closing(reader.stacks(pass_.capacity, most)) as stacks:
        steps = Driver(run, callbacks, ran=reader.consume, halted=halted).over(pass_, stacks)
    if halted():
        return {}
    if most is not None and steps < most:
        warn(f"The data ran out after {steps} of the {most} steps that were asked for.")
    result = pass_.logs() if measures else {}
    run.forget(result)
    callbacks.tell(f"on_{kind}_end", run)
    return dict(result)


@dataclasses.dataclass
class Validation:
    """The validation of one `fit`, on each of its sets.

    **Arguments:**

    - `steps`: how many batches of each set; None for all.
    """

    _run: Run
    _training: StepRunner
    _given: PassInputs
    _sources: Mapping[str, data.Source]
    _interrupt: Interrupt
    _steps: int | None

    def __post_init__(self) -> None:
        self._closed = contextlib.ExitStack()
        batching = self._given.batching.for_validation()
        interrupt = self._interrupt  # not `self`, which would hold itself and the data
        keep_waiting = lambda: not interrupt.asked
        self._readers = {
            prefix: self._closed.enter_context(source.read(batching, keep_waiting=keep_waiting))
            for prefix, source in self._sources.items()
        }

    def __enter__(self) -> "Validation":
        return self

    def __exit__(self, *details: Any) -> None:
        self._closed.close()

    def __bool__(self) -> bool:
        return bool(self._readers)

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names that training logs and that would stand among those of validation."""
        for name in names:
            prefix = next((p for p in self._readers if name.startswith(p)), None)
            if prefix is not None:
                raise ValueError(
                    f"Training logs `{name}`, but names that begin with `{prefix}` are those of "
                    "validation: give the metric or the loss another name, or fit without "
                    "validation."
                )

    def prepare(self, *, shapes: int | None = None) -> list[Any]:
        """Trace validation, so that what is wrong with it costs no epoch; gives its programs.

        **Arguments:**

        - `shapes`: for how many of the shapes that its batches have; None for all.
        """
        programs: list[Any] = []
        for prefix, reader in self._readers.items():
            with noting(_where(prefix)):
                programs += self._testing().prepare_for(reader, self._steps, shapes=shapes)
        return programs

    def __call__(self, result: dict[str, Any]) -> None:
        """Add to `result` what is measured on each set, under its prefix.

        It is incomplete if that is interrupted, or fails.
        """
        run = self._run
        for prefix, reader in self._readers.items():
            testing = self._testing()
            run.enter(training=self._training, measuring=testing)
            reader.restart()
            with noting(_where(prefix)):
                measured = _pass_over(
                    run,
                    self._given.callbacks,
                    testing,
                    reader,
                    self._steps,
                    halted=lambda: self._interrupt.asked,
                )
            for name, value in measured.items():
                result[unique(prefix + name, result)] = value
            if self._interrupt.asked:
                return
        run.history.validations.append({"epoch": run.epoch, "step": run.step, **result})

    def _testing(self) -> StepRunner:
        testing = StepRunner(self._training.learner, "test", options=self._given.options)
        testing.compilations = self._run.history.timing.compilations
        return testing


def _where(prefix: str) -> str:
    text = f"This was in validation, for the logs `{prefix}...`."
    if prefix != "val_":
        text += (
            " `validation_data={...}` are named sets; a mapping of arrays is wrapped, "
            "`validation_data=(mapping,)`."
        )
    return text
