"""Peak memory of training a model of many parameters, against a donated loop by hand.

Run it from the root with `python -m tests.benchmarks.memory`. Each run is a process of its own; its
peak resident memory is printed, and what of that lies above a process that only builds the model.
"""

import argparse
import resource
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import eqxtrain as et

from .loop import CROSS_ENTROPY, OPTIMIZER, _losses

WIDTH, BATCH, STEPS = 3_000, 8, 20


def _model() -> eqx.nn.MLP:
    return eqx.nn.MLP(WIDTH, 10, WIDTH, 4, key=jr.key(0))


def _data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(BATCH * STEPS, WIDTH)).astype(np.float32)
    return x, np.zeros(len(x), np.int32)


def build() -> None:
    jax.block_until_ready(jax.tree.leaves(eqx.filter(_model(), eqx.is_array)))
    _data()


def by_hand() -> None:
    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, opt_state: Any) -> Any:
        (loss, _), grads = eqx.filter_value_and_grad(_losses, has_aux=True)(model, *batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, loss

    model = _model()
    opt_state = OPTIMIZER.init(eqx.filter(model, eqx.is_inexact_array))
    x, y = _data()
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        batch = (jnp.asarray(x[rows]), jnp.asarray(y[rows]))
        model, opt_state, loss = step(batch, model, opt_state)
        jax.block_until_ready(loss)


def by_fit(donate: bool) -> None:
    learner = et.Learner(_model(), OPTIMIZER, loss=CROSS_ENTROPY)
    learner.fit(*_data(), batch_size=BATCH, verbose=0, donate=donate)


RUNS = {
    "building the model": build,
    "loop by hand, donating": by_hand,
    "fit, donate=True": lambda: by_fit(True),
    "fit": lambda: by_fit(False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", choices=RUNS)
    options = parser.parse_args()
    if options.run:
        RUNS[options.run]()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    peaks: dict[str, float] = {}
    for name in RUNS:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--run", name]
        out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        peaks[name] = int(out.split()[-1]) / 1024
    hand = peaks["loop by hand, donating"]
    print("\n| | peak, MB | ratio |\n|---|---:|---:|")
    for name, peak in peaks.items():
        print(f"| {name} | {peak:.0f} | {peak / hand:.2f} |")


if __name__ == "__main__":
    main()
