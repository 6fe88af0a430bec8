"""What a trace does, however it was written, and which inputs it uses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqxtrain._engine import compile as _compile


def test_traces_that_do_the_same_have_one_form() -> None:
    def form(fn: Any, used: Any = None, size: int = 3) -> Any:
        traced = _compile.TracedFunction(lambda *args: (fn(*args),), jnp.ones(size), jnp.ones(2))
        return traced.form(used)

    constant = np.arange(3, dtype=np.float32)
    same = [lambda x, y: jnp.sin(x) * 2.0, lambda a, b: (a + 1, jnp.sin(a) * 2.0)[1]]
    assert form(same[0]) == form(same[1]) and hash(form(same[0])) == hash(form(same[1]))
    assert form(lambda x, y: x + constant) == form(lambda x, y: x + constant.copy())
    others = [
        lambda x, y: jnp.cos(x) * 2.0,
        lambda x, y: jnp.sin(x) * 3.0,
        lambda x, y: jnp.sin(x) * 2.0 + y[0],
        lambda x, y: x + constant,
        lambda x, y: x + 2 * constant,
        lambda x, y: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
        lambda x, y: jax.lax.cond(x[0] > 0, jnp.cos, jnp.sin, x),
        lambda x, y: jax.nn.relu(x),
        lambda x, y: jax.nn.softplus(x),
    ]
    forms = [form(fn) for fn in (same[0], *others)]
    assert len(set(forms)) == len(forms)
    assert form(same[0], [True, False]) != form(same[0])
    assert form(same[0], size=4) != form(same[0])


def test_only_inputs_that_something_comes_of_are_used() -> None:
    fn = lambda a, b, c: ((jnp.sin(a), jnp.cos(c) * 2)[0], jax.debug.print("{}", b))[0]
    assert _compile.TracedFunction(lambda *args: (fn(*args),), *[jnp.ones(2)] * 3).used() == [
        True,
        True,
        False,
    ]
