"""Tiny data, models and learners that the tests share."""

import functools
import importlib
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

import eqxtrain as et
from eqxtrain._engine import cache as _cache, compile_log
from eqxtrain.callbacks._base import HOOKS

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels

FEATURES, CLASSES = 4, 3


def data(n: int = 21, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `(n, 4)` and labels `(n,)` that a linear model can tell apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n).astype(np.int32)
    x = rng.normal(size=(n, FEATURES)) + 2 * np.eye(CLASSES, FEATURES)[y]
    return x.astype(np.float32), y


def linear(seed: int = 0) -> eqx.nn.Linear:
    """A linear classifier."""
    return eqx.nn.Linear(FEATURES, CLASSES, key=jr.key(seed))


class Dropped(eqx.Module):
    """A classifier with dropout, which asks for a key."""

    hidden: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b = jr.split(key)
        self.hidden = eqx.nn.Linear(FEATURES, 8, key=a)
        self.dropout = eqx.nn.Dropout(0.5)
        self.out = eqx.nn.Linear(8, CLASSES, key=b)

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None) -> Array:
        return self.out(self.dropout(jax.nn.relu(self.hidden(x)), key=key))


class Normed(eqx.Module):
    """A classifier with batch normalisation, which has a state."""

    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b = jr.split(key)
        self.hidden = eqx.nn.Linear(FEATURES, 8, key=a)
        self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")
        self.out = eqx.nn.Linear(8, CLASSES, key=b)

    def __call__(self, x: Array, state: eqx.nn.State) -> tuple[Array, eqx.nn.State]:
        with jax.numpy_dtype_promotion("standard"):  # Equinox's own needs it
            h, state = self.norm(self.hidden(x), state)
        return self.out(jax.nn.relu(h)), state


def learner(model: Any = None, optimizer: Any = None, **fields: Any) -> et.Learner[Any]:
    """A classifier ready to fit."""
    fields = {"loss": CROSS_ENTROPY, "metrics": {"accuracy": et.metrics.Accuracy()}} | fields
    return et.Learner(model or linear(), optimizer or optax.adam(1e-2), **fields)


def normed(seed: int = 0, **fields: Any) -> et.Learner[Any]:
    """A learner with batch normalisation."""
    model, state = eqx.nn.make_with_state(Normed)(jr.key(seed))
    return learner(model, model_state=state, **fields)


def arrays(tree: Any) -> list[np.ndarray]:
    """The arrays of a tree, on the host."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def same(a: Any, b: Any) -> bool:
    """Whether two trees have the same arrays, bit for bit: what the same programs give."""
    left, right = arrays(a), arrays(b)
    return len(left) == len(right) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(left, right, strict=True)
    )


def library(name: str) -> Any:
    """A library to compare with, imported only when a test wants it: some take seconds.

    `[test]` has them all, so one that is missing fails; only what needs torch is skipped without
    it (`pytest.importorskip`). What they warn of while they are imported is their own affair.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def forget_programs() -> None:
    """Forget the programs of steps, as `et.clear_caches` does, but keep what JAX has compiled."""
    _cache.step_cache.clear()
    compile_log.clear()


def close(a: Any, b: Any, *, rtol: float, atol: float = 0.0) -> bool:
    """Whether two trees have the same arrays to a tolerance: what different programs give.

    XLA orders and fuses the same sums in another way in another program, and so rounds them
    differently, on some processors and not on others. Arrays of no floats are the same.
    """
    left, right = arrays(a), arrays(b)
    return len(left) == len(right) and all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and (
            np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
            if x.dtype.kind == "f"
            else x.tobytes() == y.tobytes()
        )
        for x, y in zip(left, right, strict=True)
    )


class Quadratic(eqx.Module):
    """A model that is one vector, for tests of updates by hand."""

    w: Array

    def __init__(self, size: int = 3) -> None:
        self.w = jnp.zeros(size)

    def __call__(self, x: Array) -> Array:
        return jnp.dot(self.w, x)


def in_batches(metric: Any, *arrays: Any, weight: Any = None, sizes: Any = (1,)) -> Any:
    """A metric that has seen `y_pred`, `y_true` and maybe a mask, in two batches of unequal size.

    Each length of a batch compiles all that a metric does: that more of them change nothing is
    tested once, of every metric, in `test_law.py`.
    """
    metric = metric if weight is None else et.metrics.Weighted(metric)
    names = ("y_pred", "y_true", "mask")[: len(arrays)]
    data = {"mask": None, "sample_weight": weight, **dict(zip(names, arrays, strict=True))}
    takes = {"y_pred", "y_true", "mask"} | ({"sample_weight"} if weight is not None else set())
    rows = np.split(np.arange(len(arrays[0])), sizes)
    batches = [
        {n: None if v is None else v[index] for n, v in data.items() if n in takes}
        for index in rows
    ]
    parts = [metric.reset().update(**batch) for batch in batches]
    return functools.reduce(lambda a, b: a.merge(b), parts)


class Tape(et.Callback):
    """Records every hook."""

    def __init__(self) -> None:
        self.hooks: list[str] = []


for _hook in HOOKS:
    setattr(Tape, _hook, lambda self, run, hook=_hook: self.hooks.append(hook))


def counting(**fields: Any) -> tuple[et.Learner[Any], list[tuple[bool, int]]]:
    """A learner that notes each trace of its `test_step`: training or not, and the batch's rows."""
    traces: list[tuple[bool, int]] = []

    class Counts(et.Learner[Any]):
        def test_step(self, x: Array, training: bool, **rest: Any) -> Any:
            traces.append((training, len(x)))
            return super().test_step(x=x, training=training, **rest)

    fields = {"loss": CROSS_ENTROPY, "metrics": et.metrics.Accuracy()} | fields
    return Counts(Dropped(jr.key(0)), optax.adam(1e-2), **fields), traces
