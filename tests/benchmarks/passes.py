"""`evaluate` and `predict` over the rows of the tiny workload, against Keras.

Run it from the root with `python -m tests.benchmarks.passes`.
"""

import argparse
from typing import Any

from eqxtrain import Learner, metrics

from .loop import CROSS_ENTROPY, OPTIMIZER, Run, interleaved, keras, table
from .workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workload", default="tiny")
    options = parser.parse_args()
    work = WORKLOADS[options.workload]()
    x, y, batch = work.x, work.y, work.batch
    measured = {"accuracy": metrics.Accuracy()}
    learner = Learner(work.model, OPTIMIZER, loss=CROSS_ENTROPY, metrics=measured).init()
    evaluate: dict[str, Run | None] = {"eqxtrain": lambda: learner.evaluate(x, y, batch_size=batch)}
    predict: dict[str, Run | None] = {"eqxtrain": lambda: learner.predict(x, batch_size=batch)}
    module: Any = keras()
    build: Any = work.keras
    for steps in (1, 32) if module else ():
        model = build(module)
        loss = module.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"], steps_per_execution=steps)
        options_of = {"batch_size": batch, "verbose": 0}
        name = f"Keras, {steps} a call"
        evaluate[name] = lambda m=model, o=options_of: m.evaluate(x, y, **o)
        predict[name] = lambda m=model, o=options_of: m.predict(x, **o)
    for what, runs in {"evaluate": evaluate, "predict": predict}.items():
        title = f"{what}: {work.name}, {len(x):,} rows, batch {batch}"
        table(title, interleaved(runs, options.rounds), len(x) // batch, ["eqxtrain"])


if __name__ == "__main__":
    main()
