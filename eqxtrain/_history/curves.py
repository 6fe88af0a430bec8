"""The curves of a run as a picture: an axis for each metric, with its training and validation."""

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

from .._format import number

LogScale = bool | Literal["auto"]

_AXES_PER_ROW = 3
_DECADES = 2
"""Values that span so many decades are drawn on a logarithmic scale."""

_FEW = 20
"""So many points or fewer are marked, so that one alone is seen."""


class Curve(NamedTuple):
    """The values of one name, in order.

    **Arguments:**

    - `at`: the epoch or the step of each value.
    - `values`: floats; those that are nan or infinite are not drawn.
    - `direction`: which value is the best; None if that is not known.
    """

    name: str
    at: Sequence[int]
    values: Sequence[float]
    direction: str | None = None

    def finite(self) -> tuple[list[int], list[float]]:
        """What there is to draw."""
        points = [p for p in zip(self.at, self.values, strict=True) if math.isfinite(p[1])]
        return [x for x, _ in points], [y for _, y in points]


def metric_of(name: str, names: Collection[str]) -> str:
    """The metric that a name of validation measures: `val_loss`, or `val_near_loss`, of `loss`."""
    if name.startswith("val_"):
        for metric in sorted(names, key=len, reverse=True):
            if name.endswith(f"_{metric}") and not metric.startswith("val_"):
                return metric
        return name.removeprefix("val_")
    return name


def size_of(curves: Sequence[Curve]) -> tuple[float, float]:
    """The width and the height, in inches, of a figure that has room for them."""
    axes = max(len(_by_metric(curves)), 1)
    columns = min(axes, _AXES_PER_ROW)
    return 4.5 * columns + 0.5, 3.0 * math.ceil(axes / columns)


def draw(figure: Any, curves: Sequence[Curve], *, per: str, log: LogScale = "auto") -> None:
    """Draw curves on a figure, in place of what is on it.

    Curves without a point are left out, and the best point is marked of those of validation (of
    training, if there is no validation).

    **Arguments:**

    - `per`: what the curves run over, `"epoch"` or `"step"`.
    - `log`: whether values have a logarithmic scale. `"auto"`: where they are positive and span two
        decades or more, unless high values are the best.
    """
    figure.clear()
    groups = _by_metric(curves)
    columns = min(len(groups), _AXES_PER_ROW)
    for i, (metric, group) in enumerate(groups.items(), start=1):
        axis = figure.add_subplot(math.ceil(len(groups) / columns), columns, i)
        _draw_axis(axis, group, per, is_log=_wants_log(group) if log == "auto" else log)
        axis.set_title(metric)
    if not groups:
        figure.text(0.5, 0.5, f"no {per} has been recorded yet", ha="center", va="center")


def _by_metric(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Those that share an axis, training first."""
    names = [curve.name for curve in curves]
    groups: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda curve: curve.name.startswith("val_")):
        if curve.finite()[0]:
            groups.setdefault(metric_of(curve.name, names), []).append(curve)
    return groups


def _draw_axis(axis: Any, curves: Sequence[Curve], per: str, *, is_log: bool) -> None:
    validated = [curve for curve in curves if curve.name.startswith("val_")]
    for i, curve in enumerate(curves, start=len(validated) == len(curves)):
        at, values = curve.finite()
        marker = "." if len(at) <= _FEW else None
        axis.plot(at, values, color=f"C{i}", marker=marker, label=curve.name)
        if curve.direction is not None and curve in (validated or curves):
            best = {"min": min, "max": max}[curve.direction](values)
            where = at[values.index(best)]
            label = f"best: {number(best)}, {per} {where}"
            style = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"}
            axis.plot([where], [best], color=f"C{i}", label=label, **style)
    if is_log:
        axis.set_yscale("log")
    axis.set_xlabel(per)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    if len(axis.lines) > 1:  # the title says what a single one is
        axis.legend(fontsize="small")


def _wants_log(curves: Sequence[Curve]) -> bool:
    values = [value for curve in curves for value in curve.finite()[1]]
    aims_high = any(curve.direction == "max" for curve in curves)
    return not aims_high and min(values) > 0 and max(values) >= 10**_DECADES * min(values)
