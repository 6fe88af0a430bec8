"""The record of compiles, and a limit to them."""

import threading
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, learner, linear

import eqxtrain as et
from eqxtrain._engine import compile_log


def test_a_limit_counts_the_programs_of_all_passes() -> None:
    forget_programs()
    x, y = data(24)
    made = learner()
    with et.max_compiles(3) as seen:
        made.fit(x, y, batch_size=8, verbose=0)
        made.evaluate(x, y, batch_size=8)
        made.predict(x, batch_size=8)
    assert [c.step for c in seen] == ["train_step", "test_step", "pred_step"]
    with et.max_compiles(0):
        made.fit(x, y, batch_size=8, verbose=0)
        made.evaluate(x, y, batch_size=8)
        made.predict(x, batch_size=8)


def test_one_compile_too_many_is_an_error_that_says_what_each_was_for() -> None:
    forget_programs()
    x, y = data(20)
    with (
        pytest.raises(RuntimeError, match=r"number 2 within `max_compiles\(1\)`.*\[8,4\].*\[4,4\]"),
        et.max_compiles(1),
    ):
        learner().fit(x, y, batch_size=8, verbose=0)


def test_a_compile_that_was_refused_is_not_remembered() -> None:
    forget_programs()
    x, y = data(8)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"test_step \(first\)"), et.max_compiles(0):
            learner().evaluate(x, y)


def test_limits_nest_and_end() -> None:
    forget_programs()
    x, y = data(8)
    with et.max_compiles(5) as outer:
        with pytest.raises(RuntimeError), et.max_compiles(0):
            learner().evaluate(x, y)
        learner().evaluate(x, y)
    assert len(outer) == 1
    with pytest.raises(ValueError, match="whole number"), et.max_compiles(-1):
        pass


def test_a_compile_knows_its_arrays_and_its_seconds() -> None:
    forget_programs()
    x, y = data(24)
    _, history = learner().fit(x, y, batch_size=8, verbose=0)
    (found,) = history.timing.compilations
    assert found.signature["batch[0]"] == "float32[8,4]"
    assert found.signature["model.weight"] == "float32[3,4]"
    assert found.trace > 0 and found.lower > 0 and found.compile > 0
    assert found.seconds == found.trace + found.lower + found.compile
    assert found.reason == "first" and "signature" not in repr(found)


def test_what_a_program_reads_weakly_typed_is_the_same_program() -> None:
    weak = eqx.tree_at(lambda m: m.bias, linear(), jnp.asarray([0.0, 0, 0]) * 1.0)
    x, y = data(8)
    et.Learner(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY).fit(x, y, verbose=0)
    with et.max_compiles(0):
        et.Learner(weak, optax.sgd(0.1), loss=CROSS_ENTROPY).fit(x, y, verbose=0)


def test_a_thread_that_waits_for_a_compile_can_be_seen_by_others() -> None:
    seen: list[Any] = []

    class Looks(et.Learner[Any]):
        def train_step(self, **available: Any) -> Any:
            seen.extend(compile_log.waiting())
            return super().train_step(**available)

    made = Looks(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    made.fit(*data(8), verbose=0)
    assert [(w.step, w.thread) for w in seen] == [("train_step", threading.get_ident())]
    assert seen[0].seconds >= 0 and compile_log.waiting() == []
