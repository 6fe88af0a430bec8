"""Passes told to callbacks: no cut changes a bit, and everybody sees exactly their step."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, close, data, learner, linear, normed, same
from hypothesis import given, settings, strategies as st
from jaxtyping import Array, PRNGKeyArray

import eqxtrain as et


class Convolved(eqx.Module):
    """A classifier with a convolution, whose program has no loop on CPU."""

    conv: eqx.nn.Conv1d
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b = jr.split(key)
        self.conv = eqx.nn.Conv1d(1, 2, 3, padding=1, key=a)
        self.out = eqx.nn.Linear(8, 3, key=b)

    def __call__(self, x: Array) -> Array:
        return self.out(jnp.tanh(self.conv(x[None])).reshape(-1))


def dense() -> et.Learner[Any]:
    return learner(metrics=[et.metrics.Accuracy(), et.metrics.Gather()])


def dropped() -> et.Learner[Any]:
    return learner(Dropped(jr.key(0)))


def convolved() -> et.Learner[Any]:
    return learner(Convolved(jr.key(0)))


class Looks(et.Callback):
    """Looks at the state in some of the hooks of batches."""

    def __init__(self, every: int | None) -> None:
        self.every = None if every is None else et.Every(steps=every)
        self.steps: list[int] = []
        self.states: dict[int, Any] = {}
        self.logs: dict[int, Any] = {}

    def on_train_batch_end(self, run: et.Run) -> None:
        self.steps.append(run.step)
        self.states[run.step] = run.learner
        self.logs[run.step] = dict(run.logs)


class LooksBefore(Looks):
    def on_train_batch_begin(self, run: et.Run) -> None:
        assert int(run.state.step) == run.step
        assert run.logs == {}


class Reads(et.Callback):
    """Looks at the logs alone."""

    reads = "logs"

    def __init__(self, every: int | None = None) -> None:
        self.every = None if every is None else et.Every(steps=every)
        self.told: list[tuple[str, int]] = []
        self.logs: dict[int, Any] = {}

    def on_train_batch_begin(self, run: et.Run) -> None:
        self.told.append(("begin", run.step))
        assert run.logs == {}

    def on_train_batch_end(self, run: et.Run) -> None:
        self.told.append(("end", run.step))
        self.logs[run.step] = dict(run.logs)


def numbers(history: et.History) -> list[Any]:
    """The values of all columns, as arrays."""
    return [np.asarray(value) for column in history.values() for value in column]


@pytest.mark.slow
@pytest.mark.parametrize("make", [dense, dropped, normed, convolved])
def test_who_watches_changes_no_bit(make: Any) -> None:
    x, y = data(101)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "verbose": 0}
    alone, history = make().fit(x, y, **options)
    several = [Reads(2), LooksBefore(5), Looks(7)]
    for watcher in (Looks(1), LooksBefore(3), Reads(), et.callbacks.StepHistory(), several):
        watched, seen = make().fit(x, y, **options, callbacks=watcher)
        assert same(alone, watched) and same(numbers(seen), numbers(history))
    validated, seen = make().fit(x, y, **options, validation_data=(x[:30], y[:30]))
    assert same(alone, validated)
    assert all(seen[name] == history[name] for name in ("loss", "accuracy"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [dense, dropped, normed])
def test_the_number_of_steps_in_a_call_changes_nothing_but_rounding(make: Any) -> None:
    x, y = data(101)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "verbose": 0}
    one, history = make().fit(x, y, **options, steps_per_call=1)
    for steps in (2, 5, 100, "auto"):
        many, seen = make().fit(x, y, **options, steps_per_call=steps)
        assert close(one, many, rtol=1e-4, atol=1e-5), steps
        assert close(numbers(seen), numbers(history), rtol=1e-4, atol=1e-5), steps


@pytest.mark.slow
def test_a_convolution_in_a_loop_differs_by_rounding_alone_in_a_step() -> None:
    x, y = data(64)
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
    begun = convolved().init()
    one, _ = begun.fit(x[:16], y[:16], **options, steps_per_call=1)
    two, _ = begun.fit(x[:16], y[:16], **options, steps_per_call=2)
    floats = [eqx.filter(made.model, eqx.is_inexact_array) for made in (one, two)]
    assert eqx.tree_equal(*floats, rtol=2e-6, atol=1e-7)


@functools.cache
def watched() -> et.Learner[Any]:
    """One learner for all examples of a test, so that they share its programs."""
    return learner()


@pytest.mark.slow
@settings(max_examples=12)
@given(
    rows=st.integers(1, 60),
    batch=st.sampled_from([1, 3, 4]),  # each is a program, and so is each length of a last batch
    every=st.integers(1, 7),
    steps=st.sampled_from([1, 3, 8, "auto"]),
)
def test_a_callback_that_reads_the_state_sees_exactly_its_steps(
    rows: int, batch: int, every: int, steps: Any
) -> None:
    x, y = data(60)
    made = watched().init()
    looks, before = Looks(every), LooksBefore(every)
    made.fit(
        x[:rows], y[:rows], batch_size=batch, verbose=0, steps_per_call=steps,
        callbacks=[looks, before],
    )  # fmt: skip
    total = -(-rows // batch)
    assert looks.steps == before.steps == list(range(every, total + 1, every))
    for step, seen in looks.states.items():
        assert int(seen.state.step) == step


def test_the_state_at_a_step_is_that_of_a_loop_by_hand() -> None:
    x, y = data(40)
    looks = Looks(3)
    made = learner(optimizer=optax.sgd(0.1)).init()
    made.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=looks)
    weight, bias = np.asarray(linear().weight, np.float64), np.asarray(linear().bias, np.float64)
    for step in range(10):
        a, b = x[4 * step : 4 * step + 4], y[4 * step : 4 * step + 4]
        logits = a @ weight.T + bias
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        grad = (p - np.eye(3)[b]) / len(b)
        weight, bias = weight - 0.1 * grad.T @ a, bias - 0.1 * grad.sum(0)
        if (step + 1) in looks.states:
            seen = looks.states[step + 1].model
            np.testing.assert_allclose(seen.weight, weight, rtol=1e-4, atol=1e-6)
    assert list(looks.states) == [3, 6, 9]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4, "auto"])
def test_those_who_read_logs_are_told_of_each_step_in_pairs(steps: Any) -> None:
    x, y = data(50)
    reads, looks = Reads(), Looks(1)
    made = learner().init()
    made.fit(x, y, batch_size=4, verbose=0, steps_per_call=steps, callbacks=reads)
    made.fit(x, y, batch_size=4, verbose=0, steps_per_call=1, callbacks=looks)
    expected = [(hook, i + (hook == "end")) for i in range(13) for hook in ("begin", "end")]
    assert reads.told == expected
    assert list(reads.logs) == list(looks.logs)  # running values, those of the very step
    for step, logs in reads.logs.items():
        assert logs == pytest.approx(looks.logs[step], rel=1e-5)


@pytest.mark.slow
def test_every_thins_out_those_who_read_logs() -> None:
    x, y = data(50)
    reads = Reads(4)
    learner().fit(x, y, batch_size=4, verbose=0, callbacks=reads)
    assert reads.told == [(h, s) for n in (4, 8, 12) for h, s in (("begin", n - 1), ("end", n))]


def test_within_a_call_the_state_is_not_there_for_those_who_read_logs() -> None:
    class Wrong(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.state is not None

    with pytest.raises(RuntimeError, match='declares `reads = "logs"`'):
        learner().fit(*data(), verbose=0, callbacks=Wrong())


def test_stop_is_heeded_after_the_step_or_after_the_call() -> None:
    def stops(reading: str, steps: Any) -> int:
        class Stops(et.Callback):
            reads = reading  # pyright: ignore[reportAssignmentType]

            def on_train_batch_end(self, run: et.Run) -> None:
                if run.step == 3:
                    run.stop("enough")

        fitted, history = learner().fit(
            *data(80), batch_size=4, verbose=0, steps_per_call=steps, callbacks=Stops()
        )
        assert history.stopped == "enough" and history.epochs == 1
        assert fitted.state is not None
        return int(fitted.state.step)

    assert stops("state", 8) == 3
    assert stops("logs", 8) == 8
    assert stops("logs", 1) == 3


def test_stop_before_a_step_makes_it_the_last() -> None:
    class Stops(et.Callback):
        every = et.Every(steps=3)

        def on_train_batch_begin(self, run: et.Run) -> None:
            run.stop("enough")

    looks = Reads()
    learner().fit(*data(80), batch_size=4, verbose=0, callbacks=[Stops(), looks])
    assert list(looks.logs) == [1, 2, 3]


def test_an_exception_of_one_who_reads_logs_finds_step_and_learner_in_agreement() -> None:
    seen: list[tuple[int, int]] = []

    class Breaks(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 3:
                raise OSError("full")

        def on_exception(self, run: et.Run) -> None:
            seen.append((run.step, int(run.state.step)))

    with pytest.raises(OSError, match="full") as raised:
        learner().fit(*data(80), batch_size=4, verbose=0, steps_per_call=8, callbacks=Breaks())
    assert seen == [(8, 8)] and int(vars(raised.value)["learner"].state.step) == 8


def test_a_learner_put_in_place_within_a_stack_is_trained_on() -> None:
    class Zeroes(et.Callback):
        every = et.Every(steps=5)

        def on_train_batch_end(self, run: et.Run) -> None:
            zero = eqx.tree_at(lambda m: m.bias, run.learner.model, jnp.full(3, 7.0))
            run.replace(run.learner.replace(model=zero))

    x, y = data(24)
    looks = Looks(1)
    frozen = learner(optimizer=optax.sgd(0.0)).init()
    fitted, _ = frozen.fit(x, y, batch_size=4, verbose=0, callbacks=[Zeroes(), looks])
    assert np.array_equal(fitted.model.bias, np.full(3, 7.0)) and looks.steps[-1] == 6
    assert not np.array_equal(looks.states[4].model.bias, np.full(3, 7.0))


def test_an_exception_of_a_callback_carries_the_learner_of_the_very_step() -> None:
    class Breaks(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 5:
                raise OSError("full")

    with pytest.raises(OSError, match="full") as raised:
        learner().fit(*data(80), batch_size=4, verbose=0, callbacks=Breaks())
    carried: Any = raised.value
    assert int(carried.learner.state.step) == 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["test", "predict"])
def test_passes_that_train_nothing_tell_of_each_batch_too(kind: str) -> None:
    x, y = data(50)

    class Counts(et.Callback):
        reads = "logs"

        def __init__(self) -> None:
            self.logs: list[Any] = []

        def on_test_batch_end(self, run: et.Run) -> None:
            self.logs.append(run.logs["loss"])

        def on_predict_batch_end(self, run: et.Run) -> None:
            self.logs.append(run.logs)

    counts = Counts()
    made = learner(optimizer=optax.sgd(0.1)).init()
    if kind == "predict":
        made.predict(x, batch_size=4, callbacks=counts)
        assert counts.logs == [{}] * 13
    else:
        made.evaluate(x, y, batch_size=4, callbacks=counts)
        losses = np.asarray(CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y)))
        running = [losses[: 4 * i].mean() for i in range(1, 14)]
        np.testing.assert_allclose(counts.logs, running, rtol=1e-5)


@pytest.mark.slow
def test_what_is_gathered_is_the_same_however_calls_are_cut() -> None:
    x, y = data(50)
    made = learner(metrics=[et.metrics.Gather(), et.metrics.AUROC(bins=None, from_logits=True)])
    options: dict[str, Any] = {"batch_size": 4, "verbose": 0}
    _, quiet = made.fit(x, y, **options)
    _, cut = made.fit(x, y, **options, callbacks=Looks(3))
    _, single = made.fit(x, y, **options, steps_per_call=1)
    assert same(numbers(quiet), numbers(cut))
    assert close(numbers(quiet), numbers(single), rtol=1e-4, atol=1e-5)  # another program
    assert quiet["gather"][0].shape == (50, 3)
    for steps in (1, 3, "auto"):
        predicted = made.predict(x, batch_size=4, steps_per_call=steps)
        np.testing.assert_allclose(predicted, jax.vmap(linear())(jnp.asarray(x)), atol=1e-6)
