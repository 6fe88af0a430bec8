"""Averaged weights, against optax's own average and plain means of the weights at each step."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, arrays, data, learner, linear, same

import eqxtrain as et

STEPS = 6


class Weights(et.Callback):
    """Keeps the model after each step."""

    def __init__(self) -> None:
        self.models: list[Any] = []

    def on_train_batch_end(self, run: et.Run) -> None:
        self.models.append(run.learner.model)


def trained(ema: Any, *, watched: bool = True, optimizer: Any = None, **options: Any) -> Any:
    """A learner after six steps in two epochs, and its model after each step."""
    made = learner(linear(), optax.sgd(0.5) if optimizer is None else optimizer, ema=ema)
    weights = Weights()
    callbacks = [weights] if watched else []
    made, _ = made.fit(*data(24), batch_size=8, epochs=2, verbose=0, callbacks=callbacks, **options)
    return made, weights.models


def averages_of(learner: et.Learner[Any]) -> Any:
    assert learner.state is not None
    return learner.state.averages


def by_recursion(models: list[Any], decay: Callable[[int], float]) -> np.ndarray:
    """The corrected average of the first weight, in float64."""
    total, norm = np.zeros(models[0].weight.shape), 0.0
    for step, model in enumerate(models):
        d = decay(step)
        total = d * total + (1 - d) * np.asarray(model.weight, np.float64)
        norm = d * norm + (1 - d)
    return total / norm


def test_the_average_is_that_of_optax() -> None:
    made, models = trained(0.9)
    transform = optax.ema(0.9, debias=True)
    state, expected = transform.init(models[0]), None
    with jax.numpy_dtype_promotion("standard"):
        for model in models:
            expected, state = transform.update(model, state)
    assert len(models) == STEPS
    for ours, theirs in zip(arrays(made.averaged().model), arrays(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert not np.allclose(made.averaged().model.weight, made.model.weight, rtol=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [lambda step: 1 - 1 / (step + 1.0), lambda step: 0.5 + 0.05 * step],
    ids=["mean", "rising"],
)
def test_the_decay_may_follow_a_schedule_of_the_step(schedule: Any) -> None:
    made, models = trained(schedule)
    expected = by_recursion(models, schedule)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (2, 2), (3, 2), (0, 4), (6, 1)])
def test_swa_is_the_mean_of_the_weights_after_its_steps(start: int, every: int) -> None:
    made, models = trained(et.SWA(start=start, every=every))
    due = [n for n in range(start, STEPS + 1, every) if n > 0]
    expected = np.mean([models[n - 1].weight for n in due], axis=0)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)
    assert int(made.state.averages.count) == len(due)


def test_before_the_first_contribution_the_average_is_the_model() -> None:
    assert same(learner(ema=0.9).init().averaged().model, learner().model)
    made, _ = trained(et.SWA(start=100), watched=False)
    assert same(made.averaged().model, made.model)


def test_calls_of_one_step_and_of_several_give_the_same_average() -> None:
    alone, _ = trained(0.9)
    together, _ = trained(0.9, watched=False)
    for a, b in zip(arrays(alone.state.averages), arrays(together.state.averages), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_low_precision_weights_are_averaged_in_float32() -> None:
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), linear())
    made = learner(model, optax.sgd(0.01), ema=0.99)
    weights = Weights()
    x, y = data(24)
    # Op by op, since XLA may leave out the rounding to bfloat16 between two operations.
    made, _ = made.fit(
        jnp.asarray(x, jnp.bfloat16), y, batch_size=8, epochs=2, verbose=0, callbacks=weights,
        eager=True,
    )  # fmt: skip
    averages = averages_of(made)
    assert averages.weighted.weight.dtype == jnp.float32
    mean = np.asarray(averages.weighted.weight / averages.total)
    np.testing.assert_allclose(mean, by_recursion(weights.models, lambda _: 0.99), rtol=1e-4)
    assert made.averaged().model.weight.dtype == jnp.bfloat16


def test_with_multi_steps_only_updates_that_change_the_weights_count() -> None:
    made, models = trained(0.9, optimizer=optax.MultiSteps(optax.sgd(0.5), 2))
    assert same(models[0], linear()) and not same(models[1], linear())
    expected = by_recursion(models[1::2], lambda _: 0.9)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)
    made, models = trained(et.SWA(start=2), optimizer=optax.MultiSteps(optax.sgd(0.5), 2))
    expected = np.mean([models[3].weight, models[5].weight], axis=0)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)


def test_what_is_frozen_is_not_averaged() -> None:
    made = learner(ema=0.9, trainable=et.freeze(lambda m: m.bias))
    made, _ = made.fit(*data(16), batch_size=8, verbose=0)
    assert averages_of(made).weighted.bias is None
    assert same(made.averaged().model.bias, linear().bias)


class CallsOptax(et.Learner[Any]):
    def train_step(self, model: Any, state: Any, x: Any, y_true: Any) -> Any:
        params, rest = self.partition(model)

        def loss_of(params: Any) -> Any:
            return CROSS_ENTROPY(jax.vmap(eqx.combine(params, rest))(x), y_true).mean()

        loss, grads = eqx.filter_value_and_grad(loss_of)(params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        model = eqx.combine(eqx.apply_updates(params, updates), rest)
        return {"loss": loss}, model, state.update(opt_state=opt_state)


class AveragesItself(CallsOptax):
    def train_step(self, model: Any, state: Any, x: Any, y_true: Any) -> Any:
        logs, model, state = super().train_step(model=model, state=state, x=x, y_true=y_true)
        return logs, model, self.update_averages(model=model, state=state)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("kind", [CallsOptax, AveragesItself])
def test_a_step_that_calls_the_optimizer_itself_is_averaged_once(kind: Any, eager: bool) -> None:
    made = kind(linear(), optax.sgd(0.5), ema=0.9)
    weights = Weights()
    made, _ = made.fit(*data(24), batch_size=8, epochs=2, verbose=0, callbacks=weights, eager=eager)
    expected = by_recursion(weights.models, lambda _: 0.9)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)
    assert int(made.state.averages.count) == STEPS


class OwnStates(et.Learner[Any]):
    def states_step(self, model: Any, key: Any) -> Any:
        return et.LearnerState(opt_state=self.optimizer.init(model), key=key)


def test_the_structure_is_the_same_from_init_on_and_a_file_brings_the_average_back(
    tmp_path: Path,
) -> None:
    for kind in (et.Learner, OwnStates):
        begun = kind(linear(), optax.adam(0.1), loss=CROSS_ENTROPY, ema=0.9).init()
        made, _ = begun.fit(*data(16), verbose=0)
        assert jax.tree.structure(begun) == jax.tree.structure(made)
        assert jax.tree.structure(made) == jax.tree.structure(made.averaged())
        eqx.tree_serialise_leaves(tmp_path / "file", made)
        loaded = eqx.tree_deserialise_leaves(tmp_path / "file", begun)
        assert same(loaded.averaged().model, made.averaged().model)


@pytest.mark.parametrize("saved", [None, 0.9])
def test_the_file_of_a_learner_without_an_average_is_refused(tmp_path: Path, saved: Any) -> None:
    eqx.tree_serialise_leaves(tmp_path / "file", learner(ema=saved).init())
    like = learner(ema=None if saved else 0.9).init()
    with pytest.raises(Exception) as raised:
        eqx.tree_deserialise_leaves(tmp_path / "file", like)
    said = "".join(traceback.format_exception(raised.value))
    assert "saved with another optimizer, `trainable` or `ema`" in said


def test_replace_makes_and_drops_the_average() -> None:
    made, _ = trained(0.9, watched=False)
    assert same(made.replace(metrics=None).state.averages, made.state.averages)
    assert same(made.replace(ema=0.9).state.averages, made.state.averages)
    for anew in (made.replace(ema=et.SWA(start=99)), made.replace(model=linear(1))):
        assert int(anew.state.averages.count) == 0
        assert same(anew.averaged().model, anew.model)
    frozen = made.replace(trainable=et.freeze(lambda m: m.bias))
    assert int(frozen.state.averages.count) == 0
    without = made.replace(ema=None)
    assert without.state.averages is None and same(without.state.opt_state, made.state.opt_state)
    again = without.replace(ema=0.5)
    assert same(again.averaged().model, made.model)
    _, history = again.fit(*data(16), epochs=2, verbose=0)
    assert history.epochs == 2
    bare = made.replace(state=made.state.update(averages=None))
    with pytest.raises(ValueError, match=r"belongs to another .*state\.averages"):
        bare.fit(*data(16), verbose=0)


def test_validation_measures_raw_weights_averaged_ones_or_both() -> None:
    x, y = data(24)
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0, "epochs": 2}
    made = learner(linear(), optax.sgd(0.5), ema=0.9)
    found: dict[str, Any] = {}
    for weights in ("raw", "averaged", "both"):
        after, history = made.fit(
            x, y, validation_data=(x, y), validation_weights=weights, **options
        )
        found[weights] = history
        assert same(after.model, made.fit(x, y, **options).learner.model)
    raw, averaged = after.evaluate(x, y), after.averaged().evaluate(x, y)
    assert found["raw"]["val_loss"][-1] == pytest.approx(raw["loss"])
    assert found["averaged"]["val_loss"][-1] == pytest.approx(averaged["loss"])
    both = found["both"]
    assert both["val_loss"] == found["raw"]["val_loss"]
    assert both["val_averaged_loss"] == found["averaged"]["val_loss"]
    assert both["val_averaged_accuracy"] == found["averaged"]["val_accuracy"]
    assert raw["loss"] != pytest.approx(averaged["loss"], rel=1e-3)
    assert both.best("val_averaged_accuracy").value == max(both["val_averaged_accuracy"])


def test_a_callback_can_follow_the_averaged_weights() -> None:
    x, y = data(24)
    stops = et.callbacks.EarlyStopping("val_averaged_loss", patience=0, min_delta=100.0)
    _, history = learner(ema=0.9).fit(
        x, y, validation_data=(x, y), validation_weights="both", verbose=0, epochs=5,
        callbacks=stops,
    )  # fmt: skip
    assert history.epochs == 2


def test_the_best_epoch_is_restored_with_its_average() -> None:
    x, y = data(24)
    options: dict[str, Any] = {"validation_data": (x, y), "validation_weights": "averaged"}
    stops = et.callbacks.EarlyStopping(mode="max", patience=1, restore_best_weights=True)
    made, history = learner(optimizer=optax.sgd(0.5), ema=0.9).fit(
        x, y, verbose=0, epochs=5, callbacks=stops, **options
    )
    assert stops.best_epoch == 0 and history.epochs == 2
    assert made.averaged().evaluate(x, y)["loss"] == pytest.approx(history["val_loss"][0])


@pytest.mark.parametrize(
    ("ema", "said"),
    [
        (1.0, "below 1"),
        (-0.1, "must be a number, 0 or more"),
        ("0.9", "a decay such as 0.999"),
        (True, "must be a number"),
        (et.SWA, "is the class `SWA`"),
        (float("nan"), "must be a number"),
    ],
)
def test_what_is_no_average_is_refused(ema: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        learner(ema=ema)


def test_what_needs_an_average_says_how_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"give it one, `Learner\(..., ema=0.999\)`"):
        learner().init().averaged()
    with pytest.raises(ValueError, match="`init` or `fit` it first"):
        learner(ema=0.9).averaged()
    x, y = data(8)
    with pytest.raises(ValueError, match=r"learner.replace\(ema=0.999\)"):
        learner().fit(x, y, validation_data=(x, y), validation_weights="averaged")
    wrong: Any = "ema"
    with pytest.raises((ValueError, TypeError), match="'ema'"):
        learner(ema=0.9).fit(x, y, validation_data=(x, y), validation_weights=wrong)
    with pytest.raises(ValueError, match=r"SWA\(every\)"):
        et.SWA(every=0)


def test_a_second_run_with_the_same_average_compiles_nothing() -> None:
    x, y = data(16)
    schedule = optax.constant_schedule(0.9)
    learner(ema=schedule).fit(x, y, validation_data=(x, y), validation_weights="both", verbose=0)
    with et.max_compiles(0):
        again = learner(ema=optax.constant_schedule(0.9))
        again.fit(x, y, validation_data=(x, y), validation_weights="both", verbose=0)


class Copies(CallsOptax):
    def train_step(self, model: Any, state: Any, x: Any, y_true: Any) -> Any:
        state = jax.tree.map(lambda leaf: leaf, state)
        return super().train_step(model=model, state=state, x=x, y_true=y_true)


def test_a_step_that_copies_the_state_is_averaged_as_well() -> None:
    made = Copies(linear(), optax.sgd(0.5), ema=0.9)
    made, _ = made.fit(*data(24), batch_size=8, epochs=2, verbose=0)
    assert int(averages_of(made).count) == STEPS


@pytest.mark.parametrize("skips", [False, True])
def test_multi_steps_are_found_anywhere_and_skipped_steps_are_no_updates(skips: bool) -> None:
    def skip(updates: Any, gradient_step: Any, params: Any) -> Any:
        return gradient_step >= 2, ()

    inner = optax.MultiSteps(optax.sgd(0.5), 2, should_skip_update_fn=skip if skips else None)
    chained = optax.chain(optax.clip(100.0), inner.gradient_transformation())
    made, models = trained(0.9, optimizer=chained)
    updates = 2 if skips else 3
    assert int(averages_of(made).count) == updates
    expected = by_recursion(models[1::2][:updates], lambda _: 0.9)
    np.testing.assert_allclose(made.averaged().model.weight, expected, rtol=1e-5)


class Complex(eqx.Module):
    weight: Any

    def __call__(self, x: Any) -> Any:
        return jnp.abs(self.weight).sum() * x.sum()


def test_complex_weights_and_leaves_that_cant_be_hashed_are_averaged() -> None:
    weight = jnp.asarray([1 + 1j, 2 - 1j], jnp.complex64)
    made = et.Learner(
        {"net": Complex(weight), "names": {"a", "b"}}, optax.sgd(0.01), ema=0.5,
        loss=lambda y_pred: y_pred,
    )  # fmt: skip

    class Calls(et.Learner[Any]):
        def pred_step(self, model: Any, x: Any, state: Any) -> Any:
            return jax.vmap(model["net"])(x), state

    made = Calls(made.model, made.optimizer, loss=made.loss, ema=0.5)
    made, _ = made.fit(data(8)[0], epochs=2, verbose=0)
    averaged = made.averaged().model["net"].weight
    assert averaged.dtype == jnp.complex64 and np.isfinite(np.asarray(averaged)).all()


def test_weights_before_the_start_count_for_nothing_even_if_they_are_infinite() -> None:
    from eqxtrain._steps import averages

    model, swa = linear(), et.SWA(start=2)
    infinite = jax.tree.map(lambda leaf: leaf + jnp.inf, model)
    state = averages.init(swa, None, model)
    assert state is not None
    for step, weights in enumerate([infinite, model]):
        state = averages.update(
            swa, state, None, model=weights, opt_state=(), step=jnp.asarray(step, jnp.int32)
        )
    np.testing.assert_allclose(state.weighted.weight, model.weight, rtol=1e-6)


def test_a_set_whose_name_the_averaged_weights_take_is_refused() -> None:
    x, y = data(8)
    sets = {"a": (x, y), "a_averaged": (x, y)}
    with pytest.raises(ValueError, match="rename that"):
        learner(ema=0.9).fit(x, y, validation_data=sets, validation_weights="both", verbose=0)
