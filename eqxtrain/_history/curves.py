"""The curves of a run as a picture: an axis for each metric, with its training and validation."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from .._format import number

Per = Literal["epoch", "step"]
"""What a record of a run is of."""

LogScale = bool | Literal["auto"]

_AXES_PER_ROW = 3
_FEW = 20
"""So many points or fewer are marked, so that one alone is seen; so many lines fit a legend."""


class Curve(NamedTuple):
    """The values of one name, in order. Those that are nan or infinite are left out.

    **Arguments:**

    - `metric`: what it measures: `val_loss` measures `loss`.
    - `at`: the epoch or the step of each value.
    - `direction`: which value is the best; None if that is not known.
    """

    name: str
    metric: str
    at: list[int]
    values: list[float]
    direction: str | None = None


def metric_of(name: str, names: Collection[str]) -> str:
    """The metric that a name of validation measures: `val_loss`, or `val_near_loss`, of `loss`."""
    if not name.startswith("val_"):
        return name
    trained = (n for n in names if not n.startswith("val_") and name.endswith(f"_{n}"))
    return max(trained, key=len, default=name.removeprefix("val_"))


def select(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    wanted: Sequence[str],
    *,
    per: Per,
    direction: Callable[[str], str | None],
) -> list[Curve]:
    """The curves of what was recorded, training first; none of names without a finite number.

    **Arguments:**

    - `records`: values by name, with the `epoch` (from 0) and the `step` of each record.
    - `names`: all names that are recorded.
    - `wanted`: names or metrics; `"f1"` stands for `f1/cat` as well.
    - `direction`: which value of a name is the best.

    **Raises:** `KeyError` if one of `wanted` is not recorded.
    """
    metrics = {name: metric_of(name, names) for name in names}
    aliases = {name: {name, metric, _axis_of(metric)} for name, metric in metrics.items()}
    for name in wanted:
        if not any(name in known for known in aliases.values()):
            raise unknown(name, names)
    curves: list[Curve] = []
    for name in sorted(names, key=lambda name: name.startswith("val_")):
        values = [(r[per], r[name]) for r in records if isinstance(r.get(name), float)]
        points = [(at, value) for at, value in values if math.isfinite(value)]
        if points and aliases[name] & {*wanted}:
            at = [at + (per == "epoch") for at, _ in points]  # people count epochs from 1
            finite = [value for _, value in points]
            curves.append(Curve(name, metrics[name], at, finite, direction(name)))
    return curves


def unknown(name: str, known: Collection[str]) -> KeyError:
    """Say that a history has no such name."""
    return KeyError(f"History has no {name!r}; it has {', '.join(known) or 'nothing yet'}.")


def size_of(curves: Sequence[Curve]) -> tuple[float, float]:
    """The width and the height, in inches, of a figure that has room for them."""
    axes = max(len(_by_axis(curves)), 1)
    columns = min(axes, _AXES_PER_ROW)
    return 4.5 * columns + 0.5, 3.0 * math.ceil(axes / columns)


def draw(figure: Any, curves: Sequence[Curve], *, per: Per, log: LogScale) -> None:
    """Draw curves on a figure, in place of what is on it.

    **Arguments:**

    - `per`: what the curves run over.
    - `log`: whether values have a logarithmic scale. `"auto"`: where they are positive and span two
        decades or more, unless high values are the best.
    """
    figure.clear()
    groups = _by_axis(curves)
    columns = min(len(groups), _AXES_PER_ROW)
    for i, group in enumerate(groups.values(), start=1):
        axis = figure.add_subplot(math.ceil(len(groups) / columns), columns, i)
        _draw_axis(axis, group, per)
        if _wants_log(group) if log == "auto" else log:
            axis.set_yscale("log")
    if not groups:
        text = f"no {per} has a number to draw"
        figure.text(0.5, 0.5, text, ha="center", va="center")


def _axis_of(metric: str) -> str:
    """The parts of a metric share an axis: `f1/cat` and `f1/dog` that of `f1`."""
    return metric.partition("/")[0]


def _by_axis(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(_axis_of(curve.metric), []).append(curve)
    return groups


def _draw_axis(axis: Any, curves: Sequence[Curve], per: Per) -> None:
    """Draw the curves of a metric: of several parts, or of one whose best value is marked."""
    parts = list(dict.fromkeys(curve.metric for curve in curves))
    validated = [curve for curve in curves if curve.name != curve.metric]
    for i, curve in enumerate(curves, start=len(validated) == len(curves)):
        style: dict[str, Any] = {"color": f"C{i}", "marker": "." if len(curve.at) <= _FEW else None}
        if len(parts) > 1:  # training and validation of a part have one colour
            style["color"] = f"C{parts.index(curve.metric)}"
            style["linestyle"] = "--" if curve in validated else "-"
        axis.plot(curve.at, curve.values, label=curve.name, **style)
        if len(parts) == 1 and curve.direction is not None and curve in (validated or curves):
            _mark_best(axis, curve, style["color"], per)
    axis.set_title(parts[0] if len(parts) == 1 else _axis_of(parts[0]))
    axis.set_xlabel(per)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    if 1 < len(axis.lines) <= _FEW:  # the title says what a single one is
        axis.legend(fontsize="small")


def _mark_best(axis: Any, curve: Curve, color: str, per: Per) -> None:
    best = (min if curve.direction == "min" else max)(curve.values)
    at = curve.at[curve.values.index(best)]
    style = {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"}
    axis.plot([at], [best], color=color, label=f"best: {number(best)}, {per} {at}", **style)


def _wants_log(curves: Sequence[Curve]) -> bool:
    values = [value for curve in curves for value in curve.values]
    aims_high = any(curve.direction == "max" for curve in curves)
    return not aims_high and min(values) > 0 and max(values) >= 100 * min(values)
