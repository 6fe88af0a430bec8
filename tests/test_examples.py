"""The examples run, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(path: Path, *options: str, cwd: Path) -> str:
    """What a script prints in a fresh Python, where a warning is an error."""
    command = [sys.executable, "-W", "error", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_digits_trains_saves_and_loads(tmp_path: Path) -> None:
    out = run(EXAMPLES / "digits.py", "--out", "deep/er/digits.eqx", cwd=tmp_path)
    assert "Trainable:" in out and "val_accuracy" in out
    found = re.search(r"digits never seen: .*accuracy (\d\.\d+)", out)
    assert found and float(found[1]) > 0.96
    assert "the predictions are equal." in out
    assert (tmp_path / "deep/er/digits.eqx").stat().st_size > 10_000


@pytest.mark.slow
def test_digits_has_help_and_takes_epochs(tmp_path: Path) -> None:
    assert "--out" in run(EXAMPLES / "digits.py", "--help", cwd=tmp_path)
    assert "Epoch 2/2" in run(EXAMPLES / "digits.py", "--epochs", "2", cwd=tmp_path)


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
def test_seeds_run_and_print_real_numbers(path: Path, tmp_path: Path) -> None:
    assert re.search(LAST[path.stem], run(path, cwd=tmp_path))


def test_every_seed_is_short_enough_to_read_beside_its_original() -> None:
    seeds = sorted((EXAMPLES / "seeds").glob("*.py"))
    assert {path.stem for path in seeds} == set(LAST)
    assert all(path.read_text().count("\n") <= 60 for path in seeds)
