"""The epochs of a run as a table: as text, and as HTML with a small curve above each column."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .._format import Html, Table, format_value, number
from .curves import metric_of

_FIRST, _LAST = 3, 7
"""How many epochs a short table has at its beginning and at its end."""

_WIDTH, _HEIGHT, _MARGIN = 72.0, 20.0, 3.0
_POINTS = 150
"""A small curve has no room for more points."""

Columns = Mapping[str, Sequence[Any]]


def as_text(columns: Columns, epochs: int, *, short: bool) -> str:
    """The table for terminals; a short one leaves out epochs in the middle."""
    return str(_table(columns, _shown(epochs, short=short)))


def as_html(columns: Columns, epochs: int, best: Mapping[str, int]) -> str:
    """The short table for notebooks, with a small curve above each column of numbers.

    Training and validation of a metric have one scale, so that their curves can be compared.

    **Arguments:**

    - `best`: the best epoch of those columns of which it is known.
    """
    table = _table(columns, _shown(epochs, short=True))
    points = {name: _numbers(column) for name, column in columns.items()}
    metrics = {name: metric_of(name, columns) for name in columns}
    seen: dict[str, list[float]] = {}
    for name, metric in metrics.items():
        seen.setdefault(metric, []).extend(points[name].values())
    scales = {metric: (min(v), max(v)) for metric, v in seen.items() if v}
    curves = [
        _sparkline(name, points[name], scales[metric], epochs, best.get(name))
        if len(points[name]) > 1
        else ""
        for name, metric in metrics.items()
    ]
    return Table([["", *curves], *table.rows], table.align, table.header).html()


def _shown(epochs: int, *, short: bool) -> list[int | None]:
    """The epochs that are shown, with None where some are left out."""
    if not short or epochs <= _FIRST + _LAST + 1:
        return list(range(epochs))
    return [*range(_FIRST), None, *range(epochs - _LAST, epochs)]


def _table(columns: Columns, epochs: Sequence[int | None]) -> Table:
    rows = [
        ["⋮"] * (len(columns) + 1)
        if epoch is None
        else [str(epoch + 1), *(format_value(column[epoch]) for column in columns.values())]
        for epoch in epochs
    ]
    return Table(rows, ">" * (len(columns) + 1), ["epoch", *columns])


def _sparkline(
    name: str,
    points: Mapping[int, float],
    scale: tuple[float, float],
    epochs: int,
    best: int | None,
) -> Html:
    """A column as a line in the colour of the text, with a dot at the best epoch."""
    low, high = scale

    def place(epoch: int) -> tuple[float, float]:
        height = (points[epoch] - low) / (high - low) if high > low else 0.5
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * epoch / (epochs - 1)
        return x, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * height

    drawn = list(points)[:: len(points) // _POINTS + 1]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, drawn))
    dot = ""
    if best is not None and best in points:  # it may be infinite
        x, y = place(best)
        title = f"<title>best: {number(points[best])}, epoch {best + 1}</title>"
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="currentColor">{title}</circle>'
    return Html(
        f'<svg width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" role="img" aria-label="{escape(name)}">'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        f"{dot}</svg>"
    )


def _numbers(column: Sequence[Any]) -> dict[int, float]:
    """The values that can be drawn, by epoch."""
    return {i: v for i, v in enumerate(column) if isinstance(v, float) and math.isfinite(v)}
