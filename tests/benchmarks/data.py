"""What a batch costs beside producing it, and how far data and device work at the same time.

Run it from the root with `python -m tests.benchmarks.data`. The first table has epochs over the
same rows as arrays, and as batches that cost nothing to produce. The second has epochs over a
source that takes as long as a step does, asleep (as one that waits for a disk) or at work.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eqxtrain import Learner, _data as data

from .loop import CROSS_ENTROPY, OPTIMIZER, Run, interleaved, table
from .workloads import WORKLOADS, Workload


def read(batches: list[Any]) -> None:
    """Take all batches as `fit` does, and do nothing with them."""
    with data.as_source(batches).open_reader(data.Batching(1)) as reader:
        for stack in reader.stacks(lambda batch: 64):
            reader.consume(stack.num_batches)


def work_for(seconds: float) -> None:
    """Keep a core busy, with the lock of the interpreter let go as NumPy does."""
    end, a = time.perf_counter() + seconds, np.ones((64, 64))
    while time.perf_counter() < end:
        _ = a @ a


def batches_of(work: Workload) -> list[Any]:
    cut = range(0, len(work.x), work.batch)
    return [(work.x[i : i + work.batch], work.y[i : i + work.batch]) for i in cut]


def learner_of(work: Workload) -> Learner[Any]:
    return Learner(work.model, OPTIMIZER, loss=CROSS_ENTROPY).init()


def costs(work: Workload, rounds: int) -> None:
    learner, batches = learner_of(work), batches_of(work)
    given: dict[str, Any] = {"verbose": 0, "batch_size": work.batch}
    runs = {
        "arrays, as they stand": lambda: learner.fit(work.x, work.y, shuffle=False, **given),
        "arrays, shuffled": lambda: learner.fit(work.x, work.y, **given),
        "a list of batches": lambda: learner.fit(batches, verbose=0),
        "the same, read and not used": lambda: read(batches),
    }
    table(
        f"{work.name}, batch {work.batch}",
        interleaved(runs, rounds),
        work.steps,
        [next(iter(runs))],
    )


def overlap(work: Workload, rounds: int) -> None:
    learner, batches = learner_of(work), batches_of(work)
    alone = lambda: learner.fit(batches, verbose=0)
    step = statistics.median(interleaved({"step": alone}, 3)["step"]) / work.steps
    waits: dict[str, Callable[[float], Any]] = {"asleep": time.sleep, "at work": work_for}
    print(f"\n{work.name}, batch {work.batch}\n")
    print(
        "| the source is | step, ms | batch, ms | both, ms | to the longer | the cores allow, ms |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for how, wait in waits.items():

        def slow(wait: Callable[[float], Any] = wait) -> Iterator[Any]:
            for batch in batches:
                wait(step)
                yield batch

        runs = {
            "step": alone,
            "data": lambda slow=slow: [None for _ in slow()],
            "both": lambda slow=slow: learner.fit(slow, verbose=0),
        }
        seconds = interleaved(runs, rounds)
        ratios = [b / max(a, d) for a, d, b in zip(*seconds.values(), strict=True)]
        cells = [f"{statistics.median(s) / work.steps * 1e3:.1f}" for s in seconds.values()]
        ratio = f"{statistics.median(ratios):.2f}"
        allowed = sum(map(busy, (runs["step"], runs["data"]))) / (os.cpu_count() or 1)
        bound = max(allowed / work.steps, step) * 1e3
        print(f"| {how} | {' | '.join(cells)} | {ratio} | {bound:.1f} |", flush=True)


def busy(run: Run) -> float:
    """Seconds of all cores together."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for name in ("tiny", "mlp"):
        costs(WORKLOADS[name](), options.rounds)
    overlap(WORKLOADS["gpt"](), options.rounds)


if __name__ == "__main__":
    main()
