"""The package as a whole: its folders, its imports, its public face."""

import ast
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eqxtrain as et

ROOT = Path(et.__file__).parent

FLOORS = {
    "": (
        "_types _request _warn _check _extras _format _identity _promotion _naming _tree "
        "_placement _figure _json _keys metrics _losses _steps _data _engine _history _display "
        "callbacks _loop _learner"
    ),
    "_identity": "bytecode tokens members survey static_leaf",
    "metrics": (
        "_monoid _calling _masks _base _compensated _class_inputs _foreign _gather _modes "
        "_mode_metric _function _logs _precision_recall _accuracy _pictures _confusion "
        "_ranking _curves _probabilities _regression _correlation _wrappers _collection _gradients"
    ),
    "_losses": "labels class_weight reduction loss regularize",
    "_steps": (
        "state optimize averages hyperparams learning_rate batch_statistics forward module_calls "
        "misnamed frozen_leaves locate_error module_outputs contract summary ladder partial_load "
        "init"
    ),
    "_data": (
        "order batch coerce stack prefetch cursor source feed iterator_state random_access "
        "arrays map_dataset iterables as_source"
    ),
    "_engine": (
        "jaxpr cost call_plan recompile_reason compile_log jax_settings compile cache step loops "
        "programs trace_table padding_check device_watch call_queue accumulators runner"
    ),
    "_history": "timing curves table csv_file history fitted",
    "_display": "line meter text guard sinks where plot ticker",
    "callbacks": (
        "_every _run _base _dispatch _progress _monitor _control _nan _gradients _throughput "
        "_profiler _step_history _describe _logger _loggers _media_logger _tensorboard _wandb"
    ),
    "_loop": (
        "exception_payload interrupt run_state run_control rescue ready schedule inputs driver "
        "epoch_clock evaluate recompute validation replay training forecast fit"
    ),
}
"""What stands in each folder, from the ground up. A module imports only what stands before it, in
its own folder and in those around it."""


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def parts_of(path: Path) -> list[str]:
    """A module's folders and its name, without those of the package."""
    return list(path.relative_to(ROOT).with_suffix("").parts)


def is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(path: Path) -> list[list[str]]:
    """The modules that a file imports from the package."""
    folders = parts_of(path)[:-1]
    found: list[list[str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folders[: len(folders) - node.level + 1]
            base += node.module.split(".") if node.module else []
            modules = [[*base, alias.name] for alias in node.names]
            found += [module if is_module(module) else base for module in modules]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_only_to_the_ground(path: Path) -> None:
    here = parts_of(path)
    if here[-1] == "__init__":  # it gathers what its folder offers
        here = here[:-1]
    for module in imports(path):
        depth = sum(
            1
            for _ in itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(here, module, strict=False)
            )
        )
        if depth == len(here):
            continue
        floor = FLOORS[".".join(here[:depth])].split()
        assert floor.index(module[depth]) < floor.index(here[depth]), module


def test_every_module_stands_on_a_floor() -> None:
    listed = {
        ".".join(filter(None, (folder, name)))
        for folder, names in FLOORS.items()
        for name in names.split()
    }
    there = [parts_of(path) for path in sources()]
    named = {".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in there}
    assert listed == named - {""}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_style_of_the_house(path: Path) -> None:
    text = path.read_text()
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
def test_only_one_module_compiles(path: Path) -> None:
    if path.name != "compile.py":
        code = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        allowed = ["eqx.filter_jit"] if path.name == "ladder.py" else []  # the default `jit_step`
        assert [c for c in code if c in ("jax.jit", "eqx.filter_jit")] == allowed


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_one_module_decides_where_arrays_live(path: Path) -> None:
    names = "device_put|device_get|block_until_ready|copy_to_host_async|is_deleted\\(\\)"
    moves = rf"\b({names}|np\.asarray\([^.])"  # in an error, it may be what the user should do
    if path.name != "_placement.py":
        assert not re.search(moves, path.read_text())


def test_tests_are_named_after_what_they_test() -> None:
    tests = Path(__file__).parent
    for path in tests.glob("*/test_*.py"):
        name = path.stem.removeprefix("test_")
        if (path.parent.name, name) in {("metrics", "law"), ("metrics", "foreign_clu")}:
            continue  # of all metrics, and of one of the libraries
        folders = (ROOT / f"{prefix}{path.parent.name}" for prefix in ("", "_"))
        assert any((f / f"{p}{name}.py").exists() for f in folders for p in ("", "_")), path


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
    heavy |= {"tensorboardX", "wandb", "PIL"}
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
