"""What a step costs by itself, beside its arithmetic, and how that grows with the model's arrays.

Run it from the root with `python -m tests.benchmarks.overhead`. For models of more and more arrays
it prints what one step a call takes beyond the step's own time (that of the same step in one long
`lax.scan`), for `fit` with `steps_per_call=1` and for the loop by hand.
"""

import argparse
import statistics

import jax.random as jr
import numpy as np

from .loop import by_fit, by_hand, interleaved, limit
from .workloads import Deep, Workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3_200, 16)).astype(np.float32), rng.integers(0, 10, 3_200)
    print("\n| arrays | by hand, µs | one step a call, µs | ratio | µs an array |")
    print("|---:|---:|---:|---:|---:|")
    for arrays in (10, 100, 600):
        model = Deep(jr.key(0), layers=arrays // 2 - 1)
        work = Workload(f"{arrays} arrays", model, x, y.astype(np.int32), 32, None)
        runs = {"hand": by_hand(work), "limit": limit(work), "fit": by_fit(work, 1)}
        seconds = interleaved(runs, options.rounds)
        micro = {k: statistics.median(v) / work.steps * 1e6 for k, v in seconds.items()}
        hand, fit = micro["hand"] - micro["limit"], micro["fit"] - micro["limit"]
        row = f"{hand:.0f} | {fit:.0f} | {fit / hand:.2f} | {fit / arrays:.1f}"
        print(f"| {arrays} | {row} |", flush=True)


if __name__ == "__main__":
    main()
