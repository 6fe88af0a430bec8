"""`Learner`: its constructor, its immutability, and what it does on one batch."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import (
    CROSS_ENTROPY,
    Dropped,
    Normed,
    arrays,
    data,
    learner,
    linear,
    normed,
    same,
)

import eqxtrain as et


class Tempered(et.Learner[eqx.nn.Linear]):
    """A learner with hyperparameters, one of them without a default."""

    temperature: float
    scale: float = 1.0

    def pred_step(self, model: eqx.nn.Linear, state: Any, x: jax.Array) -> Any:
        return jax.vmap(model)(x) * self.scale / self.temperature, state


def test_subclasses_add_plain_fields_with_and_without_defaults() -> None:
    made = Tempered(linear(), optax.sgd(0.1), 2.0, loss=CROSS_ENTROPY, scale=3.0)
    assert (made.temperature, made.scale) == (2.0, 3.0)
    with pytest.raises(TypeError, match="temperature"):
        Tempered(linear(), optax.sgd(0.1))  # pyright: ignore[reportCallIssue]


def test_every_method_returns_a_new_learner_and_the_old_one_stays_usable() -> None:
    x, y = data()
    old = learner().init()
    before = arrays(old)
    new, _ = old.fit(x, y, verbose=0)
    newer, _ = new.train_on_batch(x, y)
    assert not same(old, new) and not same(new, newer)
    for kept in (old, new):
        assert not any(
            leaf.is_deleted() for leaf in jax.tree.leaves(kept) if isinstance(leaf, jax.Array)
        )
    assert all(np.array_equal(a, b) for a, b in zip(arrays(old), before, strict=True))
    assert old.evaluate(x, y)["loss"] > new.evaluate(x, y)["loss"]


def test_fitting_an_uninitialised_learner_leaves_its_model_usable() -> None:
    x, y = data()
    model = linear()
    learner(model).fit(x, y, verbose=0)
    assert np.isfinite(np.asarray(model.weight)).all()


def test_a_numpy_leaf_of_the_model_trains_and_the_users_array_is_untouched() -> None:
    x, y = data()
    model = eqx.tree_at(lambda m: m.bias, linear(), np.zeros(3, np.float32))
    fitted, _ = learner(model).fit(x, y, verbose=0)
    assert not np.any(model.bias)
    assert isinstance(fitted.model.bias, jax.Array) and np.any(np.asarray(fitted.model.bias))


def test_init_moves_the_model_state_so_that_no_leaf_stands_twice() -> None:
    made = normed().init()
    assert made.model_state is None and made.state is not None
    assert made.state.model_state is not None


def test_init_anew_starts_from_the_model_and_refuses_to_lose_a_model_state() -> None:
    x, y = data()
    fitted, _ = learner().fit(x, y, verbose=0)
    anew = fitted.init(key=jr.key(5))
    assert same(anew.model, fitted.model)
    assert anew.state is not None and int(anew.state.step) == 0
    stateful, _ = normed().fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="would lose the `model_state`"):
        stateful.init()
    assert stateful.state is not None
    again = stateful.replace(state=None, model_state=stateful.state.model_state).init()
    assert again.state is not None
    assert same(again.state.model_state, stateful.state.model_state)


def test_a_stateful_model_without_its_state_is_refused_by_path() -> None:
    model, _ = eqx.nn.make_with_state(Normed)(jr.key(0))
    with pytest.raises(ValueError, match=r"model\.norm.*make_with_state"):
        learner(model).init()


def test_the_key_is_raw_data_folded_so_that_it_differs_from_the_users() -> None:
    state = learner().init(key=jr.key(7)).state
    assert state is not None and state.key.dtype == jnp.uint32
    assert not np.array_equal(np.asarray(state.key), np.asarray(jr.key_data(jr.key(7))))
    raw = learner().init(key=jr.PRNGKey(7)).state
    assert same(state, raw)


@pytest.mark.usefixtures("unchecked")
def test_keys_of_another_kind_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="one key"):
        learner().init(key=jr.split(jr.key(0)))
    with pytest.raises(ValueError, match="jax_default_prng_impl"):
        learner().init(key=jr.key(0, impl="rbg"))


def make(name: str, **fields: Any) -> et.Learner[Any]:
    """A fresh learner of one of several kinds, as a user would build it again next week."""
    if name == "normed":
        return normed(**fields)
    model = Dropped(jr.key(0)) if name == "dropout" else linear()
    return learner(model, **fields)


@pytest.mark.parametrize("name", ["linear", "dropout", "normed"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_file_of_plain_equinox_loads_into_a_fresh_init(
    name: str, frozen: bool, tmp_path: Path
) -> None:
    x, y = data()
    where = lambda m: m if name == "linear" else m.hidden
    fields: dict[str, Any] = {"trainable": et.freeze(where)} if frozen else {}
    fitted, _ = make(name, **fields).fit(x, y, epochs=2, verbose=0, validation_split=0.3)
    fitted.evaluate(x, y)
    path = tmp_path / "learner.eqx"
    eqx.tree_serialise_leaves(path, fitted)
    fresh = make(name, **fields).init()
    assert jax.tree.structure(fitted) == jax.tree.structure(fresh)
    loaded = eqx.tree_deserialise_leaves(path, fresh)
    assert same(loaded, fitted)
    assert np.array_equal(loaded.predict(x), fitted.predict(x))


def test_a_file_written_before_unfreezing_loads_and_trains_on(tmp_path: Path) -> None:
    x, y = data()
    frozen, _ = make("dropout", trainable=et.freeze(lambda m: m.hidden)).fit(x, y, verbose=0)
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", frozen)
    like = make("dropout", trainable=et.freeze(lambda m: m.hidden)).init()
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", like)
    thawed, _ = loaded.replace(trainable=None).fit(x, y, verbose=0)
    assert not same(thawed.model.hidden, frozen.model.hidden)


def test_replace_keeps_the_optimizer_state_while_its_structure_stays() -> None:
    x, y = data()
    fitted, _ = learner().fit(x, y, verbose=0)
    assert fitted.state is not None
    other = fitted.replace(optimizer=optax.adam(1e-4))
    assert same(other.state, fitted.state)
    renewed = fitted.replace(optimizer=optax.sgd(1e-2, momentum=0.9))
    assert renewed.state is not None
    assert int(renewed.state.step) == int(fitted.state.step)
    assert same(renewed.state.key, fitted.state.key)
    assert not any(np.any(a) for a in arrays(renewed.state.opt_state))
    renewed.fit(x, y, verbose=0)


def test_replace_changes_hyperparameters_and_names_unknown_fields() -> None:
    made = Tempered(linear(), optax.sgd(0.1), 2.0)
    assert made.replace(temperature=3.0).temperature == 3.0
    with pytest.raises(TypeError, match=r"no field `temprature`.*temperature"):
        made.replace(temprature=3.0)


def test_predict_and_evaluate_accept_a_learner_that_was_never_fitted() -> None:
    x, y = data()
    bare = et.Learner(linear(), None, loss=CROSS_ENTROPY)
    assert bare.predict(x).shape == (21, 3)
    assert bare.evaluate(x, y).keys() == {"loss"}


def test_on_batch_methods_agree_with_their_whole_passes() -> None:
    x, y = data()
    start = learner().init()
    by_batch, logs = start.train_on_batch(x, y)
    by_fit, history = start.fit(x, y, batch_size=21, shuffle=False, verbose=0)
    assert same(by_batch, by_fit)
    assert logs == {name: column[0] for name, column in history.items()}
    assert by_fit.test_on_batch(x, y) == by_fit.evaluate(x, y, batch_size=21)
    assert np.array_equal(by_fit.predict_on_batch(x), by_fit.predict(x, batch_size=21))


def test_the_logs_of_one_batch_are_its_own() -> None:
    x, y = data()
    start = learner(optimizer=optax.sgd(0.0)).init()
    once, first = start.train_on_batch(x[:5], y[:5])
    _, second = once.train_on_batch(x[5:], y[5:])
    assert second == start.test_on_batch(x[5:], y[5:]) != first


def test_predict_gives_numpy_trees_in_order() -> None:
    class Two(et.Learner[eqx.nn.Linear]):
        def pred_step(self, model: Any, state: Any, x: Any) -> Any:
            return {"logits": jax.vmap(model)(x), "row": (x[:, 0], x[:, :1])}, state

    x, _ = data()
    out = Two(linear(), None).predict(x, batch_size=4)
    assert isinstance(out["logits"], np.ndarray) and out["logits"].shape == (21, 3)
    assert np.array_equal(out["row"][0], x[:, 0]) and out["row"][1].shape == (21, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adam"}, "optax.adam"),
        ({"optimizer": optax.adam}, "optax.adam"),
        ({"loss": "mse"}, "no function"),
        ({"loss": [CROSS_ENTROPY, 3]}, "no function"),
        ({"loss": {"a": "mse"}}, "`loss` holds 'mse'"),
        ({"metrics": {"accuracy": "accuracy"}}, "no metric and no function"),
        ({"metrics": [et.metrics.Accuracy]}, r"give an instance, `Accuracy\(\)`"),
        ({"state": {}}, "not a `LearnerState`"),
        ({"trainable": 3}, "`trainable` is a function"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_optimizer_loss_or_metric_gets_a_sentence(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        et.Learner(linear(), fields.pop("optimizer", None), **fields)


def test_fit_without_an_optimizer_gets_a_sentence() -> None:
    with pytest.raises(TypeError, match="no optimizer to fit with"):
        et.Learner(linear(), None, loss=CROSS_ENTROPY).fit(*data())


def test_no_loss_and_no_test_step_gets_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"has no loss.*override `test_step`"):
        et.Learner(linear(), optax.sgd(0.1)).fit(*data(), verbose=0)


def test_no_model_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="override `init_step` to build it"):
        et.Learner(None, optax.sgd(0.1), loss=CROSS_ENTROPY).fit(*data())


@pytest.mark.parametrize(
    "change",
    [
        {"model": eqx.nn.Linear(4, 3, use_bias=False, key=jr.key(0))},
        {"optimizer": optax.sgd(0.1)},
        {"trainable": et.freeze(lambda m: m.bias)},
    ],
)
def test_a_state_of_another_model_or_optimizer_is_refused_by_path(change: dict[str, Any]) -> None:
    state = learner().init().state
    fields: dict[str, Any] = {"model": linear(), "optimizer": optax.adam(1e-2)} | change
    other: et.Learner[Any] = et.Learner(**fields, loss=CROSS_ENTROPY, state=state)
    with pytest.raises(ValueError, match=r"belongs to another model.*state\.opt_state"):
        other.fit(*data(), verbose=0)


def test_a_model_that_shares_an_array_is_trained_apart_with_a_warning() -> None:
    first = linear()
    tied = {"a": first, "b": eqx.tree_at(lambda m: m.weight, linear(1), first.weight)}

    class Both(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Any) -> Any:
            return jax.vmap(model["a"])(x) + jax.vmap(model["b"])(x), state

    x, y = data()
    with pytest.warns(UserWarning, match=r"model\['b'\].weight.*eqx\.nn\.Shared"):
        fitted, _ = Both(tied, optax.adam(0.1), loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    assert not same(fitted.model, tied)


def test_typed_keys_in_the_state_get_a_sentence() -> None:
    class Keyed(et.LearnerState):
        noise: Any = None

    class Bad(et.Learner[Any]):
        def states_step(self, model: Any, key: Any) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            return Keyed.from_state(state, noise=key)

    with pytest.raises(TypeError, match=r"state\.noise.*key_data"):
        Bad(linear(), None).init()


def test_the_result_of_fit_says_what_it_holds() -> None:
    result = learner().fit(*data(), verbose=0)
    assert repr(result).startswith("Fitted(learner=Learner(...), history=History(epochs=1")
    assert result.learner is result[0] and result.history is result[1]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
@pytest.mark.usefixtures("unchecked")
def test_a_batch_size_that_is_no_positive_number_gets_a_sentence(batch_size: Any) -> None:
    for call in (learner().fit, learner().evaluate):
        with pytest.raises(ValueError, match="`batch_size` is a whole number, 1 or more"):
            call(*data(), batch_size=batch_size)


def test_a_learner_is_a_pytree_that_transforms_take() -> None:
    x, y = data()
    made = learner().init()

    @eqx.filter_jit
    def loss(made: Any, x: Any, y: Any) -> Any:
        return made.test_step(
            model=made.model, state=made.state, x=x, y_true=y, key=jr.key(0), training=False
        )[0]

    assert float(loss(made, x, y)) == pytest.approx(made.evaluate(x, y)["loss"], rel=1e-6)


def test_replace_moves_a_model_state_into_the_state() -> None:
    x, y = data()
    trained, _ = normed().fit(x, y, epochs=2, verbose=0)
    fresh = normed().init()
    assert fresh.state is not None
    changed = trained.replace(model_state=fresh.state.model_state)
    assert changed.model_state is None and changed.state is not None
    assert same(changed.state.model_state, fresh.state.model_state)
    assert jax.tree.structure(changed) == jax.tree.structure(trained)
    assert changed.evaluate(x, y) != trained.evaluate(x, y)


def test_replace_keeps_a_state_that_the_learner_makes_itself() -> None:
    class Own(et.Learner[Any]):
        def init_step(self, model: Any, key: Any) -> Any:
            state = self.states_step(model=model, key=key)
            return model, state.update(opt_state={"mine": jnp.ones(3)})

    made = Own(linear(), None).init()
    changed = made.replace(model=linear(1))
    assert changed.state is not None and "mine" in changed.state.opt_state


@pytest.mark.usefixtures("unchecked")
def test_numpy_integers_are_whole_numbers() -> None:
    x, y = data()
    seven: Any = np.int64(7)
    assert learner().evaluate(x, y, batch_size=seven) == learner().evaluate(x, y, batch_size=7)


def test_class_weights_that_are_no_numbers_get_a_sentence() -> None:
    for wrong in ("balanced", {0: "a"}):
        with pytest.raises(ValueError, match="no numbers"):
            learner().evaluate(*data(), class_weight=wrong)


def test_replacing_the_optimizer_makes_its_state_anew_where_states_are_ones_own() -> None:
    class Two(et.LearnerState):
        other: Any = None

    class Own(et.Learner[Any]):
        second: Any = None

        def states_step(self, model: Any, key: Any) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            params = eqx.filter(model, eqx.is_inexact_array)
            return Two.from_state(state, other=self.second.init(params))

    x, y = data()
    made = Own(linear(), optax.adam(0.1), loss=CROSS_ENTROPY, second=optax.adam(0.1))
    fitted, _ = made.fit(x, y, verbose=0)
    changed = fitted.replace(optimizer=optax.sgd(0.1, momentum=0.9))
    assert isinstance(changed.state, Two) and isinstance(fitted.state, Two)
    assert same(changed.state.other, fitted.state.other)
    assert int(changed.state.step) == 1 and same(changed.state.key, fitted.state.key)
    changed.fit(x, y, verbose=0)
    both = fitted.replace(optimizer=optax.sgd(0.1), second=optax.sgd(0.1))
    assert isinstance(both.state, Two) and not jax.tree.leaves(both.state.other)


@pytest.mark.usefixtures("unchecked")
def test_a_key_that_is_no_key_gets_a_sentence() -> None:
    wrong: Any = 3
    made: Any = learner()
    with pytest.raises(TypeError, match="give a random key"):
        made.init(key=wrong)
