"""Checks of plain values: what passes, and what the others are told."""

import math
from typing import Any

import numpy as np
import pytest

from eqxtrain._check import check_fields, check_real_number, is_whole, whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_are_those_of_python_and_numpy(value: Any) -> None:
    assert is_whole(value)
    number = whole_number("n", value, at_least=3)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float32(3), "3", None, np.array([3])])
def test_nothing_else_is_a_whole_number(value: Any) -> None:
    assert not is_whole(value)
    with pytest.raises(
        ValueError, match=r"^`n` must be a whole number, 0 or more; got .*(3|True|None)"
    ):
        whole_number("n", value, at_least=0)


def test_a_bound_of_a_whole_number_is_told() -> None:
    assert whole_number("n", -5) == -5
    with pytest.raises(ValueError, match=r"^`n` must be a whole number, 1 or more; got 0\.$"):
        whole_number("n", 0, at_least=1)
    with pytest.raises(ValueError, match=r"^`n` must be a whole number; got 0\.5\.$"):
        whole_number("n", 0.5)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.5), np.int32(1)])
def test_numbers_in_their_range_pass(value: Any) -> None:
    check_real_number("Loss(delta)", value, at_least=0, at_most=1)


@pytest.mark.parametrize(
    ("value", "bounds", "span"),
    [
        (-1, {"at_least": 0}, ", 0 or more"),
        (1.5, {"at_least": 0, "at_most": 1}, " from 0 to 1"),
        (math.nan, {}, ""),
        ("1", {}, ""),
        (True, {}, ""),
        (1j, {}, ""),
        (np.complex64(1), {}, ""),
    ],
)
def test_other_numbers_are_told_their_range(value: Any, bounds: dict[str, int], span: str) -> None:
    with pytest.raises(ValueError) as told:
        check_real_number("Loss(delta)", value, **bounds)
    assert str(told.value) == f"`Loss(delta)` must be a number{span}; got {value!r}."


class Point: ...


def test_unknown_fields_are_named_beside_those_there_are() -> None:
    check_fields(Point, ["x"], ["x", "y"])
    with pytest.raises(TypeError) as told:
        check_fields(Point, {"x": 1, "z": 2, "w": 3}, ["x", "y"], remedy="; look there")
    assert str(told.value) == ("`Point` has no field `z`, `w`. Its fields are x, y; look there.")
    with pytest.raises(TypeError, match=r"no field `z`\. Its fields are none\."):
        check_fields(Point, ["z"], [])
