"""The learning rate that an optimizer used, against schedules computed by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import data, learner, linear

import eqxtrain as et
from eqxtrain._steps.learning_rate import learning_rate
from eqxtrain.metrics import LearningRate, Max, Mean, Modes

STEPS = 4
RISING = optax.linear_schedule(0.1, 0.2, 10)
RISES = [0.1, 0.11, 0.12, 0.13]
PARAMS = {"a": jnp.ones(3), "b": jnp.ones(3)}


def injected(rate: Any) -> Any:
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


def by_label(a: Any, b: Any) -> Any:
    return optax.multi_transform({"a": a, "b": b}, {"a": "a", "b": "b"})


def loss(params: Any) -> Any:
    return sum(jnp.sum(leaf**4) for leaf in params.values())


def rates(optimizer: Any, steps: int = STEPS) -> list[Any]:
    """The learning rates of some steps towards the least sum of fourth powers."""

    optimizer = optax.with_extra_args_support(optimizer)
    params: Any = PARAMS
    state, seen = optimizer.init(params), list[Any]()
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            value, grads = jax.value_and_grad(loss)(params)
            updates, new = optimizer.update(
                grads, state, params, value=value, grad=grads, value_fn=loss
            )
            seen.append(jax.tree.map(float, learning_rate(optimizer, state, new)))
            params, state = optax.apply_updates(params, updates), new
    return seen


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.adam(1e-3), [1e-3] * 4),
        (optax.sgd(0.1, momentum=0.9), [0.1] * 4),
        (optax.adamw(RISING), RISES),
        (optax.lion(RISING), RISES),
        (optax.adafactor(1e-2), [1e-2] * 4),
        (optax.MultiSteps(optax.sgd(RISING), 2).gradient_transformation(), [0.1, 0.1, 0.11, 0.11]),
        (injected(RISING), RISES),
        (injected(0.5), [0.5] * 4),
        (optax.chain(optax.clip(1.0), injected(RISING)), RISES),
        (optax.apply_if_finite(optax.sgd(RISING), 3), RISES),
        (optax.masked(optax.sgd(RISING), {"a": True, "b": False}), RISES),
        (by_label(optax.sgd(RISING), optax.set_to_zero()), RISES),
        (optax.chain(optax.scale_by_schedule(RISING), optax.scale(-1.0)), RISES),
        (optax.chain(optax.scale(0.5), optax.adam(0.1)), [0.1] * 4),
        (optax.chain(optax.scale(0.5), optax.sgd(0.1)), [0.05] * 4),
        (optax.chain(optax.scale(0.5), optax.adam(1.0)), [1.0] * 4),
        (optax.chain(injected(0.4), optax.scale(0.5)), [0.2] * 4),
        (optax.adam(jnp.asarray(0.1)), [0.1] * 4),
        (optax.chain(optax.sgd(0.1), optax.scale(0.5)), [0.05] * 4),
        (optax.chain(optax.sgd(0.5), optax.scale_by_schedule(RISING)), [r / 2 for r in RISES]),
    ],
)  # fmt: skip
def test_the_rate_is_found_wherever_optax_puts_it(optimizer: Any, expected: list[float]) -> None:
    assert rates(optimizer) == pytest.approx(expected, rel=1e-6)


def test_an_injected_rate_has_its_label() -> None:
    found = rates(by_label(injected(RISING), optax.sgd(0.2)))
    assert [f["a"] for f in found] == pytest.approx(RISES)
    assert [f["b"] for f in found] == pytest.approx([0.2] * 4)


def test_each_label_has_its_own() -> None:
    found = rates(optax.chain(by_label(optax.sgd(RISING), optax.sgd(0.2)), optax.scale(0.5)))
    assert [f["a"] for f in found] == pytest.approx([r / 2 for r in RISES])
    assert [f["b"] for f in found] == pytest.approx([0.1] * 4)


SEARCHED: Any = optax.scale_by_backtracking_linesearch(15)
PLATEAU: Any = optax.contrib.reduce_on_plateau(patience=1, factor=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "improves"),
    [((optax.sgd(1.0), SEARCHED), True), ((optax.sgd(0.1), PLATEAU), False)],
)
def test_a_rate_that_the_optimizer_chooses_is_that_of_its_update(
    optimizer: Any, improves: bool
) -> None:
    chained: Any = optax.chain(*optimizer)
    params: Any = PARAMS
    state, ratios, found = chained.init(params), list[float](), list[float]()

    for _ in range(STEPS):
        with jax.numpy_dtype_promotion("standard"):
            value, grads = jax.value_and_grad(loss)(params)
            value = value if improves else jnp.ones(())
            updates, new = chained.update(
                grads, state, params, value=value, grad=grads, value_fn=loss
            )
            ratios.append(-float(updates["a"][0] / grads["a"][0]))
            found.append(float(learning_rate(chained, state, new)))
            params, state = optax.apply_updates(params, updates), new
    assert found == pytest.approx(ratios, rel=1e-5)
    assert len(set(found)) > 1


@pytest.mark.parametrize("optimizer", [optax.identity(), optax.contrib.prodigy()])
def test_one_that_cant_be_found_is_an_error_that_says_what_to_do(optimizer: Any) -> None:
    with pytest.raises(ValueError, match=r"can't be found. Say what it is .*LearningRate\(sched"):
        rates(optimizer, 1)


def test_a_fit_logs_the_rate_of_its_last_step() -> None:
    x, y = data(21)
    modes = Modes(Mean(), Max())
    metrics = [LearningRate(), {"all": LearningRate(mode=modes), "own": LearningRate(RISING)}]
    made = learner(linear(), optax.adam(RISING), metrics=metrics)
    made, history = made.fit(x, y, batch_size=8, epochs=2, verbose=0)
    rate = [0.1 + 0.01 * step for step in range(6)]
    assert history["learning_rate"] == pytest.approx([rate[2], rate[5]])
    assert history["1/own"] == pytest.approx([rate[2], rate[5]])
    assert history["1/all_mean"] == pytest.approx([np.mean(rate[:3]), np.mean(rate[3:])])
    assert made.evaluate(x, y).keys() == {"loss"}


def test_a_rate_that_a_callback_sets_is_the_one_that_is_logged() -> None:
    schedule = lambda epoch, rate: rate / 2
    made = learner(linear(), injected(0.4), metrics=[LearningRate()])
    callback = et.callbacks.LearningRateScheduler(schedule)
    with et.max_compiles(1):
        _, history = made.fit(*data(8), epochs=3, callbacks=callback, verbose=0)
    assert history["learning_rate"] == pytest.approx([0.2, 0.1, 0.05])


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="a number, or a function of the step"):
        LearningRate("cosine")
