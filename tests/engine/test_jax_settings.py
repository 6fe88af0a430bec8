"""JAX's cache of programs on disk."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eqxtrain as et

CACHED = """
import sys, jax, optax, numpy as np, equinox as eqx, eqxtrain as et
folder = sys.argv[1]
et.cache_on_disk(folder)
model = eqx.nn.Linear(4, 1, key=jax.random.key(0))
x = np.ones((64, 4), np.float32)
fitted, _ = et.Learner(model, optax.sgd(0.1), loss=optax.squared_error).fit(
    x, x[:, :1], batch_size=8, verbose=0
)
print(float(fitted.model.bias[0]))
et.cache_on_disk(None)
assert jax.config.jax_compilation_cache_dir is None
"""


@pytest.mark.slow
def test_programs_kept_on_disk_serve_the_next_process(tmp_path: Path) -> None:
    def run() -> tuple[str, set[str]]:
        command = [sys.executable, "-c", CACHED, str(tmp_path / "programs")]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return out, {p.name for p in (tmp_path / "programs").iterdir() if p.name.endswith("-cache")}

    first, written = run()
    second, after = run()
    assert first == second
    assert any("step" in name for name in written)
    assert after == written  # nothing was compiled that was not there


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_folder_for_programs_gets_a_sentence(tmp_path: Path) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="takes a folder, or None; got 5"):
        et.cache_on_disk(wrong)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="takes a folder"):
        et.cache_on_disk(tmp_path / "file")
