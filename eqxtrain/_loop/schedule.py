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

    - `epochs`: how many at most; None for as many as the steps take.
    - `steps`: how many training steps at most; None for as many as the epochs take.
    - `steps_per_epoch`: None for those of a pass over the data.
    - `validation`: how often.
    - `validation_steps`: how many batches of each set; None for all.
    """

    epochs: int | None = None
    steps: int | None = None
    steps_per_epoch: int | None = None
    validation: Frequency = 1
    validation_steps: int | None = None

    def goes_on(self, epoch: int, taken: int) -> bool:
        """Whether there is an epoch after so many of them, and so many steps."""
        more = self.epochs is None or epoch < self.epochs
        return more and (self.steps is None or taken < self.steps)

    def max_steps_of_epoch(self, taken: int) -> int | None:
        """How many steps the next epoch may have, if that is bounded at all."""
        left = None if self.steps is None else self.steps - taken
        bounds = [bound for bound in (self.steps_per_epoch, left) if bound is not None]
        return min(bounds, default=None)

    @property
    def max_steps(self) -> int | None:
        """How many steps the run has at most, if that is bounded at all."""
        by_epochs = None
        if self.epochs is not None and self.steps_per_epoch is not None:
            by_epochs = self.epochs * self.steps_per_epoch
        bounds = [bound for bound in (self.steps, by_epochs) if bound is not None]
        return min(bounds, default=None)

    def epochs_of(self, batches: int | float | None) -> int | None:
        """How many epochs the run will have, if that is known, of data with so many batches."""
        if self.steps is None:
            return self.epochs
        if isinstance(batches, int):  # a pass ends the epoch that it ends in
            each = lambda steps: math.ceil(steps / (self.steps_per_epoch or batches))
            passes, rest = divmod(self.steps, batches)
            by_steps = passes * each(batches) + each(rest)
        elif self.steps_per_epoch is not None:
            by_steps = math.ceil(self.steps / self.steps_per_epoch)
        else:
            return None if batches is None else 1
        return by_steps if self.epochs is None else min(self.epochs, by_steps)

    def steps_of(self, batches: int | float | None) -> int | None:
        """How many steps an epoch has, if that is known, of data with so many batches."""
        known = [self.steps_per_epoch, self.steps, batches]
        return min((n for n in known if isinstance(n, int)), default=None)

    @property
    def passes(self) -> int:
        """How many passes over the data there will be for sure."""
        bounded = self.steps is not None or self.steps_per_epoch is not None
        return 1 if bounded or self.epochs is None else self.epochs

    def validates(self, epoch: int) -> bool:
        """Whether the epoch of this index, from 0, is followed by validation."""
        if isinstance(self.validation, Every):
            return self.validation.epochs is not None and self._nth(epoch, self.validation.epochs)
        if isinstance(self.validation, int):
            return self._nth(epoch, self.validation)
        return epoch + 1 in self.validation

    @staticmethod
    def _nth(epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0

    @property
    def validates_every(self) -> int | None:
        """After how many steps there is validation within epochs; None for never."""
        return self.validation.steps if isinstance(self.validation, Every) else None

    def validations(self, batches: int | float | None) -> int:
        """How many validations there will be for sure, of a run over so many batches a pass."""
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
    """The shape of a run as people ask for it, checked."""
    whole = lambda name, n, least: None if n is None else whole_number(name, n, at_least=least)
    steps = whole("steps", steps, 0)
    if epochs is None and steps is None:
        epochs = 1
    return Schedule(
        whole("epochs", epochs, 0),
        steps,
        whole("steps_per_epoch", steps_per_epoch, 1),
        _frequency(validation_freq),
        whole("validation_steps", validation_steps, 1),
    )


def _frequency(given: Any) -> Frequency:
    if isinstance(given, Every):
        return given
    try:
        alone = isinstance(given, int | np.integer)
        listed = [given] if alone else list(given)
        checked = [whole_number("validation_freq", n, at_least=1) for n in listed]
    except (TypeError, ValueError):
        raise ValueError(
            "`validation_freq` must be a number of epochs, a list of epochs counted from 1, or "
            f"`eqxtrain.Every(steps=...)`; got {given!r}."
        ) from None
    return checked[0] if alone else checked


def check_ends(
    source: data.Source, batching: data.Batching, bounded: bool, name: str, remedy: str
) -> None:
    """Refuse data without an end where nothing else ends them."""
    if source.steps(batching) == math.inf and not bounded:
        raise ValueError(f"`{name}` never ends, so neither would a pass over it: {remedy}.")
