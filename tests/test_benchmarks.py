"""The benchmarks run: what they print is for people, on a machine of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_benchmark_of_the_loop_runs() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.loop", "mlp", "--rounds", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if line.startswith("| eqxtrain")]
    assert len(rows) == 2


@pytest.mark.slow
def test_the_benchmark_of_callbacks_runs() -> None:
    options = ["--workload", "ragged", "--epochs", "2", "--rounds", "1"]
    command = [sys.executable, "-m", "tests.benchmarks.callbacks", *options]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "| usual: the bar, CSVLogger, EarlyStopping |" in run.stdout
