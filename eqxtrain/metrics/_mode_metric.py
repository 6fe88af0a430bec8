"""The base of metrics that leave accumulating to a mode: of one value, or a dict of values."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx

from .._types import Self
from ._base import Metric
from ._modes import Mean


class ModeMetric(Metric):
    """A metric that makes a value of each batch, and leaves accumulating it to a mode.

    **Arguments:**

    - `mode`: the mode. If the values are dicts, this is a dict of modes from the first one on.
    """

    mode: Any = eqx.field(default_factory=Mean, kw_only=True)

    def merge(self, other: Any) -> Self:
        return self.replace(mode=_merge(self.mode, other.mode))

    def compute(self) -> Any:
        return _compute(self.mode)

    def results(self, name: str) -> dict[str, Any]:
        return _results(self.mode, name)

    def accumulated(self, value: Any, contribution: Callable[[Metric, Any], Metric]) -> Self:
        """The metric with one more value.

        **Arguments:**

        - `contribution`: from an empty mode and a value to what that value contributes.
        """
        return self.replace(mode=_accumulate(self.mode, value, contribution))


def _accumulate(mode: Any, value: Any, contribution: Callable[[Metric, Any], Metric]) -> Any:
    if isinstance(value, Mapping):
        modes = mode if isinstance(mode, dict) else dict.fromkeys(value, mode)
        return {key: _accumulate(modes[key], part, contribution) for key, part in value.items()}
    return mode.merge(contribution(mode.reset(), value))


def _merge(mode: Any, other: Any) -> Any:
    if isinstance(mode, dict) and isinstance(other, dict):
        return {key: _merge(mode[key], other[key]) for key in mode}
    if isinstance(mode, dict) or isinstance(other, dict):
        # One that is not a dict yet has seen nothing.
        return mode if isinstance(mode, dict) else other
    return mode.merge(other)


def _compute(mode: Any) -> Any:
    if isinstance(mode, dict):
        return {key: _compute(part) for key, part in mode.items()}
    return mode.compute()


def _results(mode: Any, name: str) -> dict[str, Any]:
    if isinstance(mode, Metric):
        return mode.results(name)
    parts = [_results(part, f"{name}/{key}") for key, part in mode.items()]
    return {path: value for flat in parts for path, value in flat.items()}
