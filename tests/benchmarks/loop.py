"""The cost of a step: `fit` against loops by hand, against the limit, and against Keras.

Run it from the root with `python -m tests.benchmarks.loop`, or with names of workloads behind it.
It prints microseconds a step and ratios; rounds are interleaved in one process, so that noise hits
all alike, and medians are shown. Each epoch shuffles, and tracks the loss and the accuracy.
"""

import argparse
import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqxtrain as et

from .workloads import WORKLOADS, Workload

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
OPTIMIZER = optax.adam(1e-3)

Run = Callable[[], Any]


def _losses(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
    logits = jax.vmap(model)(x)
    accuracy = jnp.mean((jnp.argmax(logits, -1) == y).astype(jnp.float32))
    return CROSS_ENTROPY(logits, y).mean(), accuracy


def _step(model: Any, opt_state: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    (loss, accuracy), grads = eqx.filter_value_and_grad(_losses, has_aux=True)(model, x, y)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    return eqx.apply_updates(model, updates), opt_state, (loss, accuracy)


def _begin(model: Any) -> tuple[Any, Any]:
    copied = jax.tree.map(lambda a: jnp.array(a) if eqx.is_array(a) else a, model)
    return copied, OPTIMIZER.init(eqx.filter(copied, eqx.is_inexact_array))


def by_hand(work: Workload) -> Run:
    """The loop of Equinox's documentation: `filter_jit` on modules, a batch at a time."""
    step = eqx.filter_jit(_step)
    rng = np.random.default_rng(0)

    def run() -> None:
        model, opt_state = _begin(work.model)
        order = rng.permutation(len(work.x))
        total = jnp.zeros(2)
        for start in range(0, len(work.x), work.batch):
            rows = order[start : start + work.batch]
            model, opt_state, (loss, accuracy) = step(model, opt_state, work.x[rows], work.y[rows])
            total = total + jnp.stack([loss, accuracy])
        np.asarray(total)

    return run


def limit(work: Workload) -> Run:
    """One `lax.scan` over whole batches, of data that are on the device already, shuffled there."""

    static = eqx.filter(work.model, eqx.is_array, inverse=True)

    @jax.jit
    def epoch(carry: Any, x: Any, y: Any, order: Any) -> Any:
        cut = lambda a: a[order].reshape(work.steps, work.batch, *a.shape[1:])

        def body(carry: Any, batch: Any) -> Any:
            params, opt_state, total = carry
            model, opt_state, logs = _step(eqx.combine(params, static), opt_state, *batch)
            return (eqx.filter(model, eqx.is_array), opt_state, total + jnp.stack(logs)), None

        return jax.lax.scan(body, (*carry, jnp.zeros(2)), (cut(x), cut(y)))[0]

    x, y = jnp.asarray(work.x), jnp.asarray(work.y)
    rng = np.random.default_rng(0)

    def run() -> None:
        model, opt_state = _begin(work.model)
        order = rng.permutation(len(work.x))[: work.steps * work.batch]
        carry = (eqx.filter(model, eqx.is_array), opt_state)
        np.asarray(epoch(carry, x, y, jnp.asarray(order))[2])

    return run


def by_fit(work: Workload, steps_per_call: Any = "auto") -> Run:
    learner = et.Learner(
        work.model, OPTIMIZER, loss=CROSS_ENTROPY, metrics={"accuracy": et.metrics.Accuracy()}
    ).init()
    options = {"batch_size": work.batch, "verbose": 0, "steps_per_call": steps_per_call}
    return lambda: learner.fit(work.x, work.y, **options)


def keras() -> Any:
    """Keras on JAX, or None where it is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        return importlib.import_module("keras")
    except ImportError:
        return None


def by_keras(work: Workload, steps: int) -> Run | None:
    module = keras()
    if module is None or work.keras is None:
        return None
    model = work.keras(module)
    model.compile(
        module.optimizers.Adam(1e-3),
        module.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps,
    )
    return lambda: model.fit(work.x, work.y, batch_size=work.batch, verbose=0)


def interleaved(runs: Mapping[str, Run | None], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one that is not counted."""
    timed = {name: run for name, run in runs.items() if run is not None}
    for run in timed.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, run in timed.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def table(title: str, seconds: dict[str, list[float]], per: int, against: list[str]) -> None:
    """Medians in microseconds, and medians of the ratios of each round."""
    print(f"\n{title}\n")
    print("| | µs | " + " | ".join(f"ratio to {name}" for name in against) + " |")
    print("|---|---:|" + "---:|" * len(against))
    for name, values in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(values, seconds[base], strict=True))
            for base in against
        ]
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {statistics.median(values) / per * 1e6:.1f} | {cells} |", flush=True)


def compare(work: Workload, rounds: int) -> None:
    runs = {
        "loop by hand": by_hand(work),
        "the limit": limit(work),
        "eqxtrain": by_fit(work),
        "eqxtrain, one step a call": by_fit(work, 1),
        "Keras": by_keras(work, 1),
        "Keras, 32 steps": by_keras(work, 32),
    }
    leaves = len(jax.tree.leaves(eqx.filter(work.model, eqx.is_array)))
    title = f"{work.name}: {leaves} arrays, batch {work.batch}, {work.steps} steps an epoch"
    table(title, interleaved(runs, rounds), work.steps, ["loop by hand", "the limit"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.device_kind}, {os.cpu_count()} cores")
    for name in options.workloads or WORKLOADS:
        compare(WORKLOADS[name](), options.rounds)
        gc.collect()


if __name__ == "__main__":
    main()
