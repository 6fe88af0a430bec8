"""The engine: how often people's code is traced, what is donated, and when it waits."""

import time
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
    forget_programs,
    learner,
    linear,
    normed,
    same,
)
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _placement
from eqxtrain._engine.runner import StepRunner
from eqxtrain._engine.step import STEPS, TEST, TRAIN, Step
from eqxtrain._keys import Stream
from eqxtrain.metrics import _logs


def counting(**fields: Any) -> tuple[et.Learner[Any], list[tuple[bool, int]]]:
    """A learner that notes each trace of its `test_step`: training or not, and the batch's rows."""
    traces: list[tuple[bool, int]] = []

    class Counts(et.Learner[Any]):
        def test_step(self, x: Array, training: bool, **rest: Any) -> Any:
            traces.append((training, len(x)))
            return super().test_step(x=x, training=training, **rest)

    fields = {"loss": CROSS_ENTROPY, "metrics": et.metrics.Accuracy()} | fields
    return Counts(Dropped(jr.key(0)), optax.adam(1e-2), **fields), traces


@pytest.mark.slow
def test_equal_batches_trace_once_however_many_epochs() -> None:
    made, traces = counting()
    made.fit(*data(24), epochs=5, batch_size=8, verbose=0)
    assert traces == [(True, 8)]


@pytest.mark.slow
def test_a_short_last_batch_and_validation_trace_once_more_each() -> None:
    made, traces = counting()
    x, y = data(21)
    made.fit(x, y, epochs=5, batch_size=8, validation_data=(x[:8], y[:8]), verbose=0)
    assert traces == [(False, 8), (True, 8), (True, 5)]


@pytest.mark.slow
def test_a_second_fit_and_evaluate_compile_nothing() -> None:
    forget_programs()
    made, traces = counting()
    x, y = data(24)
    fitted, first = made.fit(x, y, batch_size=8, verbose=0)
    fitted.evaluate(x, y, batch_size=8)
    fitted.predict(x, batch_size=8)
    before = len(traces)
    again, second = fitted.fit(x, y, batch_size=8, verbose=0)
    again.evaluate(x, y, batch_size=8)
    assert len(traces) == before
    assert len(first.timing.compilations) == 1 and second.timing.compilations == []


def test_a_fresh_learner_of_the_same_parts_compiles_nothing() -> None:
    optimizer = optax.adam(1e-2)
    x, y = data(24)
    et.Learner(linear(0), optimizer, loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    _, history = et.Learner(linear(1), optimizer, loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    assert history.timing.compilations == []


@pytest.mark.slow
def test_a_file_loaded_again_compiles_nothing(tmp_path: Any) -> None:
    made, traces = counting()
    x, y = data(24)
    fitted, _ = made.fit(x, y, verbose=0)
    eqx.tree_serialise_leaves(tmp_path / "l.eqx", fitted)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "l.eqx", made.init())
    before = len(traces)
    loaded.fit(x, y, verbose=0)
    assert len(traces) == before


def test_a_second_compile_says_what_changed() -> None:
    forget_programs()
    made, _ = counting()
    _, history = made.fit(*data(21), batch_size=8, verbose=0)
    first, second = history.timing.compilations
    assert (first.step, first.reason) == ("train_step", "first")
    assert "`batch[0]`: float32[8,4] → float32[5,4]" in second.reason


def test_hyperparameters_are_programs_by_type_as_well_as_value() -> None:
    class Scaled(et.Learner[Any]):
        scale: Any = 1

        def pred_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.asarray(self.scale) * jnp.ones(len(x), jnp.asarray(self.scale).dtype), state

    x, _ = data()
    dtypes = [Scaled(linear(), None, scale=s).predict(x).dtype for s in (1, 1.0, True)]
    assert dtypes == [np.int32, np.float32, np.bool_]


def test_accumulators_keep_dtype_and_structure_from_the_first_step() -> None:
    x, y = data(24)
    running = StepRunner(learner().init(), TRAIN)
    describe = lambda a: (a.shape, a.dtype, a.weak_type) if eqx.is_array(a) else a
    seen: list[Any] = []
    for start in (0, 8, 16):
        running((x[start : start + 8], y[start : start + 8]))
        metrics = running.accumulators.with_emitted()
        seen.append(jax.tree.map(describe, (running.learner.state, metrics)))
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0][1]) == {"loss", "accuracy"}


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


@pytest.mark.slow
def test_a_step_returns_while_the_device_still_works() -> None:
    class Slow(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, x: Array) -> Any:
            body = lambda _, m: jnp.tanh(m @ x)
            out = jax.lax.fori_loop(0, 300, body, model)
            return {"loss": jnp.mean(out)}, out, state

    x = np.eye(256, dtype=np.float32)
    running = StepRunner(Slow(jnp.ones((256, 256)), None).init(), TRAIN)
    running((x,))
    running.accumulators.compute_logs()
    shares: list[float] = []
    for _ in range(5):  # the machine may be busy with something else, but not each time
        began = time.perf_counter()
        running((x,))
        returned = time.perf_counter() - began
        running.accumulators.compute_logs()
        shares.append(returned / (time.perf_counter() - began))
    assert min(shares) < 0.5


def test_at_most_two_calls_are_in_flight() -> None:
    x, y = data(16)
    running = StepRunner(learner().init(), TRAIN)
    for _ in range(10):
        running((x, y))
        assert len(running._calls) <= 2


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


def test_one_program_serves_every_number_of_steps_up_to_its_most() -> None:
    made, traces = counting()
    x, y = data(96)

    class Looks(et.Callback):
        every = et.Every(steps=5)

        def on_train_batch_end(self, run: et.Run) -> None:
            assert int(run.state.step) == run.step

    with et.max_compiles(1):
        made.fit(x, y, batch_size=8, verbose=0)
        made.fit(x, y, batch_size=8, verbose=0, callbacks=Looks(), epochs=2)
        made.fit(x[:16], y[:16], batch_size=8, verbose=0)
        made.fit([(x[:8], y[:8])] * 3, verbose=0)
        for steps in (2, 3, 11):
            made.fit(x, y, batch_size=8, verbose=0, steps_per_call=steps)
    assert traces == [(True, 8)]


def test_what_cannot_be_lowered_runs_one_step_a_call() -> None:
    class Plain(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            return lambda *leaves: fn(*leaves)

    x, y = data(24)
    running = StepRunner(Plain(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).init(), TRAIN)
    running((x[:8], y[:8]))
    assert running.steps_per_call == 1 and np.isfinite(running.accumulators.compute_logs()["loss"])


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


@pytest.mark.slow
def test_a_learner_built_again_with_a_new_optimizer_compiles_nothing() -> None:
    def build(rate: float) -> et.Learner[Any]:
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        frozen = et.freeze(lambda m: m.bias)
        return et.Learner(
            linear(), optimizer, loss=lambda p, y: CROSS_ENTROPY(p, y), trainable=frozen
        )

    x, y = data(24)
    build(1e-2).fit(x, y, verbose=0)
    _, history = build(1e-2).fit(x, y, verbose=0)
    assert history.timing.compilations == []
    _, history = build(1e-3).fit(x, y, verbose=0)
    assert [c.step for c in history.timing.compilations] == ["train_step"]


@pytest.mark.slow
def test_a_metric_configured_by_an_array_keeps_it_from_the_first_batch() -> None:
    class Above(et.metrics.Metric):
        thresholds: Array
        counts: Any = None

        def update(self, y_pred: Array) -> Any:
            new = jnp.sum(y_pred[:, :1] > self.thresholds[None], axis=0).astype(jnp.float32)
            return Above(self.thresholds, new)

        def merge(self, other: Any) -> Any:
            return Above(self.thresholds, self.counts + other.counts)

        def reset(self) -> Any:
            return Above(self.thresholds, jnp.zeros(len(self.thresholds)))

        def compute(self) -> Any:
            return {"at": self.thresholds, "count": self.counts}

    x, y = data(21)
    thresholds = jnp.asarray([-1.0, 0.0, 1.0])
    made = learner(metrics={"above": Above(thresholds)})
    result = made.evaluate(x, y, batch_size=8)
    assert result["above/at"].tolist() == [-1.0, 0.0, 1.0]
    expected = (made.predict(x)[:, :1] > np.asarray(thresholds)).sum(0)
    assert result["above/count"].tolist() == expected.tolist()


@pytest.mark.slow
def test_a_changed_weight_of_classes_or_setting_is_named_as_the_reason() -> None:
    made = learner()
    x, y = data(24)
    made.fit(x, y, batch_size=24, verbose=0)
    _, weighted = made.fit(x, y, batch_size=24, class_weight={0: 2.0}, verbose=0)
    assert "class_weight" in weighted.timing.compilations[0].reason
    with jax.default_matmul_precision("float32"):
        _, precise = made.fit(x, y, batch_size=24, verbose=0)
    assert "jax_default_matmul_precision" in precise.timing.compilations[0].reason


def test_a_log_whose_shape_follows_the_batch_is_refused_by_name() -> None:
    class Follows(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"rows": et.metrics.Last.of(x[:, 0])}, state

    with pytest.raises(ValueError, match=r"logs\['rows'\].value`: float32\[8\] → float32\[5\]"):
        Follows(linear(), None).evaluate(data(21)[0], batch_size=8)


def test_metrics_are_computed_when_somebody_looks_and_not_in_steps() -> None:
    computed: list[int] = []

    class Told(et.metrics.Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

        def update(self, y_pred: Array) -> Any:
            return self.replace(mean=self.mean.update(y_pred))

        def compute(self) -> Array:
            computed.append(1)
            return self.mean.compute()

    x, y = data(16)
    running = StepRunner(learner(metrics=Told()).init(), TRAIN)
    for _ in range(3):
        running((x, y))
    running.wait()
    assert not computed
    assert np.isfinite(running.accumulators.compute_logs()["told"]) and len(computed) == 1


def test_what_is_gathered_is_fetched_once_a_batch_and_joined_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = data(24)
    testing = StepRunner(learner(metrics=et.metrics.Gather()).init(), TEST)
    calls: dict[str, list[int]] = {"concatenate": [], "fetch": []}
    join, fetch = np.concatenate, _placement.fetch
    for batch in range(12):
        rows = slice(2 * batch, 2 * batch + 2)
        testing((x[rows], y[rows]))
    counting_join = lambda parts: calls["concatenate"].append(len(parts)) or join(parts)
    counting_fetch = lambda tree: calls["fetch"].append(1) or fetch(tree)
    monkeypatch.setattr(np, "concatenate", counting_join)
    monkeypatch.setattr(_placement, "fetch", counting_fetch)
    gathered = testing.accumulators.compute_logs()["gather"]
    assert calls["concatenate"] == [12]  # all parts at once: linear in their number
    assert len(calls["fetch"]) == 3  # the two calls in flight, and the result
    np.testing.assert_allclose(gathered, jax.vmap(linear())(jnp.asarray(x)), atol=1e-6)


@pytest.mark.slow
def test_probabilities_that_are_logits_are_nan_and_say_so() -> None:
    x, y = data()
    metrics = {"area": et.metrics.AUROC(), "loss": et.metrics.Weighted(et.metrics.LogLoss())}
    metrics |= {"exact": et.metrics.AUROC(bins=None)}
    with (
        pytest.warns(UserWarning, match=r"`area` is nan: `AUROC` .*`from_logits=True`"),
        pytest.warns(UserWarning, match=r"`loss_1` is nan: `LogLoss` .*`from_logits=True`"),
        pytest.warns(UserWarning, match=r"`exact` is nan: `AUROC` .*`from_logits=True`"),
    ):
        result = learner(metrics=metrics).evaluate(50 * x, y)
    assert np.isnan(result["area"]) and np.isnan(result["loss_1"])


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


def test_logs_of_two_shapes_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    check = _logs.check_same_structure
    monkeypatch.setattr(
        _logs, "check_same_structure", lambda *given: compared.append(given) or check(*given)
    )
    (x, y), made = data(20), learner()
    made.fit(x, y, epochs=4, batch_size=8, verbose=0)  # tracing compares, too
    compared.clear()
    made.fit(x, y, epochs=4, batch_size=8, verbose=0)
    assert len(compared) == 1
