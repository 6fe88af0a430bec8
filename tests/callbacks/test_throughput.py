"""Rates, from what the loop has measured."""

import math
from typing import Any

import numpy as np
import pytest
from helpers import data, learner

import eqxtrain as et

X, Y = data(21)
NAMES = ["steps_per_second", "examples_per_second", "flops_per_second", "data_wait"]


def test_its_numbers_are_what_the_loop_counted_over_what_it_measured() -> None:
    speed = et.callbacks.Throughput(tokens=5, peak_flops=1e9)
    seen: list[list[str]] = []
    look = et.callbacks.Lambda(on_epoch_end=lambda run: seen.append(list(run.logs)))
    made = learner()
    _, history = made.fit(
        X, Y, epochs=2, batch_size=8, verbose=0, remainder="pad", callbacks=[speed, look]
    )
    flops = made.forecast(X[:8], Y[:8], batch_size=8).flops
    for i, timing in enumerate(history.timing.passes):
        rate = {name: history[name][i] * timing.seconds for name in speed.adds or ()}
        assert math.isclose(rate["steps_per_second"], 3)
        assert math.isclose(rate["examples_per_second"], 21)
        assert math.isclose(rate["tokens_per_second"], 105)
        # A mask costs a little that the forecast, made of a batch without one, does not know.
        assert flops <= rate["flops_per_second"] / 3 < 1.5 * flops
        assert math.isclose(rate["mfu"] * 1e9, rate["flops_per_second"])
        assert timing.idle is not None and math.isclose(rate["data_wait"], timing.idle)
        assert history["compile_seconds"][i] == timing.compile_wait
    assert seen[0] == [*["loss", "accuracy"], *[n for n in history if n not in made.evaluate(X, Y)]]
    assert set(speed.adds or ()) == set(seen[0]) - {"loss", "accuracy"}


def test_without_options_it_adds_what_needs_none() -> None:
    speed = et.callbacks.Throughput()
    _, history = learner().fit(X, Y, verbose=0, callbacks=speed)
    assert list(history) == ["loss", "accuracy", *NAMES, "compile_seconds"]
    assert all(0 <= history["data_wait"][0] <= 1 and history[name][0] >= 0 for name in NAMES)


def test_tokens_may_be_counted_by_a_metric() -> None:
    metrics = {"tokens": et.metrics.Sum()}  # of what is predicted, here
    speed = et.callbacks.Throughput(tokens=lambda run: run.logs["tokens"])
    _, history = learner(metrics=metrics).fit(X, Y, verbose=0, callbacks=speed)
    tokens = history["tokens_per_second"][0] * history.timing.passes[0].seconds
    np.testing.assert_allclose(tokens, history["tokens"][0])


def test_an_epoch_without_steps_has_no_rate() -> None:
    stop = et.callbacks.Lambda(on_epoch_begin=lambda run: run.stop() if run.epoch else None)
    speed = et.callbacks.Throughput()
    seen: list[Any] = []
    look = et.callbacks.Lambda(on_epoch_end=lambda run: seen.append(run.logs["steps_per_second"]))
    learner().fit(X, Y, epochs=3, verbose=0, callbacks=[stop, speed, look])
    assert seen[0] > 0 and math.isnan(seen[1])


def test_it_changes_no_bit_and_can_be_monitored() -> None:
    stopping = et.callbacks.EarlyStopping("steps_per_second", mode="max", patience=5)
    _, watched = learner().fit(
        X, Y, epochs=2, verbose=0, callbacks=[et.callbacks.Throughput(), stopping]
    )
    _, alone = learner().fit(X, Y, epochs=2, verbose=0)
    assert watched["loss"] == alone["loss"] and stopping.best is not None


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_count_is_refused() -> None:
    wrong: Any
    for wrong in (0, 1.5, "tokens"):
        with pytest.raises(ValueError, match="how many tokens an example has"):
            et.callbacks.Throughput(tokens=wrong)
    with pytest.raises(ValueError, match=r"`Throughput\(peak_flops\)` must be a number"):
        et.callbacks.Throughput(peak_flops=0)
