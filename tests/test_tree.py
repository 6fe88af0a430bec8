"""Trees and their leaves: paths, differences, copies, and the split into arrays and the rest."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from eqxtrain import _tree


class Node(eqx.Module):
    """A module with an array, a plain leaf and a static field."""

    weight: Any
    rate: Any = 0.1
    kind: str = eqx.field(default="a", static=True)


NAN, OTHER_NAN = float("nan"), float("nan")

plain = st.sampled_from([1, 1.0, True, 0.0, -0.0, "text", math.sin, NAN, OTHER_NAN, None, 2j])
arrays = st.sampled_from([np.zeros(2), np.float32(1), jnp.ones(3), jnp.zeros((), int)])
trees = st.recursive(
    plain | arrays,
    lambda child: (
        st.lists(child, max_size=3)
        | st.tuples(child, child)
        | st.dictionaries(st.sampled_from("abc"), child, max_size=3)
        | st.builds(Node, child, child, kind=st.sampled_from("ab"))
    ),
    max_leaves=8,
)


@given(trees)
def test_split_and_merge_give_the_same_tree_back(tree: Any) -> None:
    found, static = _tree.partition_leaves(tree)
    again = static.merge(found)
    assert all(map(_tree.is_array, found))
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    old, new = jax.tree.leaves(tree), jax.tree.leaves(again)
    assert all(a is b for a, b in zip(old, new, strict=True))
    assert static == _tree.partition_leaves(again)[1] and hash(static) == hash(
        _tree.partition_leaves(again)[1]
    )


@given(trees, trees)
def test_two_trees_have_no_differences_just_when_one_program_takes_both(a: Any, b: Any) -> None:
    assert _tree.differences(a, a) == []
    kinds = lambda tree: (
        [_tree.leaf_signature(leaf) for leaf in _tree.partition_leaves(tree)[0]],
        _tree.partition_leaves(tree)[1],
    )
    assert (_tree.differences(a, b) == []) == (kinds(a) == kinds(b))


def test_merge_takes_other_arrays_in_their_places() -> None:
    tree = {"a": Node(jnp.ones(2)), "b": 3}
    _, static = _tree.partition_leaves(tree)
    assert static.merge(["new"]) == {"a": Node("new"), "b": 3}


def test_static_parts_differ_where_leaves_or_static_fields_do() -> None:
    static = lambda tree: _tree.partition_leaves(tree)[1]
    assert static(Node(jnp.ones(2))) == static(Node(jnp.zeros(7)))
    assert static(Node(jnp.ones(2), kind="a")) != static(Node(jnp.ones(2), kind="b"))
    assert static(Node(jnp.ones(2))) != static(Node(None))


@pytest.mark.parametrize(
    ("leaf", "array", "inexact", "key"),
    [
        (jnp.ones(2), True, True, False),
        (np.ones(2), True, True, False),
        (np.float32(1), True, True, False),
        (jnp.array(1j), True, True, False),
        (jnp.arange(2), True, False, False),
        (jax.ShapeDtypeStruct((2,), jnp.float32), True, True, False),
        (jax.random.key(0), True, False, True),
        (jax.random.PRNGKey(0), True, False, False),
        (1.0, False, False, False),
        ("text", False, False, False),
    ],
)
def test_leaves_are_told_apart(leaf: Any, array: bool, inexact: bool, key: bool) -> None:
    found = (_tree.is_array(leaf), _tree.is_inexact(leaf), _tree.is_typed_key(leaf))
    assert found == (array, inexact, key)


def test_paths_are_those_of_python() -> None:
    tree = {"a": [Node(1), Node(2, rate=3)]}
    found = _tree.paths(tree, "model")
    assert [path for path, _ in found] == [
        "model['a'][0].weight",
        "model['a'][0].rate",
        "model['a'][1].weight",
        "model['a'][1].rate",
    ]
    assert [leaf for _, leaf in found] == [1, 0.1, 2, 3]


def test_leaves_are_described_by_shape_and_dtype_or_value() -> None:
    assert _tree.describe(jnp.ones((3, 4))) == "float32[3,4]"
    assert _tree.describe(np.zeros((), np.int8)) == "int8[]"
    assert _tree.describe(jax.ShapeDtypeStruct((2,), jnp.bfloat16)) == "bfloat16[2]"
    assert _tree.describe(jnp.asarray(1.0)) == "float32[], weakly typed"
    assert _tree.describe("text") == "'text'"
    assert len(_tree.describe("x" * 100)) == 60


def test_differences_name_the_path_and_both_sides() -> None:
    old = {"a": Node(jnp.ones(2), rate=1), "gone": jnp.ones(3), "same": 1}
    new = {"a": Node(jnp.ones(3), rate=True), "new": "text", "same": 1}
    assert _tree.differences(old, new, "state") == [
        "`state['a'].rate`: 1 → True",
        "`state['a'].weight`: float32[2] → float32[3]",
        "`state['gone']` is gone (was float32[3])",
        "`state['new']` is new ('text')",
    ]


def test_differences_see_dtypes_and_weak_types_but_no_values() -> None:
    assert _tree.differences(jnp.zeros(2), jnp.ones(2)) == []
    assert _tree.differences(jnp.zeros(2), np.zeros(2, np.float32)) == []
    assert len(_tree.differences(jnp.zeros(2), jnp.zeros(2, int))) == 1
    assert "weakly typed" in _tree.differences(jnp.asarray(1.0), jnp.float32(1))[0]


def test_differences_see_what_is_in_no_leaf() -> None:
    for old, new in (([], ()), ({"a": None}, {"b": None}), (Node(1, kind="a"), Node(1, kind="b"))):
        [line] = _tree.differences(old, new, "model")
        assert line.startswith("`model`: a container, a type or a static field")
    assert _tree.differences([], ())[0].startswith("the tree: ")


def test_shapes_stand_in_for_arrays_and_forget_weak_types() -> None:
    made = _tree.shape_structs({"a": jnp.asarray(1.0), "b": 3, "c": np.ones(2)})
    assert made == {
        "a": jax.ShapeDtypeStruct((), jnp.float32),
        "b": 3,
        "c": jax.ShapeDtypeStruct((2,), jnp.float32),
    }


def test_the_first_leaf_of_a_kind_is_found_by_its_path() -> None:
    tree = {"a": 1, "b": [jnp.ones(2), jax.random.key(0)]}
    assert _tree.find_path(_tree.is_typed_key, tree, "model") == "model['b'][1]"
    assert _tree.find_path(lambda leaf: leaf == 9, {"a": 1}, "model") is None


def test_size_counts_numbers_and_bytes_of_arrays_alone() -> None:
    tree = {"a": jnp.ones((2, 3)), "b": np.zeros(4, np.int8), "c": 3.0}
    assert _tree.count_and_bytes(tree | {"d": jax.ShapeDtypeStruct((5,), jnp.float32)}) == (15, 48)
    assert _tree.count_and_bytes({}) == (0, 0)


def test_fields_are_set_past_the_constructor_on_a_new_module() -> None:
    class Checked(eqx.Module):
        n: int

        def __check_init__(self) -> None:
            if self.n < 0:
                raise ValueError("negative")

    old = Checked(1)
    new = _tree.with_fields(old, n=-1)
    assert (type(new), new.n, old.n) == (Checked, -1, 1)


def test_an_instance_has_the_fields_that_it_is_given_and_no_others() -> None:
    class Pair(eqx.Module):
        a: int
        b: int

    assert vars(_tree.instance(Pair, {"a": 1})) == {"a": 1}


def test_what_refuses_to_be_copied_is_copied_past_that() -> None:
    class Shy:
        def __init__(self, items: list[int]) -> None:
            self.items = items

        def __copy__(self) -> Any:
            raise TypeError("one is enough")

    old = Shy([1])
    new = _tree.with_fields(old)
    new.extra = 2  # pyright: ignore[reportAttributeAccessIssue]
    assert new.items is old.items and not hasattr(old, "extra")
