"""The programs that are made from a traced step."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from helpers import (
    CROSS_ENTROPY,
    counting,
    data,
    forget_programs,
    learner,
    linear,
)

import eqxtrain as et
from eqxtrain._engine.runner import StepRunner
from eqxtrain._engine.step import TRAIN


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


def test_a_second_compile_says_what_changed() -> None:
    forget_programs()
    made, _ = counting()
    _, history = made.fit(*data(21), batch_size=8, verbose=0)
    first, second = history.timing.compilations
    assert (first.step, first.reason) == ("train_step", "first")
    assert "`batch[0]`: float32[8,4] → float32[5,4]" in second.reason


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
