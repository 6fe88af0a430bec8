"""What metrics cost: `fit` with and without them, on an MLP for ten classes at batch 512.

Run it with `python tests/benchmarks/metrics.py`. It prints microseconds a step and ratios to the
first row; rounds are interleaved in one process, so that noise hits all alike. A row's ratio is the
median over rounds of its time over that of the first row in the same round. The second table times
`compute` of a `Gather` over more and more batches: its time a batch should not grow.
"""

import argparse
import os
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax

import eqxtrain as et

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
BATCH = 512
METRICS: dict[str, dict[str, Any]] = {
    "loss only": {},
    "loss only, again": {},
    "accuracy": {"accuracy": et.metrics.Accuracy()},
    "F1": {"f1": et.metrics.F1()},
    "AUROC, 200 bins": {"auroc": et.metrics.AUROC(from_logits=True)},
    "accuracy, F1, AUROC": {
        "accuracy": et.metrics.Accuracy(),
        "f1": et.metrics.F1(),
        "auroc": et.metrics.AUROC(from_logits=True),
    },
}


def steps_of_fit(steps: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, 784)).astype(np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    model = eqx.nn.MLP(784, 10, 128, 1, key=jr.key(0))
    learners = {
        name: et.Learner(model, optax.adam(1e-3), loss=CROSS_ENTROPY, metrics=metrics).init()
        for name, metrics in METRICS.items()
    }
    run = lambda learner: learner.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False)
    for learner in learners.values():
        run(learner)
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(rounds):
        for name, learner in learners.items():
            began = time.perf_counter()
            run(learner)
            seconds[name].append(time.perf_counter() - began)
    print(f"\nMLP 784-128-10, batch {BATCH}, {steps} steps an epoch\n")
    print("| | µs a step | ratio |\n|---|---:|---:|")
    base = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"| {name} | {statistics.median(values) / steps * 1e6:.0f} | {ratio:.2f} |")


def batches_of_gather(rounds: int) -> None:
    learner = et.Learner(
        eqx.nn.Identity(), None, loss=lambda p, t: p[:, 0], metrics={"all": et.metrics.Gather()}
    )
    print("\nGather of 64 rows of 16 a batch\n")
    print("| batches | µs a batch |\n|---:|---:|")
    for count in (100, 1000, 4000):
        x = np.zeros((64 * count, 16), np.float32)
        learner.evaluate(x, x, batch_size=64, verbose=0)
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            learner.evaluate(x, x, batch_size=64, verbose=0)
            seconds.append(time.perf_counter() - began)
        print(f"| {count} | {statistics.median(seconds) / count * 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    steps_of_fit(options.steps, options.rounds)
    batches_of_gather(3)


if __name__ == "__main__":
    main()
