"""What importing eqxtrain adds to importing equinox and optax, in milliseconds.

Run it with `python tests/benchmarks/imports.py`: fresh processes, interleaved; medians.
"""

import statistics
import subprocess
import sys

SETUP = "import time, equinox, optax; began = time.perf_counter(); "
REPORT = "; print(time.perf_counter() - began)"


def seconds(statement: str) -> float:
    command = [sys.executable, "-c", SETUP + statement + REPORT]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    ours: list[float] = []
    nothing: list[float] = []
    for _ in range(7):
        ours.append(seconds("import eqxtrain"))
        nothing.append(seconds("pass"))
    added = statistics.median(ours) - statistics.median(nothing)
    print(f"import eqxtrain adds {added * 1000:.0f} ms to importing equinox and optax")


if __name__ == "__main__":
    main()
