"""Where arrays live: copies, donation, ties, weak types, and the host."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqxtrain import _placement, _tree


class Node(eqx.Module):
    """A module with an array, a plain leaf and a static field."""

    weight: Any
    rate: Any = 0.1
    kind: str = eqx.field(default="a", static=True)


def test_strong_arrays_have_no_weak_type_and_the_same_value() -> None:
    for value in (1.0, 2, jnp.asarray(3.0), np.ones(2)):
        array = _placement.strip_weak_type(value)
        assert isinstance(array, jax.Array) and not array.weak_type
        assert array.tolist() == np.asarray(value).tolist()


def test_a_canonical_tree_has_only_strong_jax_arrays() -> None:
    made = _placement.as_jax_arrays(Node(np.ones(2), rate=[jnp.asarray(1.0), 2.0]))
    assert isinstance(made.weight, jax.Array) and not made.rate[0].weak_type
    assert made.rate[1] == 2.0 and isinstance(made.rate[1], float)


def test_copies_survive_the_donation_of_the_originals() -> None:
    tree = {"a": jnp.ones(2), "key": jax.random.key(0), "n": 3}
    copied = _placement.copy(tree)
    tree["a"].delete()
    tree["key"].delete()
    assert copied["a"].tolist() == [1, 1] and copied["n"] == 3
    assert _tree.is_typed_key(copied["key"]) and not copied["key"].is_deleted()


def test_arrays_on_the_host_own_their_memory() -> None:
    tree = {"a": jnp.ones(2), "n": 3}
    host = _placement.owned_by_host(tree)
    tree["a"].delete()
    assert type(host["a"]) is np.ndarray and host["a"].flags.owndata and host["a"].flags.writeable
    assert host["a"].tolist() == [1, 1] and host["n"] == 3


def test_one_array_in_two_places_is_copied_apart_with_a_warning() -> None:
    shared = jnp.ones(2)
    tree = {"a": Node(shared), "b": Node(shared), "c": jnp.ones(2)}
    with pytest.warns(
        UserWarning, match=r"`model\['b'\].weight` and `model\['a'\].weight`.*Shared"
    ):
        apart = _placement.copy_tied(tree, root="model")
    assert apart["a"].weight is shared and apart["b"].weight is not shared
    assert apart["b"].weight.tolist() == [1, 1] and apart["c"] is tree["c"]


def test_equinox_shared_is_not_taken_for_an_alias() -> None:
    pair = [jnp.ones(2), jnp.zeros(2)]
    tied = eqx.nn.Shared(pair, lambda p: p[1], lambda p: p[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _placement.copy_tied(tied, root="model")


def test_an_array_in_two_places_is_put_once() -> None:
    x = np.ones(3)
    moved = _placement.put_each_once({"batch": {"a": x, "b": x + 1}, "x": {"a": x}})
    assert moved["batch"]["a"] is moved["x"]["a"] and isinstance(moved["x"]["a"], jax.Array)
    assert moved["batch"]["b"].tolist() == [2, 2, 2]
