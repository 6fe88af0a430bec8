"""A line that fits its place."""

import pytest
import wcwidth
from hypothesis import given, strategies as st

from eqxtrain._display.line import cut, fit, width_of

PIECES = [
    [(3, "a long title"), (9, "title")],
    [(1, "a picture"), (0, "")],
    [(2, "12 of 34"), (4, "12"), (9, "")],
]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (None, "a long title  a picture  12 of 34"),
        (33, "a long title  a picture  12 of 34"),
        (32, "a long title  12 of 34"),
        (21, "a long title  12"),
        (15, "title  12"),
        (8, "title"),
        (4, "tit…"),
    ],
)
def test_what_matters_least_is_shortened_first(width: int | None, line: str) -> None:
    assert fit(PIECES, width) == line


def test_of_equals_the_last_is_shortened_first() -> None:
    same = [(1, "long"), (2, "l")]
    assert [fit([same, same], width) for width in (10, 9, 4)] == ["long  long", "long  l", "l  l"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=30))
def test_no_text_is_wider_than_it_may_be(text: str) -> None:
    for width in range(1, 12):
        assert width_of(cut(text, width)) <= width
        assert width_of(fit([[(0, text)], [(1, text), (2, "")]], width)) <= width


@pytest.mark.parametrize(
    "text", ["loss", "精度", "Verlust é", "e\u0301", "précision ✓", "한국어", ""]
)
def test_a_text_is_as_wide_as_terminals_draw_it(text: str) -> None:
    assert width_of(text) == wcwidth.wcswidth(text)


def test_wide_characters_are_cut_whole() -> None:
    assert [cut("精度度", width) for width in (6, 5, 4, 3)] == ["精度度", "精度…", "精…", "精…"]
