"""How numbers and tables are shown: the one format of each, as text and as HTML.

A table is as wide as its cells. Tables of `rich` fit the terminal, so they would wrap or cut the
numbers in pipes and notebooks, which tell of no width or of a wrong one.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np


def number(value: float) -> str:
    """Four digits after the point; with an exponent where that hides the number or is too long."""
    plain = value == 0 or 1e-3 <= abs(value) < 1e5
    return f"{value:.4f}" if plain else f"{value:.3e}"


def format_value(value: Any) -> str:
    """A value of logs: a number, or what kind of thing it is, `array(2, 2)`."""
    if isinstance(value, float):
        return number(value)
    return f"array{np.shape(value)}" if hasattr(value, "shape") else type(value).__name__


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def num_bytes(count: int | float) -> str:
    """Bytes in the largest unit of which there is one: `512 B`, `3.6 TiB`."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.{min(power, 1)}f} {_UNITS[power]}"


def duration(seconds: float, *, tenths: bool = True) -> str:
    """A time as people tell it: `25ms`, `0.4s`, `12s`, `3:07`, `1:02:45`.

    **Arguments:**

    - `tenths`: whether less than ten seconds are told more exactly than by whole ones.
    """
    if tenths and seconds < 0.0995:
        return f"{1000 * seconds:.0f}ms"
    if tenths and seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{whole:02d}"
    return f"{minutes}:{whole:02d}" if minutes else f"{whole}s"


class Html(str):
    """The cell of a table that is HTML already. All others are text."""

    __slots__ = ()


# In each cell, since notebooks align as they like, and fold lines and indents.
_STYLES = {"<": "text-align:left;white-space:pre", ">": "text-align:right;white-space:pre"}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells. `str(table)` is for terminals, `table.html()` for notebooks.

    **Arguments:**

    - `rows`: the cells of each row; a cell may hold several lines.
    - `align`: for each column, `<` to align it on the left or `>` on the right.
    - `header`: the names of the columns; empty for a table without them.
    """

    rows: Sequence[Sequence[str]]
    align: str
    header: Sequence[str] = ()

    def __str__(self) -> str:
        head = _lines(self.header)
        lines = [*head, *itertools.chain.from_iterable(map(_lines, self.rows))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                f"{cell:{side}{width}}"
                for cell, side, width in zip(line, self.align, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        if head:
            text.insert(len(head), "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join(text)

    def html(self) -> str:
        """The table as HTML, whatever its cells hold."""
        head = f"<thead>{self._html_row('th', self.header)}</thead>" if self.header else ""
        body = "".join(self._html_row("td", row) for row in self.rows)
        return f"<table>{head}<tbody>{body}</tbody></table>"

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        row = "".join(
            f'<{tag} style="{_STYLES[side]}">{_as_html(cell)}</{tag}>'
            for cell, side in zip(cells, self.align, strict=True)
        )
        return f"<tr>{row}</tr>"


def _as_html(cell: str) -> str:
    return cell if isinstance(cell, Html) else escape(cell)


def _lines(cells: Sequence[str]) -> list[tuple[str, ...]]:
    """A row whose cells may hold several lines, as lines of cells."""
    return list(itertools.zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""))
