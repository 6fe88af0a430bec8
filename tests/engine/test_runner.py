"""The engine: how often people's code is traced, what is donated, and when it waits."""

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
    data,
    learner,
    linear,
    normed,
    same,
)
from jaxtyping import Array

import eqxtrain as et
from eqxtrain._engine.runner import StepRunner
from eqxtrain._engine.step import STEPS, TRAIN, Step
from eqxtrain._keys import Stream


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "test", "predict"])
def test_what_a_pass_is_given_is_never_deleted(kind: Any) -> None:
    x, y = data(16)
    made = normed().init()
    running = StepRunner(made, STEPS[kind])
    batch = (x,) if kind == "predict" else (x, y)
    for _ in range(3):
        running(batch)
    measured = running.accumulators
    measured.compute_outputs() if kind == "predict" else measured.compute_logs()
    leaves = [leaf for leaf in jax.tree.leaves(made) if isinstance(leaf, jax.Array)]
    assert leaves and not any(leaf.is_deleted() for leaf in leaves)


def test_the_state_of_training_is_donated_from_step_to_step() -> None:
    x, y = data(16)
    running = StepRunner(learner().init(), TRAIN)
    running((x, y))
    before = jax.tree.leaves(eqx.filter(running.learner.model, eqx.is_array))
    running((x, y))
    assert all(leaf.is_deleted() for leaf in before)


def test_donate_gives_the_learners_own_arrays_away() -> None:
    x, y = data(24)
    made = learner().init()
    kept, history = made.fit(x, y, batch_size=8, epochs=2, verbose=0)
    given = learner().init()
    fitted, other = given.fit(x, y, batch_size=8, epochs=2, verbose=0, donate=True)
    assert same(kept, fitted) and dict(history) == dict(other)
    assert not made.model.weight.is_deleted()
    assert given.model.weight.is_deleted() and given.model.bias.is_deleted()
    with pytest.raises(ValueError, match=r"`model\.weight` of this learner was donated"):
        given.predict(x)


@pytest.mark.slow
def test_donated_buffers_are_taken_over_and_not_copied() -> None:
    model = eqx.nn.MLP(4, 3, 128, 2, key=jr.key(0))
    made = learner(model).init()
    x, y = data(24)
    running = StepRunner(made, TRAIN, donate=True)
    where = lambda tree: {
        leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if leaf.nbytes > 4096
    }
    arrays = eqx.filter(made.model, eqx.is_array)
    before = where(arrays)
    for _ in range(3):
        running((x[:8], y[:8]))
        running.wait()
        assert where(eqx.filter(running.learner.model, eqx.is_array)) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(arrays) if leaf.nbytes > 4096)


@pytest.mark.slow
def test_hyperparameters_that_an_optimizer_holds_survive_donation() -> None:
    rate = jnp.asarray(0.1)
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    x, y = data(24)
    learner(optimizer=adam).fit(x, y, verbose=0, donate=True)
    assert float(rate) == pytest.approx(0.1)
    learner(optimizer=adam).fit(x, y, verbose=0, donate=True)


@pytest.mark.slow
def test_one_array_in_two_places_may_be_donated() -> None:
    class Averaged(et.LearnerState):
        average: Any = None

    class Averages(et.Learner[Any]):
        def states_step(self, model: Any, key: Array) -> et.LearnerState:
            state = super().states_step(model=model, key=key)
            return Averaged.from_state(state, average=model)

    made = Averages(eqx.nn.MLP(4, 3, 64, 1, key=jr.key(0)), optax.sgd(0.1), loss=CROSS_ENTROPY)
    fitted, _ = made.fit(*data(24), batch_size=8, verbose=0, donate=True)
    average = vars(fitted.state)["average"]
    assert same(average, eqx.nn.MLP(4, 3, 64, 1, key=jr.key(0)))


def test_a_run_that_donates_and_that_the_device_fails_says_that_nothing_is_left() -> None:
    class Explodes(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, **rest: Any) -> Any:
            logs, model, state = super().train_step(model=model, state=state, **rest)
            bias = eqx.error_if(model.bias, state.step == 1, "exploded")
            return logs, eqx.tree_at(lambda m: m.bias, model, bias), state

    x, y = data()
    with pytest.raises(Exception, match="exploded") as raised:
        Explodes(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).fit(
            x, y, batch_size=7, verbose=0, donate=True
        )
    assert not hasattr(raised.value, "learner")
    assert any("donate=True" in note for note in raised.value.__notes__)


def test_a_stack_is_run_in_as_few_calls_as_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    run = StepRunner.run
    monkeypatch.setattr(
        StepRunner,
        "run",
        lambda self, start, stop: calls.append((start, stop)) or run(self, start, stop),
    )
    x, y = data(96)
    learner().fit(x, y, batch_size=8, verbose=0, steps_per_call=5)
    assert calls == [(0, 5), (5, 10), (10, 12)]
    calls.clear()
    learner().fit(x, y, batch_size=8, verbose=0, steps_per_call=1)
    assert calls == [(i, i + 1) for i in range(12)]


@pytest.mark.slow
def test_training_at_a_step_does_not_depend_on_who_watches() -> None:
    class Watches(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.learner is not None and run.logs

    x, y = data(21)
    quiet, _ = learner(Dropped(jr.key(0))).fit(x, y, batch_size=8, verbose=0)
    watched, _ = learner(Dropped(jr.key(0))).fit(
        x, y, batch_size=8, verbose=0, callbacks=Watches(), validation_data=(x, y)
    )
    assert same(quiet, watched)


@pytest.mark.slow
def test_the_state_of_a_batch_norm_is_threaded_through_eager_passes_too() -> None:
    model, state = eqx.nn.make_with_state(Normed)(jr.key(0))
    made = learner(model, optax.sgd(0.1), model_state=state)
    eager, _ = made.fit(*data(), batch_size=7, verbose=0, eager=True)
    compiled, _ = made.fit(*data(), batch_size=7, verbose=0)
    a, b = eqx.filter(eager, eqx.is_array), eqx.filter(compiled, eqx.is_array)
    assert eqx.tree_equal(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_of_ones_own_runs_on_the_runner() -> None:
    """An evaluation that no learner has: threaded, merged and keyed like any other."""

    def margins(made: Any, names: dict[str, Any]) -> tuple[dict[str, Any], None, Any]:
        y_pred, state = made.pred_step(**names)
        top = jnp.sort(y_pred, axis=-1)[:, -1]
        return {"margin": jnp.mean(top), "rows": et.metrics.Gather.of(top)}, None, state

    x, y = data(20)
    made = learner().init()
    runner = StepRunner(made, Step("margins", margins, Stream.TEST, "test"))
    for start in (0, 8, 16):
        runner((x[start : start + 8], y[start : start + 8]))
    logs = runner.accumulators.compute_logs()
    top = np.sort(made.predict(x), axis=-1)[:, -1]
    np.testing.assert_allclose(logs["rows"], top, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logs["margin"], top.mean(), rtol=1e-5)
    assert {compiled.step for compiled in runner.compilations} == {"margins"}
