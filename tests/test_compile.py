"""The room that compiles: programs, their cache and their records."""

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
