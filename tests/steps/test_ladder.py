"""The ladder: each rung overridden alone, with every rung above still working."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, close, data, learner, linear, same
from jaxtyping import Array

import eqxtrain as et


def fit(made: et.Learner[Any], **options: Any) -> tuple[et.Learner[Any], et.History]:
    return made.fit(*data(), epochs=3, batch_size=8, verbose=0, **options)


class ByPred(et.Learner[Any]):
    def pred_step(self, model: Any, state: Any, x: Array) -> Any:
        return jax.vmap(model)(x), state


class ByTest(et.Learner[Any]):
    def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        logits = jax.vmap(model)(x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y_true).mean()
        accuracy = jnp.mean((jnp.argmax(logits, -1) == y_true).astype(jnp.float32))
        return loss, {"accuracy": accuracy}, state


class ByGrad(et.Learner[Any]):
    def grad_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        def loss_of(model: Any) -> Any:
            loss, logs, new = self.test_step(model=model, state=state, x=x, y_true=y_true)
            return loss, (logs, new)

        (loss, (logs, new)), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
        return loss, logs, new, grads


class ByTrain(et.Learner[Any]):
    def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        _, logs, state, grads = self.grad_step(model=model, state=state, x=x, y_true=y_true)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        return logs, eqx.apply_updates(model, updates), state.update(opt_state=opt_state)


class BySuper(et.Learner[Any]):
    def pred_step(self, **available: Any) -> Any:
        return super().pred_step(**available)

    def test_step(self, **available: Any) -> Any:
        return super().test_step(**available)

    def grad_step(self, **available: Any) -> Any:
        return super().grad_step(**available)

    def train_step(self, **available: Any) -> Any:
        return super().train_step(**available)

    def init_step(self, **available: Any) -> Any:
        return super().init_step(**available)

    def states_step(self, **available: Any) -> et.LearnerState:
        return super().states_step(**available)

    def summary_step(self, **available: Any) -> list[et.Row]:
        return super().summary_step(**available)

    def jit_step(self, fn: Any) -> Any:
        return super().jit_step(fn)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ByPred, ByTest, ByGrad, ByTrain, BySuper])
def test_any_rung_may_be_overridden_alone(kind: type[et.Learner[Any]]) -> None:
    fields: dict[str, Any] = {
        "loss": CROSS_ENTROPY,
        "metrics": {"accuracy": et.metrics.Accuracy()},
    }
    plain, history = fit(et.Learner(linear(), optax.sgd(0.1), **fields))
    other, others = fit(kind(linear(), optax.sgd(0.1), **fields))
    assert others["loss"] == pytest.approx(history["loss"], rel=1e-5)
    assert others["accuracy"] == pytest.approx(history["accuracy"], rel=1e-5)
    x, y = data()
    assert other.evaluate(x, y) == pytest.approx(plain.evaluate(x, y), rel=1e-5)
    assert other.predict(x) == pytest.approx(plain.predict(x), rel=1e-4)
    assert str(other.summary(x)).splitlines()[2:] == str(plain.summary(x)).splitlines()[2:]


@pytest.mark.slow
def test_init_step_builds_the_model_from_the_first_batch() -> None:
    class Lazy(et.Learner[Any]):
        width: int = 5

        def init_step(self, x: Array, key: Array) -> Any:
            model = eqx.nn.MLP(x.shape[-1], 3, self.width, 1, key=key)
            return model, self.states_step(model=model, key=key)

    x, y = data()
    made = Lazy(None, optax.adam(1e-2), loss=CROSS_ENTROPY)
    fitted, history = made.fit(x, y, epochs=2, verbose=0)
    assert fitted.model.in_size == 4 and history.epochs == 2
    assert "model.layers[0]" in str(made.summary(x))
    with pytest.raises(TypeError, match=r"`Lazy.init_step` asks for `x`"):
        made.init()


@pytest.mark.slow
def test_a_subclassed_state_is_carried_through_fit() -> None:
    class Counting(et.LearnerState):
        seen: Any = None

    class Counts(et.Learner[Any]):
        def states_step(self, model: Any, key: Array) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            return Counting.from_state(state, seen=jnp.zeros((), jnp.int32))

        def train_step(self, state: Any, x: Array, **rest: Any) -> Any:
            logs, model, state = super().train_step(state=state, x=x, **rest)
            return logs, model, state.update(seen=state.seen + len(x))

    fitted, _ = fit(Counts(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY))
    assert isinstance(fitted.state, Counting)
    assert int(fitted.state.seen) == 63 and int(fitted.state.step) == 9


@pytest.mark.slow
def test_two_optimizers_in_one_learner() -> None:
    class TwoStates(et.LearnerState):
        other: Any = None

    class Two(et.Learner[Any]):
        second: Any = None

        def states_step(self, model: Any, key: Array) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            other = self.second.init(eqx.filter(model, eqx.is_inexact_array))
            return TwoStates.from_state(state, other=other)

        def train_step(self, model: Any, state: Any, **rest: Any) -> Any:
            _, logs, state, grads = self.grad_step(model=model, state=state, **rest)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, other = self.second.update(grads, state.other, params)
            return logs, eqx.apply_updates(model, updates), state.update(other=other)

    made = Two(linear(), None, loss=CROSS_ENTROPY, second=optax.sgd(0.1, momentum=0.9))
    fitted, history = fit(made)
    assert history["loss"][-1] < history["loss"][0]
    assert isinstance(fitted.state, TwoStates) and fitted.state.opt_state is None


def test_arguments_come_by_name_in_any_order_with_defaults() -> None:
    class Odd(et.Learner[Any]):
        def test_step(
            self, y_true: Array, x: Array, state: Any, model: Any, unheard_of: int = 7
        ) -> Any:
            loss = CROSS_ENTROPY(jax.vmap(model)(x), y_true).mean()
            return loss * unheard_of, {}, state

    x, y = data()
    plain = learner().evaluate(x, y)["loss"]
    assert Odd(linear(), None).evaluate(x, y)["loss"] == pytest.approx(7 * plain, rel=1e-5)


@pytest.mark.slow
def test_the_keys_of_a_mapping_batch_may_be_asked_for_by_name() -> None:
    class Named(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, image: Array, label: Array) -> Any:
            return CROSS_ENTROPY(jax.vmap(model)(image), label).mean(), {}, state

    x, y = data()
    batch = {"image": x, "label": y}
    named, history = Named(linear(), optax.sgd(0.1)).fit(batch, verbose=0, shuffle=False)
    plain, expected = learner(optimizer=optax.sgd(0.1)).fit(x, y, verbose=0, shuffle=False)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert close(named.model, plain.model, rtol=1e-5, atol=1e-6)
    assert named.evaluate(batch)["loss"] == pytest.approx(plain.evaluate(x, y)["loss"], rel=1e-6)


@pytest.mark.slow
def test_the_keys_x_and_y_true_of_a_mapping_fill_those_names() -> None:
    x, y = data()
    batch = {"x": x, "y_true": y, "sample_weight": np.ones(21, np.float32)}
    assert learner().evaluate(batch) == pytest.approx(learner().evaluate(x, y), rel=1e-6)


def test_losses_and_metrics_may_ask_for_the_keys_of_a_mapping() -> None:
    x, y = data()
    made = et.Learner(
        linear(),
        None,
        loss=lambda y_pred, label: CROSS_ENTROPY(y_pred, label),
        metrics={"top": lambda y_pred, label: jnp.argmax(y_pred, -1).astype(label.dtype) == label},
    )
    result = made.evaluate({"x": x, "label": y})
    assert result["loss"] == learner().evaluate(x, y)["loss"]
    assert result["top"] == learner().evaluate(x, y)["accuracy"]


def test_a_key_of_the_batch_that_shadows_ours_is_refused_unless_the_batch_is_asked_for() -> None:
    x, y = data()
    batch = {"x": x, "y_true": y, "state": x}

    class Shadowed(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.mean(jax.vmap(model)(x)), {}, state

    with pytest.raises(TypeError, match=r'asks for `state`.*`batch\["state"\]`'):
        Shadowed(linear(), None).evaluate(batch)

    class Explicit(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, batch: Any) -> Any:
            return jnp.mean(jax.vmap(model)(batch["state"])), {}, state

    assert np.isfinite(Explicit(linear(), None).evaluate(batch)["loss"])


@pytest.mark.slow
def test_the_engine_sets_inference_mode_for_overridden_steps_too() -> None:
    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, training: bool) -> Any:
            off = jnp.asarray(float(model.dropout.inference))
            return (
                jnp.sum(model.out.bias),
                {"off": off, "in_training": jnp.asarray(float(training))},
                state,
            )

    x, _ = data()
    made = Reports(Dropped(jr.key(0)), optax.sgd(0.1))
    _, history = made.fit(x, verbose=0, validation_data=(x,))
    assert (history["off"], history["in_training"]) == ([0.0], [1.0])
    assert (history["val_off"], history["val_in_training"]) == ([1.0], [0.0])
    assert made.evaluate(x)["off"] == 1.0


def test_training_leaves_inference_flags_as_their_owner_set_them() -> None:
    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return (
                jnp.sum(model.out.bias),
                {"off": jnp.asarray(float(model.dropout.inference))},
                state,
            )

    frozen = eqx.nn.inference_mode(Dropped(jr.key(0)))
    _, history = Reports(frozen, optax.sgd(0.1)).fit(data()[0], verbose=0)
    assert history["off"] == [1.0]


def test_arrays_on_self_are_inputs_and_not_trained() -> None:
    class Student(et.Learner[Any]):
        teacher: Any = None

        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            target = jax.vmap(self.teacher)(x)
            return jnp.mean((jax.vmap(model)(x) - target) ** 2), {}, state

    x, _ = data()
    teacher = linear(9)
    made = Student(linear(), optax.adam(0.05), teacher=teacher)
    fitted, history = made.fit(x, epochs=5, verbose=0)
    assert history["loss"][-1] < history["loss"][0] and same(fitted.teacher, teacher)
    _, second = fitted.replace(teacher=linear(10)).fit(x, verbose=0)
    assert second.timing.compilations == []  # another teacher is another input, not a new program


def test_a_step_decorated_with_filter_jit_is_still_a_step() -> None:
    class Jitted(et.Learner[Any]):
        @eqx.filter_jit
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return jax.vmap(model)(x), state

    x, y = data()
    assert Jitted(linear(), None, loss=CROSS_ENTROPY).evaluate(x, y)["loss"] == pytest.approx(
        learner().evaluate(x, y)["loss"]
    )


@pytest.mark.slow
def test_jit_step_may_compile_in_another_way_or_not_at_all() -> None:
    class ByJax(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            return jax.jit(fn)

    class Opaque(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            compiled = jax.jit(fn)
            return lambda *args: compiled(*args)

    class Plain(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            return fn

    _, expected = fit(learner(optimizer=optax.sgd(0.1)))
    for kind in (ByJax, Opaque, Plain):
        _, history = fit(kind(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY))
        assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.slow
def test_initializing_is_provided_and_false() -> None:
    class Port(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, initializing: bool) -> Any:
            assert initializing is False
            return jnp.sum(model.bias), {}, state

    Port(linear(), None).evaluate(data()[0])


@pytest.mark.slow
def test_steps_in_a_loop_of_ones_own_match_fit() -> None:
    x, y = data()
    made = learner(optimizer=optax.sgd(0.1)).init()

    @eqx.filter_jit
    def run(made: Any, x: Array, y: Array) -> Any:
        state = made.state.begin({"loss": jnp.zeros(()), "accuracy": et.metrics.Accuracy()})

        def body(carry: Any, batch: Any) -> Any:
            model, state = carry
            logs, model, state = made.train_step(
                model=model, state=state, x=batch[0], y_true=batch[1], key=jr.key(0), training=True
            )
            return (model, state.advance(logs, weight=7)), None

        dynamic, static = eqx.partition(made.model, eqx.is_array)
        step = lambda carry, batch: (
            lambda out: ((eqx.filter(out[0][0], eqx.is_array), out[0][1]), None)
        )(body((eqx.combine(carry[0], static), carry[1]), batch))
        (dynamic, state), _ = jax.lax.scan(
            step, (dynamic, state), (x.reshape(3, 7, 4), y.reshape(3, 7))
        )
        return eqx.combine(dynamic, static), state

    model, state = run(made, jnp.asarray(x), jnp.asarray(y))
    fitted, history = made.fit(x, y, batch_size=7, shuffle=False, verbose=0)
    assert eqx.tree_equal(model, fitted.model, rtol=1e-6, atol=1e-7)
    assert float(state.metrics["loss"].compute()) == pytest.approx(history["loss"][0], rel=1e-6)
    assert int(state.step) == 3


def test_a_mask_in_a_mapping_that_default_steps_would_lose_is_refused() -> None:
    x, y = data()
    batch = {"x": x, "y_true": y, "mask": np.zeros(21, bool)}
    with pytest.raises(TypeError, match=r'asks for `mask`.*`batch\["mask"\]`'):
        learner().evaluate(batch)

    class Masked(eqx.Module):
        def __call__(self, tokens: Array, mask: Array) -> Array:
            return jnp.sum(jnp.where(mask, tokens, 0.0))

    given = {"tokens": x, "mask": x > 0}
    out = et.Learner(Masked(), None).predict(given)
    assert out == pytest.approx(np.where(x > 0, x, 0).sum(1), rel=1e-5)


@pytest.mark.parametrize("base", [object, eqx.Module])
def test_steps_may_come_from_a_mixin(base: type) -> None:
    def test_step(self: Any, model: Any, state: Any, x: Array) -> Any:
        return jnp.mean(jax.vmap(model)(x)), {"rows": jnp.asarray(float(len(x)))}, state

    mixin = type("Mixin", (base,), {"test_step": test_step})
    made: Any = type("Mixed", (mixin, et.Learner), {})(linear(), None)
    assert made.evaluate(data()[0])["rows"] == 21.0


@pytest.mark.slow
def test_jit_step_may_donate_by_itself() -> None:
    class Donates(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            return jax.jit(fn, donate_argnums=(1, 2))

    _, expected = fit(learner(optimizer=optax.sgd(0.1)))
    _, history = fit(Donates(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY))
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_the_summary_knows_the_keys_of_a_mapping_too() -> None:
    class Named(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, image: Array) -> Any:
            return jax.vmap(model)(image), state

    made = Named(linear(), None)
    x, _ = data()
    assert made.summary({"image": x}).rows[0].output == "float32[21,3]"


def test_weights_beside_a_mapping_stay_in_it() -> None:
    class Named(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, image: Array, sample_weight: Any) -> Any:
            return jnp.mean(sample_weight), {}, state

    x, _ = data()
    weights = np.full(21, 3.0, np.float32)
    assert Named(linear(), None).evaluate({"image": x}, sample_weight=weights)["loss"] == 3.0


@pytest.mark.slow
def test_losses_over_several_outputs_say_how_to_pick_one() -> None:
    class Two(et.Learner[Any]):
        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            logits = jax.vmap(model)(x)
            return {"a": logits, "b": logits}, state

    x, y = data()
    labels = {"a": y, "b": y}
    for loss in ({"a": CROSS_ENTROPY}, CROSS_ENTROPY):
        with pytest.raises(TypeError, match=r"\['a', 'b'\].*`et.Loss\(fn, on="):
            Two(linear(), None, loss=loss).evaluate(x, labels)
    picked = {"a": et.Loss(CROSS_ENTROPY, on="a"), "b": et.Loss(CROSS_ENTROPY, on="b")}
    result = Two(linear(), None, loss=picked).evaluate(x, labels)
    assert result["loss"] == pytest.approx(result["a"] + result["b"], rel=1e-6)
    with pytest.raises(TypeError, match=r"`Accuracy.update` could not take whole"):
        Two(linear(), None, loss=picked, metrics=et.metrics.Accuracy()).evaluate(x, labels)


@pytest.mark.slow
def test_eager_steps_see_jax_arrays_as_compiled_ones_do() -> None:
    class Sets(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.mean(x.at[0].set(0.0)), {"largest": x.max()}, state

    x, _ = data()
    made = Sets(linear(), None)
    assert made.evaluate(x, eager=True) == pytest.approx(made.evaluate(x), rel=1e-6)


def test_a_step_that_returns_no_state_is_named() -> None:
    class Forgets(et.Learner[Any]):
        def test_step(self, model: Any, x: Array) -> Any:
            return jnp.mean(jax.vmap(model)(x)), {}, None

    for call in (Forgets(linear(), optax.sgd(0.1)).fit, Forgets(linear(), None).evaluate):
        with pytest.raises(TypeError, match=r"`Forgets.test_step` returned None as its state"):
            call(data()[0], verbose=0)
