"""The shape of a run: how many epochs of how many steps, and when it is validated."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _data as data
from .._check import whole_number
from ..callbacks import Every

Frequency = int | Sequence[int] | Every
"""Every so many epochs; a list of epochs, from 1; or `Every(steps=...)`, `Every(epochs=...)`."""


class Schedule(NamedTuple):
    """When epochs end, when the run ends, and when it is validated.

    **Arguments:**

    - `epochs`: how many epochs at most; None for as many as `steps` needs.
    - `steps`: how many training steps at most; None for as many as `epochs` needs.
    - `steps_per_epoch`: None for one pass over the data.
    - `validation`: how often to validate.
    - `validation_steps`: how many batches of each validation set to use; None for all.
    """

    epochs: int | None = None
    steps: int | None = None
    steps_per_epoch: int | None = None
    validation: Frequency = 1
    validation_steps: int | None = None

    def goes_on(self, epoch: int, taken: int) -> bool:
        """Whether another epoch follows `epoch` epochs and `taken` steps."""
        more = self.epochs is None or epoch < self.epochs
        return more and (self.steps is None or taken < self.steps)

    def max_steps_of_epoch(self, taken: int) -> int | None:
        """How many steps the next epoch may have after `taken` steps; None if unbounded."""
        left = None if self.steps is None else self.steps - taken
        bounds = [bound for bound in (self.steps_per_epoch, left) if bound is not None]
        return min(bounds, default=None)

    @property
    def max_steps(self) -> int | None:
        """How many steps the run has at most; None if unbounded."""
        by_epochs = None
        if self.epochs is not None and self.steps_per_epoch is not None:
            by_epochs = self.epochs * self.steps_per_epoch
        bounds = [bound for bound in (self.steps, by_epochs) if bound is not None]
        return min(bounds, default=None)

    def epochs_of(self, batches: int | float | None) -> int | None:
        """How many epochs the run will have if a pass has `batches` batches; None if unknown."""
        if self.steps is None:
            return self.epochs
        if isinstance(batches, int):
            # An epoch ends with its pass, even before `steps_per_epoch`, so each pass has a whole
            # number of epochs, and the steps that are left over after the last one have some more.
            epoch_steps = self.steps_per_epoch or batches
            passes, rest = divmod(self.steps, batches)
            by_steps = passes * math.ceil(batches / epoch_steps) + math.ceil(rest / epoch_steps)
        elif self.steps_per_epoch is not None:
            by_steps = math.ceil(self.steps / self.steps_per_epoch)
        else:
            return None if batches is None else 1
        return by_steps if self.epochs is None else min(self.epochs, by_steps)

    def steps_of(self, batches: int | float | None) -> int | None:
        """How many steps an epoch has if a pass has `batches` batches; None if unknown."""
        known = [self.steps_per_epoch, self.steps, batches]
        return min((n for n in known if isinstance(n, int)), default=None)

    @property
    def passes(self) -> int:
        """How many passes over the data are certain to be needed.

        An iterator can be consumed once, so `fit` refuses it if this is more than 1.
        """
        bounded = self.steps is not None or self.steps_per_epoch is not None
        return 1 if bounded or self.epochs is None else self.epochs

    def validates(self, epoch: int) -> bool:
        """Whether validation follows the epoch with this index, counted from 0."""
        if isinstance(self.validation, Every):
            return self.validation.epochs is not None and self._is_every(
                epoch, self.validation.epochs
            )
        if isinstance(self.validation, int):
            return self._is_every(epoch, self.validation)
        return epoch + 1 in self.validation

    @staticmethod
    def _is_every(epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0

    @property
    def validates_every(self) -> int | None:
        """The number of steps between validations within epochs; None for none."""
        return self.validation.steps if isinstance(self.validation, Every) else None

    def validations(self, batches: int | float | None) -> int:
        """How many validations are certain to happen if a pass has `batches` batches."""
        epochs, steps = self.epochs_of(batches), self.max_steps
        if self.validates_every is not None:
            if steps is None and epochs is not None and isinstance(batches, int):
                steps = epochs * batches
            return (steps or 0) // self.validates_every
        if epochs is not None and self.steps is not None:
            epochs = min(epochs, self.steps)
        return sum(map(self.validates, range(epochs or 1)))


def make_schedule(
    epochs: int | None,
    steps: int | None,
    steps_per_epoch: int | None,
    validation_freq: Any,
    validation_steps: int | None,
) -> Schedule:
    """Check the arguments of `fit` that shape a run."""
    steps = _optional_whole_number("steps", steps, 0)
    if epochs is None and steps is None:
        epochs = 1
    return Schedule(
        _optional_whole_number("epochs", epochs, 0),
        steps,
        _optional_whole_number("steps_per_epoch", steps_per_epoch, 1),
        _frequency(validation_freq),
        _optional_whole_number("validation_steps", validation_steps, 1),
    )


def _optional_whole_number(name: str, number: int | None, at_least: int) -> int | None:
    return None if number is None else whole_number(name, number, at_least=at_least)


def _frequency(value: Any) -> Frequency:
    if isinstance(value, Every):
        return value
    try:
        is_number = isinstance(value, int | np.integer)
        numbers = [value] if is_number else list(value)
        checked = [whole_number("validation_freq", n, at_least=1) for n in numbers]
    except (TypeError, ValueError):
        raise ValueError(
            "`validation_freq` must be a number of epochs, a list of epochs counted from 1, or "
            f"`eqxtrain.Every(steps=...)`; got {value!r}."
        ) from None
    return checked[0] if is_number else checked


def check_ends(
    source: data.Source, batching: data.Batching, bounded: bool, name: str, remedy: str
) -> None:
    """Refuse endless data unless something else bounds the pass."""
    if source.num_batches(batching) == math.inf and not bounded:
        raise ValueError(f"`{name}` never ends, so neither would a pass over it: {remedy}.")
