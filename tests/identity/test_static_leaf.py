"""Static values as keys: equal where they trace the same, and with hashes that agree."""

import math
from typing import Any

import pytest

from eqxtrain._identity.static_leaf import StaticLeaf

NAN, OTHER_NAN = float("nan"), float("nan")


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        (1.0, True, False),
        (0, False, False),
        (0.0, -0.0, False),
        (0j, complex(0, -0.0), False),
        (NAN, OTHER_NAN, True),
        (NAN, 0.0, False),
        (complex(NAN, 1), complex(OTHER_NAN, 1), True),
        ("a", "a", True),
        (math.sin, math.sin, True),
        (math.sin, math.cos, False),
        (frozenset([1]), frozenset([1]), True),
        (object(), object(), False),
    ],
)
def test_static_values_are_compared_by_type_and_value(a: Any, b: Any, equal: bool) -> None:
    assert (StaticLeaf(a) == StaticLeaf(b)) == equal
    assert (StaticLeaf(b) == StaticLeaf(a)) == equal
    assert ({StaticLeaf(a): "found"}.get(StaticLeaf(b)) == "found") == equal, (
        "hashes agree with equality"
    )


def test_what_cannot_be_hashed_is_compared_by_what_it_holds() -> None:
    unhashable: set[int] = {1}
    assert StaticLeaf(unhashable) == StaticLeaf(unhashable)
    assert hash(StaticLeaf(unhashable)) == hash(StaticLeaf(unhashable))
    assert StaticLeaf(unhashable) == StaticLeaf({1}) != StaticLeaf({2})


def test_a_static_leaf_is_not_the_value() -> None:
    assert StaticLeaf(1) != 1 and repr(StaticLeaf("a")) == "'a'"
