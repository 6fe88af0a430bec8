"""Calling a model over a batch, by Equinox's convention."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, Normed, data, learner, linear, same
from jaxtyping import Array

import eqxtrain as et


def test_a_batched_model_gets_the_sentence_about_the_convention() -> None:
    def model(x: Array) -> Array:
        assert x.ndim == 2
        return x @ jnp.ones((4, 3))

    with pytest.raises(TypeError, match=r"takes the whole batch(.|\n)*def pred_step"):
        et.Learner(model, None).predict(data()[0])


def test_a_model_that_can_not_be_called_gets_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"can't be called.*override `pred_step`"):
        et.Learner({"w": jnp.ones(3)}, None).predict(data()[0])


def test_an_error_of_the_model_itself_is_left_as_it_is() -> None:
    def model(x: Array) -> Array:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        et.Learner(model, None).predict(data()[0])


def test_x_as_a_tuple_gives_positional_and_as_a_dict_keyword_arguments() -> None:
    class Sum(eqx.Module):
        scale: Array

        def __call__(self, a: Array, b: Array) -> Array:
            return self.scale * (jnp.sum(a) + 10 * jnp.sum(b))

    x, _ = data()
    a, b = x[:, :1], x[:, 1:]
    expected = a.sum(1) + 10 * b.sum(1)
    made = et.Learner(Sum(jnp.ones(())), None)
    for given in ((a, b), [a, b], {"b": b, "a": a}):
        assert made.predict(given) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_every_example_gets_its_own_key_and_evaluation_is_without_dropout() -> None:
    class Noisy(eqx.Module):
        def __call__(self, x: Array, key: Array) -> Array:
            return jr.normal(key, ())

    x = np.zeros((50, 1), np.float32)
    noise = et.Learner(Noisy(), None).predict(x, batch_size=20)
    assert len(np.unique(noise)) == 50
    dropped = learner(Dropped(jr.key(0)))
    x, y = data()
    assert np.array_equal(dropped.predict(x), dropped.predict(x))
    assert dropped.evaluate(x, y) == pytest.approx(dropped.evaluate(x, y, batch_size=5), rel=1e-5)


@pytest.mark.slow
def test_batch_normalisation_is_threaded_and_evaluation_leaves_it_alone() -> None:
    model, model_state = eqx.nn.make_with_state(Normed)(jr.key(0))
    made = learner(model, model_state=model_state).init()
    fitted, _ = made.fit(*data(), epochs=3, batch_size=8, verbose=0)
    assert made.state is not None and fitted.state is not None
    assert not same(fitted.state.model_state, made.state.model_state)
    before = fitted.predict(data()[0])
    fitted.evaluate(*data())
    assert np.array_equal(fitted.predict(data()[0]), before)
    assert np.array_equal(fitted.predict(data()[0], batch_size=1), before) or np.allclose(
        fitted.predict(data()[0], batch_size=1), before, rtol=1e-5
    )


@pytest.mark.slow
def test_batch_normalisation_matches_a_loop_by_hand() -> None:
    model, state = eqx.nn.make_with_state(Normed)(jr.key(0))
    x, y = data()
    fitted, _ = learner(model, optax.sgd(0.1), model_state=state).fit(
        x, y, batch_size=7, shuffle=False, verbose=0
    )

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Array, y: Array) -> Any:
        def loss(model: Any) -> Any:
            out, new = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
                x, state
            )
            return CROSS_ENTROPY(out, y).mean(), new

        (_, new), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, grads)), new

    for start in range(0, 21, 7):
        rows = slice(start, start + 7)
        model, state = step(model, state, jnp.asarray(x[rows]), jnp.asarray(y[rows]))
    assert fitted.state is not None
    for ours, theirs in ((fitted.model, model), (fitted.state.model_state, state)):
        a, b = eqx.filter(ours, eqx.is_array), eqx.filter(theirs, eqx.is_array)
        assert eqx.tree_equal(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (lambda x, y: (x, y), "`x` is a tuple of 2, .* Pass labels separately, `fit.x, y.`"),
        (lambda x, y: [x, y], "`x` is a list of 2, so the model was called with 2 arguments"),
        (lambda x, y: {"image": x, "label": y}, "keyword arguments `image`, `label`.*`y_true`"),
    ],
)
def test_what_is_given_in_one_where_it_should_be_apart_gets_a_hint(given: Any, hint: str) -> None:
    with pytest.raises(TypeError) as raised:
        learner().fit(given(*data()), verbose=0)
    assert any(re.search(hint, note) for note in raised.value.__notes__)


class Keyed(eqx.Module):
    """A model that takes its random key under another name, or not at all."""

    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout


@pytest.mark.slow
def test_a_key_under_another_name_is_told_of() -> None:
    class Must(Keyed):
        def __call__(self, x: Array, rng: Array) -> Array:
            return self.dropout(self.linear(x), key=rng)

    class May(Keyed):
        def __call__(self, x: Array, *, dropout_rng: Any = None) -> Array:
            random = dropout_rng is not None
            return self.dropout(self.linear(x), key=dropout_rng, inference=not random)

    class Own(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array, key: Array) -> Any:
            return jax.vmap(lambda x: model(x, dropout_rng=key))(x), state

    (x, y), parts = data(), (linear(), eqx.nn.Dropout())
    with pytest.raises(TypeError, match=r"`Must.__call__` names its random key `rng`.*: rename it"):
        learner(Must(*parts)).fit(x, y, verbose=0)
    with pytest.warns(
        UserWarning, match=r"key `dropout_rng`.*, so the model runs without one: rename it, or"
    ):
        learner(May(*parts)).train_on_batch(x, y, eager=True)
    learner(May(*parts)).test_on_batch(x, y, eager=True)  # nothing is random there
    Own(May(*parts), optax.sgd(0.1), loss=CROSS_ENTROPY).train_on_batch(x, y, eager=True)


def test_an_error_that_speaks_of_another_key_gets_no_hint() -> None:
    class Table(Keyed):
        def __call__(self, x: Array) -> Array:
            raise RuntimeError("the key of the table is wrong")

    with pytest.raises(RuntimeError, match="of the table") as raised:
        learner(Table(linear(), eqx.nn.Dropout())).test_on_batch(*data())
    assert "has no parameter" not in "".join(raised.value.__notes__)


def test_a_model_that_can_not_hand_its_key_on_is_told_how() -> None:
    class Never(Keyed):
        def __call__(self, x: Array) -> Array:
            return self.dropout(self.linear(x))

    with pytest.raises(RuntimeError, match="Dropout requires a key") as raised:
        learner(Never(linear(), eqx.nn.Dropout())).train_on_batch(*data(), eager=True)
    notes = raised.value.__notes__
    assert "`model.dropout: Dropout` was called with `x` float32[3]" in "".join(notes)
    assert notes[-1].startswith("`Never.__call__` has no parameter `key`")
