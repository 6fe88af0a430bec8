"""Calls in flight: how many, and what they bring back."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    data,
    learner,
    linear,
)
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _placement
from eqxtrain._engine.runner import StepRunner
from eqxtrain._engine.step import TEST, TRAIN


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
