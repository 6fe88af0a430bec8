"""From nothing to the end of the first epoch: a fresh process, with compiling.

`python -m tests.benchmarks.start` starts processes by turns that train the tiny workload for one
epoch, by `fit` and by the loop by hand, and prints medians of the seconds from the beginning of
training (and, in brackets, of the whole process).
"""

import argparse
import statistics
import subprocess
import sys
import time

CODE = """
import time
from tests.benchmarks import loop
from tests.benchmarks.workloads import WORKLOADS
work = WORKLOADS["{workload}"]()
began = time.perf_counter()
loop.{how}(work)()
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workload", default="tiny")
    options = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {"by_hand": [], "by_fit": []}
    for _ in range(options.rounds):
        for how, values in seconds.items():
            code = CODE.format(how=how, workload=options.workload)
            began = time.perf_counter()
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            values.append((float(run.stdout), time.perf_counter() - began))
    print("\n| | seconds | with imports |\n|---|---:|---:|")
    for how, values in seconds.items():
        within, whole = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {how} | {within:.2f} | {whole:.2f} |")
    ratios = [a[0] / b[0] for a, b in zip(seconds["by_fit"], seconds["by_hand"], strict=True)]
    print(f"\nratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
