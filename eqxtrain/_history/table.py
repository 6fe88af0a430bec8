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

Columns = Mapping[str, Sequence[Any]]


def as_text(columns: Columns, epochs: int, *, short: bool) -> str:
    """The table for terminals; a short one leaves out epochs in the middle."""
    return str(_table(columns, _shown(epochs, short=short)))


def as_html(columns: Columns, epochs: int, best: Mapping[str, int]) -> str:
    """The short table for notebooks.

    **Arguments:**

    - `best`: the best epoch of those columns of which it is known.
    """
    table = _table(columns, _shown(epochs, short=True))
    curves = [_sparkline(name, columns, best.get(name)) for name in columns]
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


def _sparkline(name: str, columns: Columns, best: int | None) -> str:
    """A column as a line in the colour of the text, with a dot at the best epoch.

    Training and validation of a metric have one scale, so that their lines can be compared.
    """
    metric = metric_of(name, columns)
    shared = [_numbers(columns[n]) for n in columns if metric_of(n, columns) == metric]
    values = [value for column in shared for value in column.values()]
    points = _numbers(columns[name])
    if len(points) < 2:
        return ""
    low, high = min(values), max(values)
    last = len(columns[name]) - 1

    def place(epoch: int) -> tuple[float, float]:
        height = (points[epoch] - low) / (high - low) if high > low else 0.5
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * epoch / last
        return x, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * height

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
    dot = ""
    if best in points:  # it may be infinite
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
