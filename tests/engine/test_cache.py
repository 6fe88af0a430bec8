"""The caches of programs: what they hold, for how long, under which keys."""

import gc

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, learner, linear

import eqxtrain as et
from eqxtrain._engine import cache


@pytest.mark.slow
def test_no_executable_outlives_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    client = jax.devices()[0].client

    def live() -> int:
        gc.collect()
        return len(client.live_executables())

    def fit(factor: float) -> None:
        loss = lambda p, t: factor * CROSS_ENTROPY(p, t)
        et.Learner(linear(), optax.sgd(0.1), loss=loss).fit(*data(8), verbose=0)

    fit(1.0)  # what JAX compiles for its own ends stays
    forget_programs()
    before = live()
    monkeypatch.setattr(cache.step_cache, "max_size", 2)
    for i in range(6):
        fit(i + 2.0)
    assert before < live() <= before + 4
    monkeypatch.undo()
    forget_programs()
    assert live() == before
    fit(1.0)
    et.clear_caches()
    assert live() < before


def test_programs_hold_no_arrays_of_the_learner() -> None:
    import weakref

    made = learner().init()
    made.fit(*data(), verbose=0)
    kernel = weakref.ref(made.model.weight)
    del made
    gc.collect()
    assert kernel() is None


def test_the_cache_is_bounded_and_drops_what_was_used_least() -> None:
    lru, built = cache.LRUCache(2), list[str]()
    for key in "abacab":
        lru.get_or_build(key, lambda key=key: built.append(key))
    assert built == ["a", "b", "c", "b"]
    assert lru.lookup("c") is None
    lru.store("b", "new")
    assert lru.lookup("b") == "new"


@pytest.mark.slow
def test_clear_caches_forgets_every_program() -> None:
    x, y = data()
    made = learner()
    made.fit(x, y, verbose=0)
    et.clear_caches()
    _, history = made.fit(x, y, verbose=0)
    assert [c.step for c in history.timing.compilations] == ["train_step"]


def test_settings_of_jax_are_part_of_a_key() -> None:
    before = cache.trace_key([jnp.ones(2)])
    with jax.default_matmul_precision("float32"):
        assert cache.trace_key([jnp.ones(2)]) != before
    assert cache.trace_key([jnp.ones(2)]) == before != cache.trace_key([jnp.ones(3)])
