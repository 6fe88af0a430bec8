"""`Learner`: its constructor, its immutability, and what it does on one batch."""

import copy
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import (
    CROSS_ENTROPY,
    Dropped,
    arrays,
    close,
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


@pytest.mark.slow
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


def make(name: str, **fields: Any) -> et.Learner[Any]:
    """A fresh learner of one of several kinds, as a user would build it again next week."""
    if name == "normed":
        return normed(**fields)
    model = Dropped(jr.key(0)) if name == "dropout" else linear()
    return learner(model, **fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frozen"),
    [("linear", False), ("normed", True)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [("linear", True), ("normed", False), ("dropout", False), ("dropout", True)]
    ],
)
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


@pytest.mark.slow
def test_a_file_written_before_unfreezing_loads_and_trains_on(tmp_path: Path) -> None:
    x, y = data()
    frozen, _ = make("dropout", trainable=et.freeze(lambda m: m.hidden)).fit(x, y, verbose=0)
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", frozen)
    like = make("dropout", trainable=et.freeze(lambda m: m.hidden)).init()
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", like)
    thawed, _ = loaded.replace(trainable=None).fit(x, y, verbose=0)
    assert not same(thawed.model.hidden, frozen.model.hidden)


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "clipped": optax.chain(optax.clip(1.0), optax.adamw(optax.linear_schedule(1e-2, 0.0, 5))),
}


def root_cause(error: BaseException | None) -> str:
    """The message of the exception that the others were raised from."""
    assert error is not None
    return root_cause(error.__cause__) if error.__cause__ else str(error)


@pytest.mark.parametrize("numbers", [{}, {"temperature": 2.0}], ids=["plain", "with numbers"])
@pytest.mark.parametrize(
    ("written", "like"),
    [(a, b) for a in OPTIMIZERS for b in OPTIMIZERS if a != b],
)
def test_the_file_of_another_optimizer_is_refused_by_a_sentence(
    written: str, like: str, numbers: dict[str, float], tmp_path: Path
) -> None:
    kind: Any = Tempered if numbers else et.Learner
    build = lambda name: kind(linear(), OPTIMIZERS[name], loss=CROSS_ENTROPY, **numbers).init()
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", build(written))
    with pytest.raises(RuntimeError, match=r"'opt_state_checksum'") as caught:
        eqx.tree_deserialise_leaves(tmp_path / "l.eqx", build(like))
    said = root_cause(caught.value)
    assert (
        "saved with another optimizer, `trainable` or `ema`" in said and "learner.replace" in said
    )


def test_the_file_of_other_frozen_layers_is_refused_though_all_shapes_agree(tmp_path: Path) -> None:
    def build(i: int) -> et.Learner[Any]:
        model = eqx.nn.MLP(4, 4, 4, 2, key=jr.key(0))
        spec = et.freeze(lambda m: m.layers[i])
        return learner(model, optimizer=optax.adam(1e-2), trainable=spec).init()

    eqx.tree_serialise_leaves(tmp_path / "l.eqx", build(0))
    eqx.tree_deserialise_leaves(tmp_path / "l.eqx", build(0))
    with pytest.raises(RuntimeError, match="opt_state_checksum"):
        eqx.tree_deserialise_leaves(tmp_path / "l.eqx", build(1))


def test_the_file_of_other_metrics_or_losses_does_not_blame_the_optimizer_alone(
    tmp_path: Path,
) -> None:
    metrics = [et.metrics.Accuracy(), et.metrics.LogLoss(from_logits=True)]
    variants = [learner(), learner(metrics=metrics), learner(loss=[CROSS_ENTROPY, et.L2(0.1)])]
    for saved in variants:
        eqx.tree_serialise_leaves(tmp_path / "l.eqx", saved.init())
        for like in variants:
            if like is not saved:
                with pytest.raises(Exception) as caught:
                    eqx.tree_deserialise_leaves(tmp_path / "l.eqx", like.init())
                said = root_cause(caught.value)
                assert "optimizer" not in said or "other losses or metrics" in said


def test_the_checksum_of_the_optimizers_state_survives_what_pytrees_go_through() -> None:
    state = learner(optimizer=optax.adam(1e-2)).init().state
    assert state is not None
    for made in (
        copy.deepcopy(state),
        pickle.loads(pickle.dumps(state)),
        jax.tree.map(lambda leaf: leaf, state),
        eqx.filter_jit(lambda state: state)(state),
        eqx.filter_eval_shape(lambda: state),
    ):
        assert type(made.opt_state_checksum) is type(state.opt_state_checksum)
    counted, _ = jax.lax.scan(lambda state, _: (state, None), state, length=2)
    made = learner(optimizer=optax.adam(1e-2), state=counted)
    assert same(made, learner(optimizer=optax.adam(1e-2)).init())


def test_a_file_loads_after_a_field_of_the_model_was_renamed(tmp_path: Path) -> None:
    class Old(eqx.Module):
        first: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.first(x)

    class New(eqx.Module):
        hidden: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.hidden(x)

    saved = learner(Old(linear(0)), optimizer=optax.adam(1e-2)).init()
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", saved)
    like = learner(New(linear(1)), optimizer=optax.adam(1e-2)).init()
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", like)
    assert same(loaded.model.hidden, saved.model.first)


def test_the_file_of_another_optimizer_is_loaded_as_it_was_saved_and_then_changed(
    tmp_path: Path,
) -> None:
    x, y = data()
    saved, _ = learner().fit(x, y, verbose=0)
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", saved)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", learner().init())
    changed = loaded.replace(optimizer=optax.sgd(0.1, momentum=0.9))
    assert changed.state is not None and int(changed.state.step) == 1
    assert same(changed.model, saved.model)
    changed.fit(x, y, verbose=0)


def test_replace_changes_hyperparameters_and_names_unknown_fields() -> None:
    made = Tempered(linear(), optax.sgd(0.1), 2.0)
    assert made.replace(temperature=3.0).temperature == 3.0
    with pytest.raises(TypeError, match=r"no field `temprature`.*temperature"):
        made.replace(temprature=3.0)


def test_assigning_to_a_learner_says_to_replace() -> None:
    made = Tempered(linear(), optax.sgd(0.1), 2.0)
    with pytest.raises(FrozenInstanceError, match=r"`Tempered.scale` .*replace\(scale=...\)`"):
        made.scale = 2.0


class Built(et.Learner[eqx.nn.Linear]):
    """A learner with a constructor of its own, which sets a field."""

    rate: float

    def __init__(self, rate: float) -> None:
        super().__init__(linear(), optax.sgd(rate))
        self.rate = rate


def test_a_constructor_of_ones_own_may_assign() -> None:
    assert Built(0.1).rate == 0.1


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
    assert close(by_batch, by_fit, rtol=1e-5, atol=1e-6)
    assert logs == pytest.approx({name: column[0] for name, column in history.items()}, rel=1e-6)
    whole = by_fit.evaluate(x, y, batch_size=21)
    assert by_fit.test_on_batch(x, y) == pytest.approx(whole, rel=1e-6)
    predicted = by_fit.predict(x, batch_size=21)
    np.testing.assert_allclose(by_fit.predict_on_batch(x), predicted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
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
        ({"loss": "mse"}, "not a function"),
        ({"loss": [CROSS_ENTROPY, 3]}, "not a function"),
        ({"loss": {"a": "mse"}}, "`loss` holds 'mse'"),
        ({"metrics": {"accuracy": "accuracy"}}, "neither a metric nor a function"),
        ({"metrics": [et.metrics.Accuracy]}, r"pass an instance, `Accuracy\(\)`"),
        ({"state": {}}, "not a `LearnerState`"),
        ({"trainable": 3}, "`trainable` must be a function"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_optimizer_loss_or_metric_gets_a_sentence(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        et.Learner(linear(), fields.pop("optimizer", None), **fields)


def test_fit_without_an_optimizer_gets_a_sentence() -> None:
    with pytest.raises(TypeError, match="no optimizer, which `fit` needs"):
        et.Learner(linear(), None, loss=CROSS_ENTROPY).fit(*data())


def test_no_loss_and_no_test_step_gets_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"has no loss.*override `test_step`"):
        et.Learner(linear(), optax.sgd(0.1)).fit(*data(), verbose=0)


def test_no_model_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="override `init_step` to build it"):
        et.Learner(None, optax.sgd(0.1), loss=CROSS_ENTROPY).fit(*data())


def test_the_result_of_fit_says_what_it_holds() -> None:
    result = learner().fit(*data(), verbose=0)
    assert repr(result).startswith(
        "Fitted(learner=Learner(Linear, 15 parameters), history=<1 epoch"
    )
    assert result.learner is result[0] and result.history is result[1]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
@pytest.mark.usefixtures("unchecked")
def test_a_batch_size_that_is_no_positive_number_gets_a_sentence(batch_size: Any) -> None:
    for call in (learner().fit, learner().evaluate):
        with pytest.raises(ValueError, match="`batch_size` must be a whole number, 1 or more"):
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


@pytest.mark.usefixtures("unchecked")
def test_numpy_integers_are_whole_numbers() -> None:
    x, y = data()
    seven: Any = np.int64(7)
    assert learner().evaluate(x, y, batch_size=seven) == learner().evaluate(x, y, batch_size=7)


def test_class_weights_that_are_no_numbers_get_a_sentence() -> None:
    for wrong in ("balanced", {0: "a"}, {1: "5"}, {0: None}, {0: float("nan")}, {1: -1.0}):
        with pytest.raises(ValueError, match="aren't weights"):
            learner().evaluate(*data(), class_weight=wrong)


def test_a_class_given_as_the_model_is_told_to_be_called() -> None:
    with pytest.raises(TypeError, match=r"`model` is the class `Linear`: pass an instance"):
        et.Learner(eqx.nn.Linear, optax.sgd(0.1))
