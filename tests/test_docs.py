"""The documentation runs: every Python block of a page, in order, in one namespace."""

import importlib
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import eqxtrain as et

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

# What the README's blocks take as given.
README_PRELUDE = """
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

rng = np.random.default_rng(0)
x, x_val, x_test = (rng.normal(size=(n, 64)).astype(np.float32) for n in (96, 32, 32))
y, y_val, y_test = (rng.integers(0, 10, n).astype(np.int32) for n in (96, 32, 32))
key = jr.key(0)


class VAEModel(eqx.Module):
    encoder: eqx.nn.Linear
    decoder: eqx.nn.Linear

    def __init__(self, key):
        a, b = jr.split(key)
        self.encoder = eqx.nn.Linear(64, 4, key=a)
        self.decoder = eqx.nn.Linear(2, 64, key=b)

    def __call__(self, x, key):
        mu, logvar = jnp.split(self.encoder(x), 2)
        return self.decoder(mu + jnp.exp(logvar / 2) * jr.normal(key, mu.shape)), mu, logvar
"""


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page, each on the lines where it stands there, for tracebacks."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    # People's notebooks run so, and Equinox's BatchNorm does not work otherwise.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if page.name == "README.md":
            exec(README_PRELUDE, names)
        for block in blocks(page):
            exec(compile(block, page, "exec"), names)


def test_no_block_of_python_goes_unrun() -> None:
    for page in PAGES:
        fences = re.findall(
            r"^[ \t>]*(?:```|~~~)[ \t]*(?:py|python|pycon)\b", page.read_text(), re.M
        )
        assert len(fences) == len(blocks(page)), page


def test_every_public_name_has_its_entry_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
    entries = set(re.findall(r"^::: (\S+)$", reference, re.MULTILINE))
    rooms = {"eqxtrain": et, "eqxtrain.metrics": et.metrics, "eqxtrain.callbacks": et.callbacks}
    public = {
        value: f"{room}.{name}"
        for room, module in reversed(rooms.items())  # `et.Every` rather than `et.callbacks.Every`
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
    }
    assert entries == set(public.values())


def test_the_reference_shows_how_modules_are_made() -> None:
    griffe = importlib.import_module("griffe")
    extensions = griffe.load_extensions(str(DOCS / "signatures.py"))
    package = griffe.load("eqxtrain", search_paths=[str(ROOT)], extensions=extensions)

    def shown(name: str) -> dict[str, str | None]:
        return {p.name: p.default for p in package[name].parameters if p.name != "self"}

    learner = shown("Learner")
    assert list(learner)[:3] == ["model", "optimizer", "loss"] and learner["loss"] == "None"
    assert shown("metrics.AUROC")["bins"] == "200" and "seen" not in shown("metrics.AUROC")
    assert shown("metrics.GradientNorm") == {"per_layer": "False", "mode": "Mean()"}
    assert shown("metrics.MeanSquaredError") == {} and "__init__" not in package["Run"].members
