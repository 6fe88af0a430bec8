"""Files of initialised learners, loaded into learners with a state and without."""

import inspect
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from helpers import data, learner, linear, normed, same

import eqxtrain as et

X, Y = data()


class Scaled(et.Learner[Any]):
    """With a hyperparameter, which stands behind the state."""

    scale: float = 0.5
    name: str = "scaled"


def loaded(made: et.Learner[Any], like: et.Learner[Any], folder: Path) -> Any:
    eqx.tree_serialise_leaves(folder / "learner.eqx", made)
    return eqx.tree_deserialise_leaves(folder / "learner.eqx", like)


def saved_shapes(made: et.Learner[Any]) -> list[Any]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(made) if eqx.is_array_like(leaf)]


@pytest.mark.parametrize("build", [learner, normed])
def test_the_leaves_without_a_state_are_the_first_of_those_with_one(build: Any) -> None:
    without, with_ = saved_shapes(build()), saved_shapes(build().init())
    assert with_[: len(without)] == without and len(without) < len(with_)


@pytest.mark.slow
def test_the_model_and_its_state_are_right_without_a_state(tmp_path: Path) -> None:
    """With BatchNorm and Adam: the moments of the one are not taken for those of the other."""
    trained, _ = normed().fit(X, Y, epochs=2, verbose=0)
    half = loaded(trained, normed(seed=1), tmp_path)
    assert half.state is None and same(half.model, trained.model)
    assert trained.state is not None and same(half.model_state, trained.state.model_state)
    assert np.array_equal(half.predict(X), trained.predict(X))
    assert half.evaluate(X, Y) == trained.evaluate(X, Y)


def test_that_the_state_was_left_behind_is_told_where_it_would_be_missed(tmp_path: Path) -> None:
    trained, _ = learner().fit(X, Y, verbose=0)
    half = loaded(trained, learner(), tmp_path)
    match = r"the optimizer's state, the key and the step were not loaded.*Learner\(\.\.\.\)\.init"
    for start in (
        lambda one: one.fit(X, Y, verbose=0),
        lambda one: one.train_on_batch(X, Y),
        lambda one: one.replace(optimizer=optax.sgd(0.1)).init(),
    ):
        with pytest.warns(UserWarning, match=match) as told:
            start(half)
        assert len(told) == 1
    assert int(half.replace(state=None).init().state.step) == 0  # as asked, without a warning
    whole = loaded(trained, learner().init(), tmp_path)
    assert same(whole.fit(X, Y, verbose=0)[0], trained.fit(X, Y, verbose=0)[0])


def test_fields_that_were_read_from_the_optimizer_are_refused_everywhere(tmp_path: Path) -> None:
    made = Scaled(linear(), optax.adam(1e-2), loss=learner().loss, scale=0.25)
    trained, _ = made.fit(X, Y, verbose=0)
    half = loaded(trained, made.replace(scale=2.0), tmp_path)
    assert half.scale != 0.25 and same(half.model, trained.model)
    for use in (
        lambda: half.predict(X),
        lambda: half.evaluate(X, Y),
        lambda: half.fit(X, Y, verbose=0),
        lambda: half.replace(scale=0.25).init(),
    ):
        with pytest.raises(
            ValueError,
            match=r"the fields after `state` were read from the optimizer's leaves: `scale`",
        ):
            use()
    assert loaded(trained, made.replace(scale=2.0).init(), tmp_path).scale == 0.25


def test_what_was_never_initialised_loads_into_what_was_not(tmp_path: Path) -> None:
    half = loaded(learner(linear(1)), learner(), tmp_path)
    assert not half.is_initialised and half.init().is_initialised
    half.fit(X, Y, verbose=0)


def test_is_initialised_says_whether_there_is_a_state() -> None:
    made = learner()
    state = made.init().state
    assert not made.is_initialised and made.init().is_initialised
    assert made.replace(state=state).is_initialised
    assert not made.init().replace(state=None).is_initialised
    assert made.init().replace(optimizer=optax.sgd(0.1)).is_initialised
    assert made.fit(X, Y, verbose=0).learner.is_initialised
    with pytest.raises(TypeError, match="has no field `is_initialised`"):
        made.replace(is_initialised=True)
    assert "is_initialised" not in inspect.signature(et.Learner).parameters
