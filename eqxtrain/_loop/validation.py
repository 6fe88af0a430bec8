"""The validation of a `fit`, on each of its sets."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import _data as data, _tree
from .._engine.accumulators import Accumulators
from .._engine.runner import StepRunner
from .._engine.step import TEST
from .._naming import unique
from .._steps.averages import averaged
from ..metrics._base import Direction, Directions
from .evaluate import run_pass
from .inputs import PassInputs, ValidationWeights
from .interrupt import Interrupt
from .rescue import note_on_error
from .run_control import RunControl


class ValidationSet(NamedTuple):
    """Data to validate on, and whether the averaged weights are validated."""

    source: data.Source
    averaged: bool = False


def validation_sets(
    sources: Mapping[str, data.Source], weights: ValidationWeights
) -> dict[str, ValidationSet]:
    """The sets by the prefix of their logs, where both weights are validated with each twice."""
    sets: dict[str, ValidationSet] = {}
    for prefix, source in sources.items():
        if weights != "averaged":
            sets[prefix] = ValidationSet(source)
        if weights != "raw":
            name = prefix if weights == "averaged" else f"{prefix}averaged_"
            if name in sources and name != prefix:
                raise ValueError(
                    f"The averaged weights are validated under `{name}...`, which is the name of "
                    "one of the sets of `validation_data`: rename that."
                )
            sets[name] = ValidationSet(source, averaged=True)
    return sets


class Validation:
    """Evaluates the learner that is trained, on one or several sets.

    **Arguments:**

    - `train_runner`: the runner whose learner is evaluated.
    - `sets`: each set, by the prefix of its logs.
    - `max_batches`: how many batches of each set; None for all.
    - `interrupt`: knows whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        control: RunControl,
        train_runner: StepRunner,
        inputs: PassInputs,
        sets: Mapping[str, ValidationSet],
        max_batches: int | None,
        interrupt: Interrupt,
    ) -> None:
        self._control = control
        self._train_runner = train_runner
        self._options = inputs.options
        self._sets = dict(sets)
        self._max_batches = max_batches
        self._interrupt = interrupt
        self._closed = contextlib.ExitStack()
        self._accumulators: dict[str, Accumulators] = {}  # of what was prepared
        self._directions: dict[str, dict[str, Direction | None]] = {}
        batching, keep_waiting = inputs.batching.for_validation(), interrupt.keep_waiting
        self._readers = {
            prefix: self._closed.enter_context(
                of.source.open_reader(batching, keep_waiting=keep_waiting)
            )
            for prefix, of in sets.items()
        }

    def __enter__(self) -> "Validation":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.close()

    def __bool__(self) -> bool:
        return bool(self._readers)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of each set begin with."""
        return tuple(self._readers)

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names that training logs and that begin like those of validation."""
        for name in names:
            prefix = next((p for p in self._readers if name.startswith(p)), None)
            if prefix is not None:
                raise ValueError(
                    f"Training logs `{name}`, but names that begin with `{prefix}` are those of "
                    "validation: give the metric or the loss another name, or fit without "
                    "validation."
                )

    def prepare(self, *, max_shapes: int | None = None) -> Iterator[Any]:
        """Trace validation, so that what is wrong with it costs no epoch; returns its programs.

        **Arguments:**

        - `max_shapes`: for how many of the shapes of its batches; None for all.
        """
        for prefix, reader in self._readers.items():
            with note_on_error(_where(prefix)):
                test_runner = self._make_runner(prefix)
                yield from test_runner.prepare_for(reader, self._max_batches, max_shapes=max_shapes)
                self._accumulators[prefix] = test_runner.accumulators

    def directions(self, trained: Directions) -> dict[str, Direction | None]:
        """What validation measures, and which values are best.

        **Arguments:**

        - `trained`: the same of training, which stands for what is not known of validation yet.
        """
        found: dict[str, Direction | None] = {}
        for prefix in self._readers:
            if prefix in self._accumulators and not self._directions.get(prefix):
                self._directions[prefix] = self._accumulators[prefix].directions()
            for name, direction in (self._directions.get(prefix) or trained).items():
                found[unique(prefix + name, found)] = direction
        return found

    def run(self) -> None:
        """Evaluate each set, adding to `state.validation_logs` under its prefix.

        That stays incomplete if this is interrupted, or fails.
        """
        state = self._control.state
        state.validation_logs = {}
        for prefix, reader in self._readers.items():
            test_runner = self._make_runner(prefix)
            self._accumulators[prefix] = test_runner.accumulators
            reader.restart()
            known = [n for n in (self._max_batches, reader.remaining) if n is not None]
            self._control.set_runners(
                training=self._train_runner, measuring=test_runner, steps=min(known, default=None)
            )
            with note_on_error(_where(prefix)):
                measured = run_pass(
                    self._control,
                    test_runner,
                    reader,
                    self._max_batches,
                    self._interrupt.is_requested,
                )
            for name, value in measured.items():
                state.validation_logs[unique(prefix + name, state.validation_logs)] = value
            if self._interrupt.requested:
                return
        record = {"epoch": state.epoch, "step": state.step, **state.validation_logs}
        state.history.validations.append(record)

    def _make_runner(self, prefix: str) -> StepRunner:
        learner = self._train_runner.learner
        if self._sets[prefix].averaged:
            learner = _tree.with_fields(learner, model=averaged(learner))
        runner = StepRunner(learner, TEST, options=self._options)
        runner.compilations = self._control.history.timing.compilations
        return runner


def _where(prefix: str) -> str:
    text = f"This was in validation, for the logs `{prefix}...`."
    if prefix != "val_":
        text += (
            " `validation_data={...}` are named sets; a mapping of arrays is wrapped, "
            "`validation_data=(mapping,)`."
        )
    return text
