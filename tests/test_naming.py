"""The names of what stands in containers."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st

import eqxtrain as et
from eqxtrain._data import named_sets
from eqxtrain._naming import named_leaves, unique
from eqxtrain.metrics._logs import check_logs


def m(y_pred: Any, y_true: Any) -> Any:
    return y_pred


def names(container: Any) -> list[str]:
    return [name for name, _ in named_leaves(container, default="metric")]


def test_nesting_joins_names_with_slashes() -> None:
    assert names({"a": {"b": [m, m], "c": m}}) == ["a/b/m", "a/b/m", "a/c"]


def test_told_apart_the_example_of_the_design_has_its_names() -> None:
    taken: list[str] = []
    for name in names({"a": {"b": [m, m], "c": m}}):
        taken.append(unique(name, taken))
    assert taken == ["a/b/m", "a/b/m_1", "a/c"]


def test_the_members_come_as_they_are_and_in_order() -> None:
    first, second = lambda: 1, lambda: 2
    members = named_leaves({"z": first, "a": [second, m]}, default="metric")
    assert [member for _, member in members] == [first, second, m]


def test_a_nameless_function_goes_by_its_position_in_a_list() -> None:
    nameless = lambda y_pred, y_true: y_pred
    assert names([m, nameless, functools.partial(nameless, 1)]) == ["m", "1", "2"]
    assert names({"a": [nameless, [nameless, m]]}) == ["a/0", "a/1/0", "a/1/m"]


def test_a_partial_goes_by_the_name_of_what_it_wraps() -> None:
    assert names([functools.partial(functools.partial(m, 1), 2)]) == ["m"]


def test_a_key_names_what_stands_directly_under_it() -> None:
    assert names({"a": m, 3: m, "b": [m]}) == ["a", "3", "b/m"]


def test_a_lone_member_goes_by_its_own_name_or_the_default() -> None:
    assert names(m) == ["m"]
    assert names(lambda y_pred, y_true: y_pred) == ["metric"]


def test_an_empty_name_is_refused_wherever_it_is_given() -> None:
    accuracy = et.metrics.Accuracy()
    for metrics in ({"": accuracy}, {"a": {"": [accuracy]}}):
        with pytest.raises(ValueError, match=r"stands under the key `''`.*give it one"):
            et.Learner(None, None, metrics=metrics)
    with pytest.raises(ValueError, match="stands under the key `''`"):
        et.Learner(None, None, loss={"": optax.squared_error})
    with pytest.raises(ValueError, match=r"`Loss\(name=''\)` is empty"):
        et.Loss(optax.squared_error, name="")
    with pytest.raises(ValueError, match=r"`Mine.train_step` logs under the empty name"):
        check_logs({"": jnp.zeros(())}, who="Mine.train_step")
    with pytest.raises(ValueError, match="`validation_data` has the empty name"):
        named_sets({"": (np.zeros(3),)})


def test_nothing_has_no_names() -> None:
    for nothing in (None, [], {}, {"a": None, "b": [None, {}]}):
        assert names(nothing) == []


def test_a_container_may_itself_be_a_leaf() -> None:
    leaves = named_leaves({"a": (1, 2)}, default="x", is_leaf=lambda node: node == (1, 2))
    assert list(leaves) == [("a", (1, 2))]


def test_unique_counts_up_past_names_that_are_taken() -> None:
    assert unique("m", []) == "m"
    assert unique("m", ["m"]) == "m_1"
    assert unique("m", ["m", "m_1", "m_2"]) == "m_3"


@given(st.lists(st.sampled_from(["m", "m_1", "m_1_1", "n"]), max_size=12))
def test_equal_names_never_overwrite_each_other(wanted: list[str]) -> None:
    taken: list[str] = []
    for name in wanted:
        taken.append(unique(name, taken))
    assert len(set(taken)) == len(wanted)
    assert all(got.startswith(name) for got, name in zip(taken, wanted, strict=True))
