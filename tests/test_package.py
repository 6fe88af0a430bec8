"""The package as a whole: its rooms, its imports, its public face."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eqxtrain as et

ROOT = Path(et.__file__).parent

ROOMS = [
    "_types", "_warn", "_promotion", "_reads", "_members", "_tokens", "_identity", "_tree",
    "_request", "_naming", "_predictions", "metrics", "_reduction", "_labels", "_loss",
    "_regularize", "_state", "_optimize", "_watched", "_outputs", "_summary", "_frozen", "_failing",
    "_protocol", "_forward", "_misnamed", "_steps", "_cost", "_account", "_record", "_jaxpr",
    "_compile", "data", "_fold", "_programs", "_padding", "_calls", "_engine", "_loaded",
    "_initialise", "_history", "_interrupt", "_carried", "callbacks", "_exceptions", "_drive",
    "_schedule", "_passes", "_loop", "_arguments", "_forecast", "_learner", "__init__",
]  # fmt: skip
"""The rooms of the house in order; each may import those above it."""


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, from its relative imports."""
    found: set[str] = set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            found.update(names)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_only_upward(path: Path) -> None:
    here = ROOMS.index(room(path))
    below = {name for name in imported_rooms(path) if ROOMS.index(name) >= here}
    assert not below


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_style_of_the_house(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400  # not a wall, but beyond it there is a second concept in it
    assert "jax._src" not in text and "import *" not in text
    assert "eqx.internal" not in text and "equinox.internal" not in text
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_is_annotated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if not a.annotation and a.arg not in ("self", "cls")]
            assert not bare and node.returns is not None, f"{node.name}:{node.lineno}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_one_room_compiles(path: Path) -> None:
    if path.name != "_compile.py":
        code = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        allowed = ["eqx.filter_jit"] if path.name == "_steps.py" else []  # the default `jit_step`
        assert [c for c in code if c in ("jax.jit", "eqx.filter_jit")] == allowed


def test_what_is_public_has_a_docstring() -> None:
    for name in dir(et):
        thing = getattr(et, name)
        if not name.startswith("_") and callable(thing):
            assert thing.__doc__, name


@pytest.mark.slow
def test_importing_adds_little_to_importing_equinox_and_optax() -> None:
    code = (
        "import sys, equinox, optax;"
        "before = set(sys.modules);"
        "import eqxtrain;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"rich", "IPython", "matplotlib", "sklearn", "pandas", "torch", "flax"}
    assert not heavy & set(run.stdout.split())


def test_torch_is_no_dependency() -> None:
    assert "torch" not in (ROOT.parent / "pyproject.toml").read_text()


def test_nothing_is_skipped_but_what_needs_torch() -> None:
    tests = Path(__file__).parent
    asked = [
        name
        for path in tests.rglob("test_*.py")
        for name in re.findall(r"importorskip\(\s*\"([^\"]+)\"", path.read_text())
    ]
    names = {name.split(".")[0] for name in asked}
    assert names == {"torch", "torchdata", "torchmetrics"}
