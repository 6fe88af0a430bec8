"""Numbers, units and tables: readable in a terminal, a file and a notebook."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain._format import Html, Table, duration, format_value, num_bytes, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.5, "0.5000"),
        (-12.34567, "-12.3457"),
        (1e-3, "0.0010"),
        (1e-5, "1.000e-05"),
        (99_999.0, "99999.0000"),
        (-123_456.0, "-1.235e+05"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_four_digits_or_an_exponent(value: float, text: str) -> None:
    assert number(value) == format_value(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(0.5), "0.5000"),
        (np.eye(2), "array(2, 2)"),
        (jnp.zeros(3), "array(3,)"),
        ({"a": 1}, "dict"),
    ],
)
def test_what_is_logged_besides_numbers_is_named(value: Any, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (60 * 2**20, "60.0 MiB"),
        (2**30, "1.0 GiB"),
        (4 * 10**12, "3.6 TiB"),
        (5 * 2**50, "5120.0 TiB"),
        (math.nan, "nan B"),
    ],
)
def test_bytes_are_counted_in_powers_of_1024_and_named_so(count: int | float, text: str) -> None:
    assert num_bytes(count) == text


def test_a_table_is_aligned_by_column_and_has_a_line_under_its_header() -> None:
    table = Table([("a", "1"), ("bc", "1,000")], "<>", ("Name", "Count"))
    assert str(table).splitlines() == [
        "Name  Count",
        "───────────",
        "a         1",
        "bc    1,000",
    ]


def test_a_table_without_a_header_is_its_rows_alone() -> None:
    table = Table([("  part", "1"), ("whole", "20")], "<>")
    assert str(table) == "  part   1\nwhole   20"
    assert "<thead>" not in table.html() and table.html().count("<tr>") == 2


def test_a_cell_may_hold_several_lines() -> None:
    table = Table([("a", "x\ny", "1"), ("b", "z", "2")], "<<>", ("N", "M", "K"))
    assert str(table).splitlines()[2:] == ["a  x  1", "   y", "b  z  2"]
    assert ">x\ny</td>" in table.html() and "white-space:pre" in table.html()


def test_html_has_the_same_cells_escaped_and_aligned() -> None:
    page = Table([("<b>", "1")], "<>", ("A & B", "C")).html()
    assert "&lt;b&gt;" in page and "A &amp; B" in page and "<b>" not in page
    assert page.count("text-align:left") == page.count("text-align:right") == 2


def test_no_width_cuts_or_wraps_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Table([["x" * 200, "1"]], "<>", ("long", "n"))
    monkeypatch.setenv("COLUMNS", "20")
    assert str(wide).splitlines()[2] == "x" * 200 + "  1"


def test_a_table_may_be_empty() -> None:
    assert str(Table([], "<>", ("a", "b"))) == "a  b\n────"
    assert str(Table([], "")) == ""


def test_a_cell_that_is_html_already_stays_as_it_is() -> None:
    table = Table([(Html("<i>x</i>"), "<i>")], "<>")
    assert "><i>x</i></td>" in table.html() and ">&lt;i&gt;</td>" in table.html()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "40ms"), (0.0996, "0.1s"), (9.94, "9.9s"), (9.96, "9s"), (59.9, "59s")),
        *((187.0, "3:07"), (3765.2, "1:02:45")),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert seconds < 10 or duration(seconds, tenths=False) == text


def test_durations_of_whole_seconds() -> None:
    assert [duration(s, tenths=False) for s in (0.04, 9.96)] == ["0s", "9s"]
