"""A line of text that fits its place: what matters least is shortened first."""

import functools
import unicodedata
from collections.abc import Sequence

Piece = Sequence[tuple[int, str]]
"""A part of a line in several forms, from the longest to the shortest, each with its rank. Of the
forms in use, the one of the lowest rank is given up first; the last form is never given up."""


def fit(pieces: Sequence[Piece], width: int | None) -> str:
    """Join the pieces to a line no wider than `width`; None if there is room for everything."""
    forms = [list(piece) for piece in pieces]
    while True:
        line = "  ".join(piece[0][1] for piece in forms if piece[0][1])
        if width is None or width_of(line) <= width:
            return line
        ranks = [(piece[0][0], -i) for i, piece in enumerate(forms) if len(piece) > 1]
        if not ranks:
            return cut(line, width)
        del forms[-min(ranks)[1]][0]


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes: two for each wide character."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@functools.cache
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # drawn over the one before
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text if it is no wider than `width`; else its beginning and an ellipsis."""
    if width_of(text) <= width:
        return text
    kept = ""
    for character in text:
        if width_of(kept + character) > width - 1:
            break
        kept += character
    return kept + "…"
