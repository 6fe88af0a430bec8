"""Since when the device has had nothing to do, with calls that end when the test says so."""

import threading
import time
from typing import Any

import jax.numpy as jnp
import pytest

from eqxtrain import _placement
from eqxtrain._engine.device_watch import DeviceWatch


def wait_until_idle(watch: DeviceWatch) -> float:
    while (since := watch.idle_since) is None:
        time.sleep(1e-3)
    return since


def test_it_is_idle_from_the_end_of_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {i: threading.Event() for i in range(2)}
    monkeypatch.setattr(_placement, "wait", lambda done: ended[int(done)].wait())
    with DeviceWatch() as watch:
        began = watch.idle_since
        assert began is not None
        for i in ended:
            watch.add(jnp.array(i))
        assert watch.idle_since is None
        ended[0].set()
        assert watch.idle_since is None
        before = time.perf_counter()
        ended[1].set()
        assert began < before <= wait_until_idle(watch) <= time.perf_counter()


def test_a_call_that_fails_is_over_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []

    def fail(done: Any) -> None:
        waited.append(int(done))
        raise RuntimeError("the device failed")

    monkeypatch.setattr(_placement, "wait", fail)
    with DeviceWatch() as watch:
        watch.add(jnp.array(7))
        wait_until_idle(watch)
    assert waited == [7]
