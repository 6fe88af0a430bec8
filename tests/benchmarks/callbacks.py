"""What callbacks cost: the tiny workload with them, against the same run without any.

Run it from the root with `python -m tests.benchmarks.callbacks`. The run under "usual" is the
budget: it keeps at least 95 % of the steps a second, a ratio of 1.05. The bar is drawn as in a
terminal, to nowhere.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from eqxtrain import Callback, Every, Learner, metrics
from eqxtrain.callbacks import CSVLogger, EarlyStopping, TensorBoard, Throughput

from .loop import CROSS_ENTROPY, OPTIMIZER, Run, interleaved, table
from .workloads import WORKLOADS

Make = Callable[[], list[Callback]]


class Terminal(io.StringIO):
    """A terminal that shows nothing."""

    def isatty(self) -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--workload", default="tiny")
    options = parser.parse_args()
    work = WORKLOADS[options.workload]()
    measured = {"accuracy": metrics.Accuracy()}
    learner = Learner(work.model, OPTIMIZER, loss=CROSS_ENTROPY, metrics=measured).init()

    def run(make: Make, verbose: int = 0) -> Run:
        def fit() -> None:
            with redirect_stdout(Terminal()):
                learner.fit(
                    work.x, work.y, batch_size=work.batch, epochs=options.epochs,
                    verbose=1 if verbose else 0, callbacks=make(),
                )  # fmt: skip

        return fit

    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        stopping: Make = lambda: [EarlyStopping("loss", patience=100)]
        usual: Make = lambda: [CSVLogger(logs / "log.csv"), *stopping()]
        board: Make = lambda: [TensorBoard(logs, every=Every(steps=100))]
        runs: dict[str, Run | None] = {
            "none": run(list),
            "the bar": run(list, verbose=1),
            "CSVLogger": run(lambda: [CSVLogger(logs / "log.csv")]),
            "EarlyStopping": run(stopping),
            "usual: the bar, CSVLogger, EarlyStopping": run(usual, verbose=1),
            "Throughput": run(lambda: [Throughput()]),
            "TensorBoard, every 100 steps": run(board),
        }
        steps = options.epochs * -(-len(work.x) // work.batch)
        title = f"{work.name}: {options.epochs} epochs, batch {work.batch}, µs a step"
        table(title, interleaved(runs, options.rounds), steps, ["none"])


if __name__ == "__main__":
    main()
