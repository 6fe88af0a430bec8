"""The examples run, and print what they promise."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

import eqxtrain as et

EXAMPLES = Path(__file__).parent.parent / "examples"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script, with JAX as people have it, and gives what it prints.

    In this Python, since a fresh one imports for seconds; a warning is an error here, too.
    """

    def run(path: Path, *options: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *options])
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_digits_trains_saves_and_loads_in_a_fresh_python(tmp_path: Path) -> None:
    # as in `pyproject.toml`: a program that a worker is just writing is compiled here once more
    being_written = "ignore:Error reading persistent compilation cache entry"
    command = [sys.executable, "-W", "error", "-W", being_written, str(EXAMPLES / "digits.py")]
    command += ["--out", "deep/er/digits.eqx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert "Trainable:" in out and "val_accuracy" in out
    found = re.search(r"digits never seen: .*accuracy (\d\.\d+)", out)
    assert found and float(found[1]) > 0.96
    assert "the predictions are equal." in out
    assert (tmp_path / "deep/er/digits.eqx").stat().st_size > 10_000


@pytest.mark.slow
def test_digits_has_help_and_takes_epochs(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        run(EXAMPLES / "digits.py", "--help")
    assert "--out" in capsys.readouterr().out
    asked: list[int] = []

    def fit(self: Any, *args: Any, epochs: int, **options: Any) -> Any:
        asked.append(epochs)
        raise InterruptedError

    monkeypatch.setattr(et.Learner, "fit", fit)
    with pytest.raises(InterruptedError):
        run(EXAMPLES / "digits.py", "--epochs", "2")
    assert asked == [2]


LAST = {
    "elegy_test_step": r"'loss': 0\.\d+, 'accuracy': 0\.9",
    "elegy_pred_and_test_step": r"'accuracy': 0\.9.*\npredicted \[\d",
    "elegy_pred_step": r"'accuracy': 0\.9",
    "elegy_init_step": r"model\.layers\[0\](.|\n)*'accuracy': 0\.\d",
    "elegy_train_step": r"update_norm: 0\.\d.*val_accuracy(.|\n)*'accuracy': 0\.9",
    "elegy_grad_step": r"grad_norm: \d+\.\d(.|\n)*'accuracy': 0\.9",
    "keras_train_step": r"Epoch 3/3 .*loss: 0\.\d+  mae: 0\.\d",
    "keras_own_trackers": r"Epoch 5/5 .*loss: 0\.\d+  mae: 0\.\d",
    "keras_test_step": r"\{'loss': 0\.\d+, 'mae': 0\.\d+\}",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((EXAMPLES / "seeds").glob("*.py")), ids=lambda p: p.stem)
def test_seeds_run_and_print_real_numbers(path: Path, run: Run) -> None:
    assert re.search(LAST[path.stem], run(path))


def test_every_seed_is_short_enough_to_read_beside_its_original() -> None:
    seeds = sorted((EXAMPLES / "seeds").glob("*.py"))
    assert {path.stem for path in seeds} == set(LAST)
    assert all(path.read_text().count("\n") <= 60 for path in seeds)
