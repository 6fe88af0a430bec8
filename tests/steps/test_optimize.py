"""Which leaves are trained, and optax on those alone."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import optax.contrib
import pytest
from helpers import CROSS_ENTROPY, arrays, data, learner, linear, same
from jaxtyping import Array

import eqxtrain as et
from eqxtrain._steps import optimize as _optimize


class WithFunction(eqx.Module):
    """A model with leaves that are no arrays of floats."""

    first: eqx.nn.Linear
    activation: Any
    count: Array
    last: eqx.nn.Linear

    def __init__(self) -> None:
        self.first = eqx.nn.Linear(4, 8, key=jr.key(0))
        self.activation = jax.nn.tanh
        self.count = jnp.zeros((), jnp.int32)
        self.last = eqx.nn.Linear(8, 3, key=jr.key(1))

    def __call__(self, x: Array) -> Array:
        return self.last(self.activation(self.first(x)))


OPTIMIZERS: dict[str, Any] = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2),
    "lamb": optax.lamb(1e-2),
    "adafactor": optax.adafactor(1e-2),
    "lion": optax.lion(1e-3),
    "MultiSteps": optax.MultiSteps(optax.adam(1e-2), every_k_schedule=2),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "schedule_free_adamw": optax.contrib.schedule_free_adamw(1e-2),
    "masked": optax.chain(
        optax.masked(
            optax.add_decayed_weights(1e-2), lambda p: jax.tree.map(lambda a: a.ndim > 1, p)
        ),
        optax.adam(1e-2),
    ),
    "plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "cosine": optax.adam(optax.cosine_decay_schedule(1e-2, 100)),
    "agc": optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1)),
    "lbfgs": optax.lbfgs(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_train_a_model_with_leaves_that_are_no_arrays(name: str) -> None:
    x, y = data(24)
    made = learner(WithFunction(), OPTIMIZERS[name])
    fitted, history = made.fit(x, y, epochs=8, batch_size=8, verbose=0, shuffle=False)
    assert history["loss"][-1] < history["loss"][0]
    compiled = [c.step for c in history.timing.compilations]
    assert compiled == ["train_step"]
    fresh = made.init()
    assert jax.tree.structure(fresh) == jax.tree.structure(fitted)


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["adam", *(pytest.param(n, marks=SLOW) for n in ("sgd", "lamb", "lbfgs"))]
)
def test_an_update_is_the_one_of_optax_by_hand(name: str) -> None:
    x, y = map(jnp.asarray, data(24))
    optimizer = optax.with_extra_args_support(OPTIMIZERS[name])
    model, loss_of = linear(), lambda m: CROSS_ENTROPY(jax.vmap(m)(x), y).mean()
    fitted, _ = learner(model, OPTIMIZERS[name]).fit(
        x, y, epochs=3, batch_size=24, shuffle=False, verbose=0
    )
    with jax.numpy_dtype_promotion("standard"):
        params, static = eqx.partition(model, eqx.is_inexact_array)
        state = optimizer.init(params)
        value_fn = lambda p: loss_of(eqx.combine(p, static))

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            value, grads = jax.value_and_grad(value_fn)(params)
            updates, state = optimizer.update(
                grads, state, params, value=value, grad=grads, value_fn=value_fn
            )
            return optax.apply_updates(params, updates), state

        for _ in range(3):
            params, state = step(params, state)
    for ours, theirs in zip(arrays(fitted.model), arrays(params), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "adam",
        *(pytest.param(n, marks=SLOW) for n in ("sgd", "lamb", "adafactor", "schedule_free_adamw")),
    ],
)
def test_a_bfloat16_model_stays_bfloat16(name: str) -> None:
    x, y = data(24)
    half = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, WithFunction()
    )
    made = learner(half, OPTIMIZERS[name])
    fitted, history = made.fit(x.astype(jnp.bfloat16), y, epochs=4, batch_size=8, verbose=0)
    assert {a.dtype for a in arrays(fitted.model)} == {np.dtype(jnp.bfloat16), np.dtype(np.int32)}
    assert history["loss"][-1] < history["loss"][0]
    assert len(history.timing.compilations) == 1


def spec(kind: str) -> Any:
    """The same freezing, `first` frozen and `last` trained, said in three ways."""
    model = WithFunction()
    if kind == "freeze":
        return et.freeze(lambda m: m.first)
    mask = jax.tree.map(lambda _: True, model)
    if kind == "bools":
        return eqx.tree_at(lambda m: m.first, mask, False)
    frozen = {(8, 4), (8,)}
    return lambda leaf: eqx.is_inexact_array(leaf) and leaf.shape not in frozen


@pytest.mark.parametrize("kind", ["freeze", "bools", "predicate"])
def test_frozen_leaves_stay_bit_identical_and_have_no_optimizer_state(kind: str) -> None:
    x, y = data(24)
    made = learner(WithFunction(), optax.adamw(1e-2, weight_decay=0.5), trainable=spec(kind))
    fitted, _ = made.fit(x, y, epochs=2, verbose=0)
    assert same(fitted.model.first, made.model.first)
    assert not same(fitted.model.last, made.model.last)
    assert fitted.state is not None
    moments = fitted.state.opt_state[0].mu
    assert moments.first.weight is None and moments.last.weight is not None
    names = len(jax.tree.leaves(made)) - len(jax.tree.leaves(made.replace(trainable=None)))
    assert names == 0  # the spec adds no leaves


def test_frozen_leaves_get_no_gradient() -> None:
    seen: list[Any] = []

    class Looks(et.Learner[Any]):
        def grad_step(self, **available: Any) -> Any:
            out = super().grad_step(**available)
            seen.append(out[3])
            return out

    made = Looks(WithFunction(), optax.sgd(0.1), loss=CROSS_ENTROPY, trainable=spec("freeze"))
    made.fit(*data(), verbose=0)
    assert seen[0].first.weight is None and seen[0].last.weight is not None


@pytest.mark.slow
def test_freeze_train_unfreeze_and_train_on() -> None:
    x, y = data(24)
    frozen = learner(WithFunction(), optax.adam(1e-2), trainable=et.freeze(lambda m: m.first))
    half, _ = frozen.fit(x, y, verbose=0)
    thawed = half.replace(trainable=None)
    whole, _ = thawed.fit(x, y, verbose=0)
    assert same(half.model, thawed.model)
    assert not same(whole.model.first, half.model.first)
    assert whole.state is not None and int(whole.state.step) == 2


def test_several_places_and_tuples_of_them_freeze() -> None:
    model = WithFunction()
    for frozen in (
        et.freeze(lambda m: m.first, lambda m: m.last.bias),
        et.freeze(lambda m: (m.first, m.last.bias)),
    ):
        mask = _optimize.trainable_mask(frozen, model)
        assert (mask.first.weight, mask.last.weight, mask.last.bias) == (False, True, False)
        assert mask.count is False and mask.activation is False


@pytest.mark.usefixtures("unchecked")
def test_specs_that_do_not_fit_get_a_sentence() -> None:
    with pytest.raises(TypeError, match="functions that pick nodes"):
        et.freeze("first")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="could not find what to freeze in a `WithFunction`"):
        learner(WithFunction(), trainable=et.freeze(lambda m: m.middle)).init()
    with pytest.raises(ValueError, match="not a prefix of the model"):
        learner(WithFunction(), trainable=[True, False]).init()


def test_gradients_that_do_not_match_are_refused_by_path() -> None:
    class Half(et.Learner[Any]):
        def grad_step(self, **available: Any) -> Any:
            loss, logs, state, grads = super().grad_step(**available)
            return loss, logs, state, eqx.tree_at(lambda g: g.bias, grads, None)

    with pytest.raises(ValueError, match=r"`grads\.bias` is gone.*`trainable`"):
        Half(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).fit(*data(), verbose=0)


def test_gradients_of_the_whole_model_may_be_given_where_a_part_is_trained() -> None:
    class Whole(et.Learner[Any]):
        def grad_step(self, model: Any, **available: Any) -> Any:
            def loss_of(model: Any) -> Any:
                loss, logs, state = self.test_step(model=model, **available)
                return loss, (logs, state)

            (loss, aux), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
            return loss, *aux, grads

    x, y = data()
    fields: dict[str, Any] = {"loss": CROSS_ENTROPY, "trainable": et.freeze(lambda m: m.bias)}
    whole, _ = Whole(linear(), optax.sgd(0.1), **fields).fit(x, y, verbose=0)
    part, _ = et.Learner(linear(), optax.sgd(0.1), **fields).fit(x, y, verbose=0)
    assert same(whole.model, part.model) and same(whole.model.bias, linear().bias)


@pytest.mark.slow
def test_metrics_that_ask_for_gradients_or_updates_are_measured_in_training_alone() -> None:
    x, y = data(24)
    norm = lambda grads: optax.tree.norm(grads)
    size = lambda updates: optax.tree.norm(updates)
    made = learner(optimizer=optax.sgd(0.1), metrics={"grad_norm": norm, "update_norm": size})
    _, history = made.fit(x, y, batch_size=24, validation_data=(x, y), verbose=0)
    grads = jax.grad(lambda m: CROSS_ENTROPY(jax.vmap(m)(jnp.asarray(x)), jnp.asarray(y)).mean())(
        linear()
    )
    assert history["grad_norm"][0] == pytest.approx(float(optax.tree.norm(grads)), rel=1e-5)
    assert history["update_norm"][0] == pytest.approx(0.1 * history["grad_norm"][0], rel=1e-5)
    assert "val_grad_norm" not in history


@pytest.mark.slow
def test_the_learning_rate_can_be_set_without_a_new_program() -> None:
    class Halve(et.Callback):
        def on_epoch_begin(self, run: et.Run) -> None:
            where = lambda made: made.state.opt_state.hyperparams["learning_rate"]
            run.replace(eqx.tree_at(where, run.learner, jnp.asarray(0.0)))

    made = learner(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    fitted, history = made.fit(*data(), epochs=2, callbacks=Halve(), verbose=0)
    assert same(fitted.model, made.model)
    assert len(history.timing.compilations) == 1


def test_arrays_that_the_optimizer_holds_are_not_donated() -> None:
    rate = jnp.asarray(0.1)
    made = learner(optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=rate))
    made.fit(*data(), verbose=0)
    made.fit(*data(), verbose=0)
    assert not rate.is_deleted()


@pytest.mark.slow
def test_an_own_train_step_may_leave_the_batch_out_of_apply_gradients() -> None:
    class Own(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss_of = lambda m: CROSS_ENTROPY(jax.vmap(m)(x), y_true).mean()
            loss, grads = eqx.filter_value_and_grad(loss_of)(model)
            logs, model, state = self.apply_gradients(
                model=model, state=state, grads=grads, loss=loss
            )
            return {**logs, "loss": loss}, model, state

    norm = {"norm": lambda grads: optax.tree.norm(grads)}
    x, y = data(24)
    _, history = Own(linear(), optax.sgd(0.1), metrics=norm).fit(x, y, batch_size=24, verbose=0)
    _, expected = learner(optimizer=optax.sgd(0.1), metrics=norm).fit(
        x, y, batch_size=24, verbose=0
    )
    assert history["norm"] == pytest.approx(expected["norm"], rel=1e-5)
    with pytest.raises(TypeError, match="asks for `x`") as raised:
        Own(linear(), optax.lbfgs()).fit(x, y, verbose=0)
    assert any("does a line search" in note for note in raised.value.__notes__)


def test_gradients_that_are_none_get_a_sentence() -> None:
    class Empty(et.Learner[Any]):
        def grad_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.zeros(()), {}, state, None

    with pytest.raises(ValueError, match=r"gradients are a `NoneType`.*`eqx.filter_grad`"):
        Empty(linear(), optax.sgd(0.1)).fit(data()[0], verbose=0)


def test_predictions_are_not_there_for_what_asks_for_gradients() -> None:
    mixed = lambda grads, y_pred: optax.tree.norm(grads) * y_pred.mean()
    with pytest.raises(TypeError, match="measured after the step, without predictions"):
        learner(metrics={"mixed": mixed}).fit(*data(), verbose=0)


class Complex(eqx.Module):
    """Two complex parameters and a real one."""

    z: Array
    r: Array

    def __call__(self, x: Array) -> Array:
        return (self.z * self.r.astype(self.z.dtype)).sum()


TARGET = 2.0 - 3.0j


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.05), optax.adam(0.05), optax.lbfgs()], ids=["sgd", "adam", "lbfgs"]
)
def test_complex_parameters_descend(optimizer: Any) -> None:
    distance = lambda y_pred, y_true: jnp.abs(y_pred - TARGET) ** 2
    model = Complex(jnp.array([0.1 + 1.0j, -0.3j], jnp.complex64), jnp.array(0.5))
    learner = et.Learner(model, optimizer, loss=distance)
    x = np.zeros((4, 1), np.float32)
    fitted, history = learner.fit(x, x, steps=150, batch_size=4, shuffle=False, verbose=0)
    assert history["loss"][-1] < 1e-3
    assert fitted.model.z.dtype == jnp.complex64
    assert np.isclose(fitted.model(x[0]), TARGET, atol=0.05)


@pytest.mark.slow
def test_gradients_stay_as_equinox_gives_them_and_are_conjugated_where_they_are_applied() -> None:
    distance = lambda y_pred, y_true: jnp.abs(y_pred - TARGET) ** 2
    model = Complex(jnp.array([0.1 + 1.0j, -0.3j], jnp.complex64), jnp.array(0.5))
    metrics = {"norm": et.metrics.GradientNorm()}
    learner = et.Learner(model, optax.sgd(0.1), loss=distance, metrics=metrics).init()
    given = {"model": model, "state": learner.state, "x": jnp.zeros((1, 1)), "key": jr.key(0)}
    given |= {"y_true": jnp.zeros(1), "training": True}
    grads = learner.grad_step(**given)[3]
    plain = eqx.filter_grad(lambda m: jnp.abs(m(jnp.zeros(1)) - TARGET) ** 2)(model)
    np.testing.assert_allclose(grads.z, plain.z, rtol=1e-6)
    logs, new, _ = learner.train_step(**given)
    np.testing.assert_allclose(new.z, model.z - 0.1 * np.conj(plain.z), rtol=1e-6)
    norm = np.sqrt(np.sum(np.abs(plain.z) ** 2) + plain.r**2)
    np.testing.assert_allclose(logs["norm"].compute(), norm, rtol=1e-6)
