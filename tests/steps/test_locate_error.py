"""Where in a model a step failed: the path of the module, and the shapes that met."""

import contextlib
import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear
from jaxtyping import Array

import eqxtrain as et


def last_line(call: Callable[[], Any], kind: type[Exception]) -> str:
    """The last line that people read of what a call raises."""
    with pytest.raises(kind) as raised:
        call()
    return traceback.format_exception(raised.value)[-1].rstrip().splitlines()[-1]


def mlp(inputs: int = 4) -> eqx.nn.MLP:
    return eqx.nn.MLP(inputs, 3, 8, 1, key=jr.key(0))


@pytest.mark.parametrize("eager", [False, True])
def test_an_input_of_the_wrong_width_names_the_layer_and_the_shapes(eager: bool) -> None:
    x, y = data()
    made = learner(mlp(5))
    for call in (
        lambda: made.fit(x, y, verbose=0, eager=eager),
        lambda: made.test_on_batch(x, y, eager=eager),
    ):
        assert last_line(call, TypeError) == (
            "Where it failed: `model.layers[0]: Linear`, with `weight` float32[8,5] and `bias` "
            "float32[8], was called with `x` float32[4], in `Learner.pred_step` with `x` "
            "float32[21,4]."
        )


def test_a_model_called_on_the_batch_is_to_be_mapped() -> None:
    class Unmapped(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            return CROSS_ENTROPY(model(x), y_true).mean(), {}, state

    x, y = data()
    read = last_line(lambda: Unmapped(mlp(), optax.sgd(0.1)).test_on_batch(x, y), TypeError)
    assert "`model.layers[0]: Linear`" in read and "`x` float32[21,4], in `Unmapped" in read
    assert read.endswith(
        "`model` takes one example, but was given the batch: map it over the batch, "
        "`jax.vmap(model, ...)`."
    )
    read = last_line(lambda: Unmapped(mlp(5), optax.sgd(0.1)).test_on_batch(x, y), TypeError)
    assert read.endswith("`x` float32[21,4] and `y_true` int32[21].")  # mapping is not enough


@pytest.mark.slow
def test_images_whose_channels_come_last_are_told_so() -> None:
    layers = [eqx.nn.Conv2d(3, 2, 3, key=jr.key(0)), eqx.nn.Lambda(jnp.ravel)]
    made = learner(eqx.nn.Sequential(layers))
    read = last_line(lambda: made.predict(np.zeros((2, 6, 6, 3), np.float32)), ValueError)
    assert "`model.layers[0]: Conv2d`, with `weight` float32[2,3,3,3]" in read
    assert read.endswith("here they come last: move them, `jnp.moveaxis(x, -1, -3)`.")


def test_another_axis_name_is_told_ours() -> None:
    def make() -> eqx.nn.Sequential:
        norm = eqx.nn.BatchNorm(3, axis_name="devices", mode="batch")
        return eqx.nn.Sequential([linear(), norm])

    model, state = eqx.nn.make_with_state(make)()
    with jax.numpy_dtype_promotion("standard"):
        made = learner(model, model_state=state)
        read = last_line(lambda: made.train_on_batch(*data()), NameError)
    assert "`model.layers[1]: BatchNorm`" in read and "Its `axis_name` is 'devices'" in read
    assert 'build it with `axis_name="batch"`' in read


def test_a_model_with_a_state_called_on_the_batch_is_to_be_mapped() -> None:
    class Unmapped(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            y_pred, model_state = model(x, state.model_state)
            return y_pred, state.update(model_state=model_state)

    make = lambda: eqx.nn.Sequential([eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")])
    model, state = eqx.nn.make_with_state(make)()
    with jax.numpy_dtype_promotion("standard"):
        made = Unmapped(model, optax.sgd(0.1), model_state=state, loss=CROSS_ENTROPY)
        read = last_line(lambda: made.train_on_batch(*data()), Exception)
    assert read.endswith("map it over the batch, `jax.vmap(model, ...)`.")


def test_a_failure_outside_of_the_model_tells_the_shapes_of_the_step() -> None:
    def loss(y_pred: Array, y_true: Array) -> Array:
        return y_pred @ jax.nn.one_hot(y_true, 5)

    read = last_line(lambda: learner(loss=loss).test_on_batch(*data()), TypeError)
    assert read == (
        "Where it failed: `Learner.test_step` with `x` float32[21,4] and `y_true` int32[21]."
    )


def test_a_caught_error_of_another_part_is_not_blamed() -> None:
    class Tries(eqx.Module):
        first: eqx.nn.Linear
        second: eqx.nn.Linear

        def __call__(self, x: Array) -> Array:
            try:
                return self.first(x)
            except TypeError:
                return self.second(x)

    model = Tries(eqx.nn.Linear(7, 3, key=jr.key(0)), eqx.nn.Linear(5, 3, key=jr.key(0)))
    read = last_line(lambda: learner(model).predict_on_batch(data()[0]), TypeError)
    assert "`model.second: Linear`" in read


def test_nothing_is_noted_on_what_shapes_do_not_explain() -> None:
    ran: list[Any] = []

    class Values(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            ran.append(x)
            if len(ran) == 1:
                raise ValueError("of this time alone")
            return jax.vmap(model)(x), state

    made = Values(linear(), None)
    read = last_line(lambda: made.predict_on_batch(data()[0], eager=True), ValueError)
    assert read == "ValueError: of this time alone" and len(ran) == 2
    read = last_line(lambda: learner().fit(data()[0], verbose=0), TypeError)
    assert not read.startswith("Where it failed")  # a sentence of ours


def test_what_was_found_out_holds_neither_data_nor_model() -> None:
    class Batches(list[Any]):
        """A list that weak references can point at."""

    batches, made = Batches([data()]), learner(mlp(5))
    gone = weakref.ref(batches), weakref.ref(made.model.layers[0].weight)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(TypeError):  # `pytest.raises` would keep it
            made.fit(batches, verbose=0, eager=True)
        del batches, made
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
