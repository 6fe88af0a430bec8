"""The cost of a step: `fit` against a loop by hand, and against Keras where it is installed.

Run it with `python tests/benchmarks/loop.py`. It prints microseconds a step and ratios to the first
row; rounds are interleaved in one process, so that noise hits all alike, and medians are shown.
"""

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import eqxtrain as et

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
BATCH = 32


def data(steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, 32)).astype(np.float32)
    return x, rng.integers(0, 10, len(x)).astype(np.int32)


def by_hand(model: Any, optimizer: Any) -> Callable[[int], None]:
    """The loop of Equinox's own examples: `filter_jit` on modules, donating."""

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, opt_state: Any) -> Any:
        def loss_of(model: Any) -> Any:
            return CROSS_ENTROPY(jax.vmap(model)(batch[0]), batch[1]).mean()

        loss, grads = eqx.filter_value_and_grad(loss_of)(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, loss

    def run(steps: int) -> None:
        x, y = data(steps)
        copied = jax.tree.map(lambda a: jnp.array(a) if eqx.is_array(a) else a, model)
        carried = (copied, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
        loss = None
        for start in range(0, len(x), BATCH):
            rows = slice(start, start + BATCH)
            *carried, loss = step((x[rows], y[rows]), *carried)
        jax.block_until_ready(loss)

    return run


def by_fit(model: Any, optimizer: Any, **fields: Any) -> Callable[[int], None]:
    learner = et.Learner(model, optimizer, loss=CROSS_ENTROPY, **fields).init()
    return lambda steps: learner.fit(*data(steps), batch_size=BATCH, verbose=0) and None


def by_keras(width: int, depth: int) -> Callable[[int], None] | None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        keras: Any = importlib.import_module("keras")
    except ImportError:
        return None
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((32,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return lambda steps: model.fit(*data(steps), batch_size=BATCH, verbose=0) and None


def table(width: int, depth: int, steps: int, rounds: int) -> None:
    model = eqx.nn.MLP(32, 10, width, depth, key=jr.key(0))
    optimizer = optax.adam(1e-3)
    accuracy = {"accuracy": et.metrics.Accuracy()}
    runs: dict[str, Callable[[int], None] | None] = {
        "filter_jit loop by hand, loss only": by_hand(model, optimizer),
        "eqxtrain fit, loss only": by_fit(model, optimizer),
        "eqxtrain fit, loss and accuracy": by_fit(model, optimizer, metrics=accuracy),
        "Keras fit, loss only": by_keras(width, depth),
    }
    timed = {name: run for name, run in runs.items() if run is not None}
    for run in timed.values():
        run(20)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, run in timed.items():
            began = time.perf_counter()
            run(steps)
            seconds[name].append(time.perf_counter() - began)
    leaves = len(jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    print(f"\nMLP 32-{width}x{depth}-10, {leaves} arrays, batch {BATCH}, {steps} steps an epoch\n")
    print("| | µs a step | ratio |\n|---|---:|---:|")
    base = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {median / steps * 1e6:.0f} | {median / base:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    table(32, 1, options.steps, options.rounds)
    table(128, 10, options.steps, options.rounds)


if __name__ == "__main__":
    main()
