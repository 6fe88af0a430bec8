"""Plain data as JSON, which has no nan and no arrays, and back."""

import math
from typing import Any

import numpy as np

from ._placement import as_numpy

_ARRAY = "__array__"


def encoded(value: Any) -> Any:
    """Data that JSON can hold: nan and infinities become strings, arrays dicts."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": str(value)}
    if isinstance(value, dict):
        return {str(name): encoded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(part) for part in value]
    if hasattr(value, "dtype"):
        array = as_numpy(value)
        return {_ARRAY: encoded(array.tolist()), "dtype": str(array.dtype)}
    return value


def decoded(value: Any) -> Any:
    """What `encoded` was given, with tuples as lists."""
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__float__"}:
        return float(value["__float__"])
    if value.keys() == {_ARRAY, "dtype"}:
        return np.array(decoded(value[_ARRAY]), value["dtype"])
    return {name: decoded(part) for name, part in value.items()}
