"""The contract of steps: the sentences for each way to break it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear, normed
from jaxtyping import Array

import eqxtrain as et


def returning(step: str, *values: Any) -> et.Learner[Any]:
    """A learner with one step that returns `values`, or a single one of them."""

    def body(self: Any, model: Any, state: Any = None) -> Any:
        known = {"model": model, "state": state}
        out: Any = tuple(known.get(v, v) if isinstance(v, str) else v for v in values)
        return out if len(out) > 1 else out[0]

    kind = type("Broken", (et.Learner,), {step: body})
    return kind(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)


ONE = jnp.ones(())


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        ("pred_step", (ONE,), r"`Broken.pred_step` returned a `\w+`: .*`return y_pred, state`"),
        ("test_step", (ONE, "state"), r"a tuple of 2 .*`return loss, logs, state`"),
        ("grad_step", (ONE, {}, "state"), r"returns 4 values, `return loss, logs, state, grads`"),
        ("train_step", ({}, "model"), r"`return logs, model, state`"),
        ("init_step", ("model",), r"`return model, state`"),
        ("init_step", ("model", {}), r"make it with `self.states_step\("),
        ("states_step", (3,), r"a `states_step` returns a `LearnerState`"),
        ("test_step", (1.0, {}, "state"), r"a loss that is a `float`: return a scalar array"),
        ("test_step", (jnp.ones(3), {}, "state"), r"loss of shape \(3,\).*`loss.mean\(\)`"),
        ("test_step", (jnp.ones((), int), {}, "state"), r"dtype int32, which has no gradient"),
        ("test_step", (ONE, [ONE], "state"), r"logs that are a `list`"),
        ("test_step", (ONE, {"a": 1.0}, "state"), r"logs `a` as a `float`.*`jnp.asarray"),
        ("test_step", (ONE, {"a": np.float32(1)}, "state"), r"logs `a` as a `float32`"),
        ("test_step", (ONE, {"a": jnp.ones(2)}, "state"), r"et.metrics.Mean.of\(a\)"),
        ("test_step", (ONE, {3: ONE}, "state"), r"under the key 3, which is not a string"),
        ("test_step", (ONE, {}, {}), r"a state that is a `dict`, not a `LearnerState`"),
        ("train_step", (3, "model", "state"), r"logs that are a `int`"),
        ("train_step", ({}, "model", None), r"returned None as its state"),
    ],
)
def test_what_a_step_returns_is_held_to_its_contract(
    step: str, values: tuple[Any, ...], message: str
) -> None:
    x, y = data()
    made = returning(step, *values)
    run: Any = made.predict if step == "pred_step" else made.evaluate
    run = made.fit if step in ("grad_step", "train_step") else run
    with pytest.raises((TypeError, ValueError), match=message):
        run(x) if step == "pred_step" else run(x, y, verbose=0)


def test_a_model_state_returned_as_the_state_gets_a_hint() -> None:
    class Wrong(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return x, state.model_state

    made = normed()
    wrong = Wrong(made.model, None, model_state=made.model_state)
    with pytest.raises(TypeError, match=r"return `state.update\(model_state=\.\.\.\)`"):
        wrong.predict(data()[0])


def test_positional_arguments_are_refused() -> None:
    made: Any = learner().init()
    with pytest.raises(TypeError, match=r"called by name.*2 positional arguments"):
        made.pred_step(made.model, made.state)


def test_a_name_that_nobody_provides_lists_what_there_is() -> None:
    class Asks(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, label: Array) -> Any:
            return ONE, {}, state

    with pytest.raises(TypeError, match=r"`Asks.test_step` asks for `label`.*Available: batch, "):
        Asks(linear(), None).evaluate(*data())


def test_labels_are_not_available_to_predictions_nor_where_there_are_none() -> None:
    class Cheats(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            return x, state

    class Needs(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            return ONE, {}, state

    class Optional(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array | None = None) -> Any:
            return jnp.asarray(float(y_true is None)), {}, state

    with pytest.raises(TypeError, match=r"`Cheats.pred_step` asks for `y_true`"):
        Cheats(linear(), None, loss=CROSS_ENTROPY).evaluate(*data())
    with pytest.raises(TypeError, match="There are no labels: pass `y`"):
        Needs(linear(), None).evaluate(data()[0])
    assert Optional(linear(), None).evaluate(data()[0])["loss"] == 1.0
    with pytest.raises(TypeError, match="there are no labels: pass `y`"):
        et.Learner(linear(), None, loss=CROSS_ENTROPY).evaluate(data()[0])


@pytest.mark.slow
def test_weights_and_mask_are_none_where_there_are_none() -> None:
    class Sees(et.Learner[Any]):
        def test_step(
            self, state: Any, sample_weight: Any, class_weight: Any, mask: Any, x: Any
        ) -> Any:
            assert (sample_weight, class_weight, mask) == (None, None, None)
            return ONE, {}, state

    made: Any = Sees(linear(), None).init()
    made.evaluate(data()[0])
    made.test_step(state=made.state, x=jnp.asarray(data()[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "state", "model_state"])
def test_what_is_threaded_is_not_on_self_whoever_calls_the_step(name: str) -> None:
    class Reads(et.Learner[Any]):
        def test_step(self, x: Array, state: Any) -> Any:
            assert not hasattr(self, name) and "optimizer" in repr(self)
            getattr(self, name)
            return ONE, {}, state

        temperature: float = 1.0

    made = Reads(linear(), optax.sgd(0.1)).init()
    x, _ = data()
    message = rf"`self.{name}` does not exist inside a step(.|\n)*Ask for it by name"
    for call in (
        lambda: made.evaluate(x),
        lambda: made.fit(x, verbose=0),
        lambda: made.fit(x, verbose=0, eager=True),
        lambda: made.test_step(x=jnp.asarray(x), state=made.state),
    ):
        with pytest.raises(AttributeError, match=message):
            call()


def test_a_step_still_sees_hyperparameters_losses_and_its_own_methods() -> None:
    class Uses(et.Learner[Any]):
        scale: float = 2.0

        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            y_pred, state = self.pred_step(model=model, state=state, x=x, training=False)
            loss, logs = self.measure(y_pred=y_pred, y_true=y_true)
            return self.doubled(loss), logs, state

        def doubled(self, loss: Array) -> Array:
            return loss * self.scale

    x, y = data()
    made = Uses(linear(), None, loss=CROSS_ENTROPY)
    assert made.evaluate(x, y)["loss"] == pytest.approx(2 * learner().evaluate(x, y)["loss"])


def test_a_static_method_is_no_step() -> None:
    with pytest.raises(TypeError, match="must be a plain method"):
        type("Static", (et.Learner,), {"pred_step": staticmethod(lambda x: x)})


@pytest.mark.usefixtures("unchecked")
def test_a_jit_step_that_returns_nothing_gets_a_sentence() -> None:
    class Forgets(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            super().jit_step(fn)

    with pytest.raises(TypeError, match=r"`Forgets.jit_step` returned a `NoneType`.*filter_jit"):
        Forgets(linear(), None).predict(data()[0])


def test_positional_only_parameters_get_a_sentence() -> None:
    class Slash(et.Learner[Any]):
        def pred_step(self, model: Any, x: Array, /, state: Any) -> Any:
            return x, state

    with pytest.raises(TypeError, match="drop the `/`"):
        Slash(linear(), None).predict(data()[0])


def test_a_loss_in_the_logs_of_a_step_wins_over_the_returned_one() -> None:
    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"loss": jnp.asarray(7.0)}, state

    _, history = Reports(linear(), optax.sgd(0.1)).fit(
        data()[0], verbose=0, validation_data=(data()[0],)
    )
    assert history["loss"] == history["val_loss"] == [7.0]


@pytest.mark.slow
def test_gradients_flow_through_every_step_under_jax_transformations() -> None:
    made = learner().init()
    x, y = map(jnp.asarray, data())

    def loss(bias: Array) -> Array:
        model = eqx.tree_at(lambda m: m.bias, made.model, bias)
        return made.test_step(model=model, state=made.state, x=x, y_true=y, key=jr.key(0))[0]

    assert np.any(np.asarray(jax.grad(loss)(made.model.bias)))
