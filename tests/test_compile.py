"""The room that compiles: programs, their cache and their records."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data, learner

import eqxtrain as et
from eqxtrain import _compile


def test_what_is_traced_once_runs_once_for_shapes_and_for_a_program() -> None:
    runs: list[int] = []

    def double(x: Any, name: str) -> dict[str, Any]:
        runs.append(1)
        return {name: 2 * x, "static": len(name)}

    once = _compile.TracedOnce(double)
    x = jnp.arange(3.0)
    shapes, jaxpr = once.trace(x, "a")
    assert shapes["a"].shape == (3,) and len(jaxpr.eqns) == 1
    out = jax.jit(lambda x: once(x, "a")["a"])(x)
    assert np.array_equal(np.asarray(out), [0, 2, 4]) and runs == [1]
    assert once.trace(x, "bc")[0]["static"] == 2 and len(runs) == 2


def test_a_program_takes_and_gives_lists_of_arrays() -> None:
    def fn(kept: Any, carry: Any) -> tuple[Any, ...]:
        return {"x": carry["x"] + kept, "tag": carry["tag"]}, (jnp.sum(carry["x"]),)

    carry = {"x": jnp.ones(3), "tag": "a"}
    for jit in (eqx.filter_jit, jax.jit, lambda fn: fn):
        program = _compile.Program(fn, (jnp.ones(3), carry), jit=jit)
        new, total = program([jnp.ones(3)], [jnp.ones(3)])
        assert np.array_equal(np.asarray(new[0]), [2, 2, 2]) and float(total[0]) == 3
        assert program.out[0].merge(new)["tag"] == "a"


def test_what_filter_jit_compiles_is_called_without_its_wrapper() -> None:
    fn = lambda kept, carry, metrics: (carry + kept, metrics * 2, kept)
    args = (jnp.ones(3), jnp.ones(3), jnp.ones(()))
    wrapped = _compile.Program(
        fn, args, jit=lambda fn: eqx.filter_jit(fn, donate="all-except-first")
    )
    assert wrapped.executable is not None
    found = _compile._unwrapped(wrapped.executable, [[a] for a in args])
    assert found is not None  # or a new Equinox hands its arguments on in another way
    donated = jnp.ones(3)
    out = found([jnp.ones(3)], [donated], [jnp.ones(())])
    assert [np.asarray(leaves[0]).tolist() for leaves in out] == [[2, 2, 2], 2, [1, 1, 1]]
    assert donated.is_deleted()


def test_a_compiled_function_of_another_kind_is_called_as_it_is() -> None:
    fn = lambda kept, carry: (carry + kept,)
    program = _compile.Program(fn, (jnp.ones(3), jnp.ones(3)), jit=jax.jit)
    assert program.executable is not None
    assert _compile._unwrapped(program.executable, [[jnp.ones(3)]] * 2) is None
    assert np.asarray(program([jnp.ones(3)], [jnp.ones(3)])[0][0]).tolist() == [2, 2, 2]


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


def test_programs_hold_no_arrays_of_the_learner() -> None:
    import gc
    import weakref

    made = learner().init()
    made.fit(*data(), verbose=0)
    kernel = weakref.ref(made.model.weight)
    del made
    gc.collect()
    assert kernel() is None


def test_the_cache_is_bounded_and_drops_what_was_used_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_compile, "_CACHE_SIZE", 2)
    _compile._programs.clear()
    built: list[str] = []
    for key in "abacab":
        _compile.cached(key, lambda key=key: built.append(key))
    assert built == ["a", "b", "c", "b"]


def test_clear_caches_forgets_every_program() -> None:
    x, y = data()
    made = learner()
    made.fit(x, y, verbose=0)
    et.clear_caches()
    _, history = made.fit(x, y, verbose=0)
    assert [c.step for c in history.timing.compilations] == ["train_step"]


def test_settings_of_jax_are_part_of_a_key() -> None:
    before = _compile.key_of(jnp.ones(2))
    with jax.default_matmul_precision("float32"):
        assert _compile.key_of(jnp.ones(2)) != before
    assert _compile.key_of(jnp.ones(2)) == before != _compile.key_of(jnp.ones(3))
