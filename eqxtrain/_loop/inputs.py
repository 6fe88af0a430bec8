"""What `fit`, `evaluate` and `predict` are given, checked."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from .. import _data as data
from .._engine.cost import StepsPerCall
from .._engine.programs import Options
from .._losses import class_weight as _class_weight
from ..callbacks import Callback, Progress
from ..callbacks._base import Callbacks
from .evaluate import PassInputs
from .schedule import Schedule, check_ends

Verbose = Literal[0, 1, 2, "auto"]
OnInterrupt = Literal["return", "raise"] | None


def check_batching(batch_size: int, remainder: data.Remainder) -> data.Batching:
    """How data are cut into batches."""
    if remainder not in get_args(data.Remainder):
        raise ValueError(f'`remainder` is "keep", "pad" or "drop"; got {remainder!r}.')
    return data.Batching(data.check_whole("batch_size", batch_size, at_least=1), remainder)


def check_inputs(
    arrays: tuple[Any, Any, Any],
    class_weight: Any = None,
    *,
    batching: data.Batching,
    callbacks: Callbacks,
    options: Options,
    verbose: Verbose = 0,
) -> PassInputs:
    """What all passes over data are given alike.

    **Arguments:**

    - `arrays`: `x`, `y` and `sample_weight`.
    """
    weights = {"sample_weight": arrays[2], "class_weight": class_weight}
    source = data.as_source(*arrays)
    rows = batching.batch_size if isinstance(source, data.RowSource) else None
    return PassInputs(
        source,
        batching,
        callbacks,
        options,
        {"batch_size": rows, "verbose": verbose},
        _class_weight.class_weight_table(class_weight, arrays[1]),
        tuple(name for name, value in weights.items() if value is not None),
    )


def training_data(
    given: PassInputs, validation_data: Any, validation_split: float, schedule: Schedule
) -> tuple[PassInputs, dict[str, data.Source]]:
    """What is trained on, and what is validated on by the prefix of its logs."""
    source = given.source
    source.check_passes(schedule.passes, "x")
    bounded = schedule.steps is not None or schedule.steps_per_epoch is not None
    remedy = "give `steps_per_epoch`, or `steps` for the run"
    check_ends(source, given.batching, bounded, "x", remedy)
    if validation_split:
        if validation_data is not None:
            raise ValueError("Give `validation_data` or `validation_split`, not both.")
        if not isinstance(source, data.RowSource):
            raise ValueError(
                "`validation_split` splits data by their rows, and `x` is an iterable of batches: "
                "give `validation_data`."
            )
        source, held_out = source.split(validation_split)
        return given._replace(source=source), {"val_": held_out}
    batches = source.steps(given.batching)
    validation = {} if validation_data is None else data.named_sets(validation_data)
    for held_out in validation.values():
        if isinstance(source, data.IterableSource):
            source.check_apart(held_out, "validation_data")
        held_out.check_passes(schedule.validations(batches), "validation_data")
        remedy = "give `validation_steps`"
        bounded = schedule.validation_steps is not None
        check_ends(held_out, given.batching.for_validation(), bounded, "validation_data", remedy)
    return given, validation


def steps(given: PassInputs, steps: int | None) -> int | None:
    """How many batches `evaluate` or `predict` takes."""
    check_ends(given.source, given.batching, steps is not None, "x", "give `steps`")
    return None if steps is None else data.check_whole("steps", steps, at_least=1)


def on_interrupt(given: OnInterrupt) -> OnInterrupt:
    """What Ctrl-C does in the end."""
    if given not in (None, "return", "raise"):
        raise ValueError(f'`on_interrupt` is "return", "raise" or None; got {given!r}.')
    return given


def options(steps_per_call: StepsPerCall, eager: bool) -> Options:
    """How steps are run."""
    if isinstance(steps_per_call, str):
        if steps_per_call != "auto":
            raise ValueError(
                f'`steps_per_call` is a whole number or "auto"; got {steps_per_call!r}.'
            )
        return Options(eager, "auto")
    return Options(eager, data.check_whole("steps_per_call", steps_per_call, at_least=1))


def callbacks(given: Callback | Sequence[Callback] | None, verbose: Verbose) -> Callbacks:
    """The user's callbacks, and the progress that they want to see."""
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(f'`verbose` is 0, 1, 2 or "auto"; got {verbose!r}.')
    one = isinstance(given, type | Callback) or not isinstance(given, Iterable | None)
    listed: Any = [given] if one else given or ()  # a wrong one is refused there, in a sentence
    return Callbacks([*listed, *([Progress(verbose)] if verbose != 0 else [])])
