"""Checks of plain values, each with the sentence that refuses the wrong ones."""

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer, of Python's or NumPy's. Bools are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole_number(name: str, value: Any, *, at_least: int | None = None) -> int:
    """`value` as an int.

    **Arguments:**

    - `name`: what users call it, `batch_size` or `TopKAccuracy(k)`.

    **Raises:** `ValueError` where it is not a whole number, or too small a one.
    """
    if not is_whole(value) or (at_least is not None and value < at_least):
        span = "" if at_least is None else f", {at_least} or more"
        raise ValueError(f"`{name}` must be a whole number{span}; got {value!r}.")
    return int(value)


def check_real_number(
    name: str,
    value: Any,
    *,
    at_least: int | float = -math.inf,
    at_most: int | float = math.inf,
) -> None:
    """Refuse what is not a number, or is out of range; nan is out of every range.

    **Arguments:**

    - `name`: what users call it, `HuberLoss(delta)`.

    **Raises:** `ValueError` where it is not a number, or out of range.
    """
    is_number = is_whole(value) or isinstance(value, float | np.floating)
    if not is_number or not at_least <= value <= at_most:
        span = f", {at_least} or more" if at_least > -math.inf else ""
        span = f" from {at_least} to {at_most}" if at_most < math.inf else span
        raise ValueError(f"`{name}` must be a number{span}; got {value!r}.")


def check_fields(
    owner: type, names: Iterable[str], fields: Collection[str], *, remedy: str = ""
) -> None:
    """Refuse names that are not fields of a class.

    **Arguments:**

    - `owner`: the class.
    - `names`: the names to check.
    - `fields`: those that it has, as far as users may set them.
    - `remedy`: the end of the sentence, after the list of fields.

    **Raises:** `TypeError` where there are others.
    """
    unknown = ", ".join(f"`{name}`" for name in names if name not in fields)
    if unknown:
        listed = ", ".join(fields) or "none"
        raise TypeError(
            f"`{owner.__name__}` has no field {unknown}. Its fields are {listed}{remedy}."
        )
