"""Ahead-of-time programs: traced once, compiled in threads, called on lists of arrays."""

import threading
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, linear

import eqxtrain as et
from eqxtrain._engine import compile as _compile


def test_what_is_traced_once_runs_once_for_shapes_and_for_programs() -> None:
    runs: list[int] = []

    def double(x: Any, name: str) -> tuple[Any]:
        runs.append(1)
        return ({name: 2 * x, "static": len(name)},)

    traced = _compile.TracedFunction(lambda x: double(x, "a"), jnp.arange(3.0))
    assert traced.shapes[0]["a"].shape == (3,) and traced.used() == [True]
    for times in (1, 2):
        (out,) = jax.jit(lambda x, times=times: traced([times * x])[0])(jnp.arange(3.0))
        assert traced.out[0].merge([out])["static"] == 1
        assert np.array_equal(np.asarray(out), [0, 2 * times, 4 * times])
    assert runs == [1]


def test_a_program_takes_and_gives_lists_of_arrays() -> None:
    def fn(kept: Any, carry: Any) -> tuple[Any, ...]:
        return [carry[0] + kept[0]], [jnp.sum(carry[0])]

    for jit in (None, eqx.filter_jit, jax.jit, lambda fn: fn):
        program = _compile.Program(fn, ([jnp.ones(3)], [jnp.ones(3)]), jit=jit)
        donated = jnp.ones(3)
        new, total = program([jnp.ones(3)], [donated])
        assert np.array_equal(np.asarray(new[0]), [2, 2, 2]) and float(total[0]) == 3
        assert donated.is_deleted() == (jit is None)
        assert (program.wait_for_executable() is None) == (jit is not None and jit(fn) is fn)


def test_what_goes_wrong_in_the_compiler_is_raised_where_it_is_waited_for() -> None:
    class Refused:
        def lower(self, *args: Any) -> Any:
            return self

        def compile(self) -> Any:
            raise RuntimeError("out of registers")

    refuses: Any = lambda fn: Refused()
    program = _compile.Program(lambda a: (a,), ([jnp.ones(3)],), jit=refuses)
    for _ in range(2):  # it is tried again, and raises an exception of its own
        with pytest.raises(RuntimeError, match="out of registers"):
            program([jnp.ones(3)])


@pytest.mark.slow
def test_learners_may_be_trained_in_several_threads() -> None:
    forget_programs()
    x, y = data(20)
    losses: list[float] = []

    def train(factor: float) -> None:
        loss = lambda p, t: factor * CROSS_ENTROPY(p, t)
        made = et.Learner(linear(), optax.sgd(0.1), loss=loss)
        losses.append(made.fit(x, y, batch_size=8, verbose=0).history["loss"][0] / factor)

    threads = [threading.Thread(target=train, args=(2.0 ** (i // 2),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(losses) == 4
