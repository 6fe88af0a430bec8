"""What `fit`, `evaluate` and `predict` are given, checked."""

from collections.abc import Sequence
from typing import Any, Literal

from . import data
from ._cost import StepsPerCall
from ._engine import Options
from .callbacks import Callback, Progress
from .callbacks._base import Callbacks

Verbose = Literal[0, 1, 2, "auto"]
OnInterrupt = Literal["return", "raise"] | None


def training_data(
    source: data.Source, validation_data: Any, validation_split: float, epochs: int
) -> tuple[data.Source, dict[str, data.Source]]:
    """What is trained on, and what is validated on by the prefix of its logs."""
    source.check_passes(epochs)
    if validation_data is None and not validation_split:
        return source, {}
    if validation_data is None:
        if not isinstance(source, data.ArraySource):
            raise ValueError(
                "`validation_split` splits arrays, and `x` is an iterable: give `validation_data`."
            )
        source, held_out = source.split(validation_split)
        return source, {"val_": held_out}
    if validation_split:
        raise ValueError("Give `validation_data` or `validation_split`, not both.")
    validation = data.named_sets(validation_data)
    for held_out in validation.values():
        held_out.check_passes(epochs)
    return source, validation


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
    listed = [given] if isinstance(given, Callback) else list(given or ())
    return Callbacks(listed if verbose == 0 else [*listed, Progress(verbose)])


def given(**arguments: Any) -> list[str]:
    """The names of those that are not None."""
    return [name for name, value in arguments.items() if value is not None]
