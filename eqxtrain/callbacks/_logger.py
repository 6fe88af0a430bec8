"""`Logger`: what all loggers have in common, whatever they write to."""

import abc
from typing import Any, Literal

import numpy as np

from .._placement import as_numpy
from ._base import Callback
from ._every import Every
from ._run import Run


class Logger(Callback, abc.ABC):
    """Writes what the run is when it begins, what it measures, and how it ended.

    It writes at the end of each epoch, and at once, so that a crash loses nothing that was written.

    **Arguments:**

    - `every`: `Every(steps=n)` writes every so many steps as well, what the epoch has measured so
        far; `Every(epochs=n)` writes after every so many epochs alone.
    """

    reads: Literal["state", "logs"] = "logs"
    adds: tuple[str, ...] | None = ()

    def __init__(self, every: Every | None = None) -> None:
        self.every: Every | None = every
        self._resumes: bool = False
        self._is_open: bool = False

    def on_train_begin(self, run: Run) -> None:
        self._begin(run)
        self._is_open, self._resumes = True, False

    def on_train_batch_end(self, run: Run) -> None:
        self._write(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.timing.steps:  # else it was stopped before its first step
            self._write(run)

    def on_train_end(self, run: Run) -> None:
        self._is_open = False
        self._end(run)

    def on_exception(self, run: Run) -> None:
        if self._is_open:  # it may have failed before anything was begun
            self.on_train_end(run)

    def _has_hook(self, hook: str) -> bool:
        is_due = hook != "on_train_batch_end" or (self.every is not None and self.every.steps)
        return bool(is_due) and super()._has_hook(hook)

    @abc.abstractmethod
    def _begin(self, run: Run) -> None:
        """Write what the run is. If `_resumes`, first cut off what was written later."""

    @abc.abstractmethod
    def _write(self, run: Run) -> None:
        """Write what was measured."""

    @abc.abstractmethod
    def _end(self, run: Run) -> None:
        """Write how the run ended, and close what is open."""


def numbers(logs: Any) -> dict[str, int | float]:
    """The logs that are numbers."""
    found: dict[str, int | float] = {}
    for name, value in logs.items():
        if isinstance(value, int | float):
            found[name] = value
        elif hasattr(value, "dtype") and np.ndim(value) == 0:  # a callback may have added it
            found[name] = float(as_numpy(value))
    return found
