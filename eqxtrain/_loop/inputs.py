"""Checks of what `fit`, `evaluate` and `predict` are called with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from .. import _data as data
from .._check import whole_number
from .._engine.call_plan import StepsPerCall
from .._engine.programs import Options
from .._losses.class_weight import class_weight_table
from .._steps.ladder import AbstractLearner
from .._types import StepKind
from ..callbacks import Callback, Progress
from ..callbacks._dispatch import Callbacks
from .ready import Padding, ensure_ready
from .schedule import Schedule, check_ends

L = TypeVar("L", bound=AbstractLearner[Any])

Verbose = Literal[0, 1, 2, "auto", "plot"]
ValidationWeights = Literal["raw", "averaged", "both"]
OnInterrupt = Literal["return", "raise"] | None


class PassInputs(NamedTuple):
    """The arguments that `fit`, `evaluate` and `predict` share, checked.

    **Arguments:**

    - `source`, `batching`: the data, and how they are cut into batches.
    - `params`: what `run.params` shows of them.
    - `weights`: which of `sample_weight` and `class_weight` the user passed.
    """

    source: data.Source
    batching: data.Batching
    callbacks: Callbacks
    options: Options
    params: Mapping[str, Any]
    class_weight: Any = None
    weights: tuple[str, ...] = ()

    def ready(self, learner: L, first: data.Batch, kind: StepKind) -> L:
        """Initialise the learner from the first batch, and check that it fits the data."""
        batch = data.strip_mask(first)
        return ensure_ready(learner, batch, kind, weights=self.weights, padding=self._padding())

    def _padding(self) -> Padding:
        if not self.batching.pads:
            return "none"
        if not isinstance(self.source, data.RowSource):
            return "some"
        rows = self.source.length
        divides = rows % self.batching.capped_at(rows).batch_size == 0
        return "possible" if divides else "some"


class FitOptions(NamedTuple):
    """The arguments of `Learner.fit` of the same names, checked."""

    shuffle: bool
    position: data.Position | None
    on_interrupt: OnInterrupt
    donate: bool
    snapshots: bool
    validation_weights: ValidationWeights


def check_inputs(
    arrays: tuple[Any, Any, Any],
    class_weight: Any = None,
    *,
    batch_size: int,
    remainder: data.Remainder,
    callbacks: Callback | Sequence[Callback] | None,
    steps_per_call: StepsPerCall,
    eager: bool,
    verbose: Verbose = 0,
) -> PassInputs:
    """Check the arguments that `fit`, `evaluate` and `predict` share.

    **Arguments:**

    - `arrays`: `x`, `y` and `sample_weight`.
    """
    batching = _check_batching(batch_size, remainder)
    dispatcher = _check_callbacks(callbacks, verbose)
    options = check_options(steps_per_call, eager)
    source = data.as_source(*arrays)
    rows = batching.batch_size if isinstance(source, data.RowSource) else None
    weights = {"sample_weight": arrays[2], "class_weight": class_weight}
    return PassInputs(
        source,
        batching,
        dispatcher,
        options,
        {"batch_size": rows, "verbose": verbose},
        class_weight_table(class_weight, arrays[1]),
        tuple(name for name, value in weights.items() if value is not None),
    )


def _check_batching(batch_size: int, remainder: data.Remainder) -> data.Batching:
    """Check how data should be cut into batches."""
    if remainder not in get_args(data.Remainder):
        raise ValueError(f'`remainder` must be "keep", "pad" or "drop"; got {remainder!r}.')
    return data.Batching(whole_number("batch_size", batch_size, at_least=1), remainder)


def training_data(
    inputs: PassInputs, validation_data: Any, validation_split: float, schedule: Schedule
) -> tuple[PassInputs, dict[str, data.Source]]:
    """The training data, and the validation sets by the prefix of their logs."""
    source = inputs.source
    source.check_passes(schedule.passes, "x")
    bounded = schedule.steps is not None or schedule.steps_per_epoch is not None
    remedy = "give `steps_per_epoch`, or `steps` for the run"
    check_ends(source, inputs.batching, bounded, "x", remedy)
    if validation_split:
        if validation_data is not None:
            raise ValueError("Give `validation_data` or `validation_split`, not both.")
        if not isinstance(source, data.RowSource):
            raise ValueError(
                "`validation_split` splits data by row, but `x` is an iterable of batches: "
                "give `validation_data`."
            )
        source, held_out = source.split(validation_split)
        return inputs._replace(source=source), {"val_": held_out}
    batches = source.num_batches(inputs.batching)
    validation = {} if validation_data is None else data.named_sets(validation_data)
    for held_out in validation.values():
        if isinstance(source, data.IterableSource):
            source.check_apart(held_out, "validation_data")
        held_out.check_passes(schedule.validations(batches), "validation_data")
        remedy = "give `validation_steps`"
        bounded = schedule.validation_steps is not None
        check_ends(held_out, inputs.batching.for_validation(), bounded, "validation_data", remedy)
    return inputs, validation


def check_steps(inputs: PassInputs, steps: int | None) -> int | None:
    """How many batches `evaluate` or `predict` takes."""
    check_ends(inputs.source, inputs.batching, steps is not None, "x", "give `steps`")
    return None if steps is None else whole_number("steps", steps, at_least=1)


def check_on_interrupt(on_interrupt: OnInterrupt) -> OnInterrupt:
    """Check what `fit` should do after Ctrl-C."""
    if on_interrupt not in (None, "return", "raise"):
        raise ValueError(f'`on_interrupt` must be "return", "raise" or None; got {on_interrupt!r}.')
    return on_interrupt


def check_validation_weights(weights: ValidationWeights, ema: Any) -> ValidationWeights:
    """Check which weights `fit` should validate."""
    if weights not in get_args(ValidationWeights):
        raise ValueError(
            f'`validation_weights` must be "raw", "averaged" or "both"; got {weights!r}.'
        )
    if weights != "raw" and ema is None:
        raise ValueError(
            f"`validation_weights={weights!r}` validates averaged weights, but this learner keeps "
            "none: give it an `ema`, `learner.replace(ema=0.999)`."
        )
    return weights


def check_options(steps_per_call: StepsPerCall, eager: bool) -> Options:
    """Check how steps should be run."""
    if isinstance(steps_per_call, str):
        if steps_per_call != "auto":
            raise ValueError(
                f'`steps_per_call` must be a whole number or "auto"; got {steps_per_call!r}.'
            )
        return Options(eager, "auto")
    return Options(eager, whole_number("steps_per_call", steps_per_call, at_least=1))


def _check_callbacks(
    callbacks: Callback | Sequence[Callback] | None, verbose: Verbose
) -> Callbacks:
    """The user's callbacks, and a `Progress` unless `verbose` is 0 or there is one."""
    if verbose not in get_args(Verbose):
        raise ValueError(f'`verbose` must be 0, 1, 2, "auto" or "plot"; got {verbose!r}.')
    is_single = isinstance(callbacks, type | Callback) or not isinstance(callbacks, Iterable | None)
    many: Any = [callbacks] if is_single else callbacks or ()
    shows = any(isinstance(callback, Progress) for callback in many)
    return Callbacks([*many, *([] if shows or verbose == 0 else [Progress(verbose)])])
