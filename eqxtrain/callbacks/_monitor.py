"""Callbacks that follow one number over the epochs."""

import math
from typing import Literal

import numpy as np

from .._check import check_real_number
from .._placement import as_numpy
from ._base import Callback
from ._dispatch import not_measured
from ._run import Run

Mode = Literal["auto", "min", "max"]


class Monitor(Callback):
    """Follows one log over the epochs, and knows when it has improved. To be subclassed.

    An epoch in which it was not measured, because validation is due every third one, does not
    count.

    **Arguments:**

    - `monitor`: which log.
    - `mode`: whether `"min"` or `"max"` is best; `"auto"` asks the metric. It is `"min"` for names
        that end in `loss`.
    - `min_delta`: an improvement by less does not count.
    """

    adds: tuple[str, ...] | None = ()

    def __init__(self, monitor: str, *, mode: Mode = "auto", min_delta: float = 0.0) -> None:
        who = type(self).__name__
        if not isinstance(monitor, str):
            raise TypeError(
                f'`{who}(monitor)` must be the name of a log, such as "val_loss"; got {monitor!r}.'
            )
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'`{who}(mode)` must be "auto", "min" or "max"; got {mode!r}.')
        check_real_number(f"{who}(min_delta)", min_delta)
        self.monitor: str | None = monitor
        self.mode: Mode = mode
        self.min_delta: float = abs(float(min_delta))
        self._direction: Literal["min", "max"] | None = None if mode == "auto" else mode

    def measured(self, run: Run) -> float | None:
        """The log at the end of an epoch; None if this epoch did not measure it.

        **Raises:** `ValueError` if no epoch does, or if it is not clear which values are best.
        """
        if run.timing.steps == 0:  # it was stopped before its first step
            return None
        name = str(self.monitor)
        directions = run.directions
        if name not in run.logs:
            if name in directions:
                return None
            raise ValueError(not_measured(self, list(dict.fromkeys([*run.logs, *directions]))))
        value = run.logs[name]
        if hasattr(value, "dtype") and np.ndim(value) == 0:
            value = float(as_numpy(value))
        if not isinstance(value, int | float):
            raise TypeError(
                f"`{type(self).__name__}(monitor={name!r})` follows a `{type(value).__name__}`, "
                "which is neither better nor worse than another: choose a log that is a number."
            )
        if self._direction is None:
            self._direction = directions.get(name)
        if self._direction is None:
            raise ValueError(
                f"Whether a low or a high `{name}` is best is not known: say so, "
                f'`{type(self).__name__}(monitor={name!r}, mode="max")`. (A metric of your own '
                "can say it for all callbacks: `higher_is_better = True` in its class.)"
            )
        return float(value)

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value improves on another one, or on none. Nan never does."""
        if math.isnan(value) or than is None:
            return not math.isnan(value)
        gain = than - value if self._direction == "min" else value - than
        return gain > self.min_delta
