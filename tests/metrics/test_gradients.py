"""The norms of gradients and updates, next to NumPy's of those that JAX and optax give by hand."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, arrays, data, learner

import eqxtrain as et
from eqxtrain.metrics import GradientNorm, Last, Max, Mean, Modes, Std, UpdateNorm

BATCH = 8


class Nested(eqx.Module):
    """Layers in a list and a dict, one of them shared out by attribute, and a bare array."""

    layers: list[eqx.nn.Linear]
    heads: dict[str, eqx.nn.Linear]
    scale: jax.Array

    def __init__(self) -> None:
        a, b, c = jr.split(jr.key(0), 3)
        self.layers = [eqx.nn.Linear(4, 5, key=a), eqx.nn.Linear(5, 5, key=b)]
        self.heads = {"out": eqx.nn.Linear(5, 3, key=c)}
        self.scale = jnp.ones(3)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.scale * self.heads["out"](x)


def norm(*parts: Any) -> float:
    """NumPy's, of all the arrays together."""
    flat = [np.abs(a).astype(float).ravel() for part in parts for a in arrays(part)]
    return float(np.linalg.norm(np.concatenate(flat)))


def by_hand(frozen: bool, epochs: int = 1) -> tuple[list[Nested], list[Nested]]:
    """The gradients and updates of each step, of a loop written out."""
    x, y = map(jnp.asarray, data(21))
    model, optimizer = Nested(), optax.sgd(0.1, momentum=0.9)
    spec = jax.tree.map(eqx.is_inexact_array, model)
    if frozen:
        spec = eqx.tree_at(
            lambda m: m.layers[0], spec, jax.tree.map(lambda _: False, model.layers[0])
        )
    params, rest = eqx.partition(model, spec)
    state, grads, updates = optimizer.init(params), [], []
    loss = lambda p, x, y: CROSS_ENTROPY(jax.vmap(eqx.combine(p, rest))(x), y).mean()
    grad = eqx.filter_jit(eqx.filter_grad(loss))
    for _ in range(epochs):
        for start in range(0, 21, BATCH):
            rows = slice(start, start + BATCH)
            grads.append(grad(params, x[rows], y[rows]))
            with jax.numpy_dtype_promotion("standard"):
                update, state = optimizer.update(grads[-1], state, params)
            updates.append(update)
            params = eqx.apply_updates(params, update)
    return grads, updates


LAYERS = {
    "layers[0]": lambda m: m.layers[0],
    "layers[1]": lambda m: m.layers[1],
    "heads['out']": lambda m: m.heads["out"],
    "model": lambda m: m.scale,
}


def fitted(metrics: Any, frozen: bool = False) -> Any:
    trainable = et.freeze(lambda m: m.layers[0]) if frozen else None
    made = learner(Nested(), optax.sgd(0.1, momentum=0.9), metrics=metrics, trainable=trainable)
    return made.fit(*data(21), batch_size=BATCH, shuffle=False, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "frozen"])
def test_norms_in_a_fit_are_those_of_a_loop_by_hand(frozen: bool) -> None:
    both = Modes(Mean(), Std(over="steps"))
    metrics = [
        GradientNorm(),
        UpdateNorm(),
        {"deep": [GradientNorm(per_layer=True, mode=both), UpdateNorm(per_layer=True)]},
    ]
    _, history = fitted(metrics, frozen)
    grads, updates = by_hand(frozen)
    expected = {
        "gradient_norm": np.mean([norm(g) for g in grads]),
        "update_norm": np.mean([norm(u) for u in updates]),
    }
    for name, layer in LAYERS.items():
        if frozen and name == "layers[0]":
            continue
        norms = [norm(layer(g)) for g in grads]
        start = f"2/deep/gradient_norm/{name}"
        expected |= {f"{start}_mean": np.mean(norms), f"{start}_std": np.std(norms)}
        expected[f"2/deep/update_norm/{name}"] = np.mean([norm(layer(u)) for u in updates])
    measured = {name: values[0] for name, values in history.items() if "norm" in name}
    assert measured == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_each_epoch_begins_anew() -> None:
    metric = GradientNorm(mode=Modes(Mean(), Max(), Last()))
    made = learner(Nested(), optax.sgd(0.1, momentum=0.9), metrics=metric)
    _, history = made.fit(*data(21), batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    steps = [norm(g) for g in by_hand(frozen=False, epochs=2)[0]]
    for mode, numpy in {"mean": np.mean, "max": np.max, "last": lambda steps: steps[-1]}.items():
        expected = [numpy(steps[:3]), numpy(steps[3:])]
        np.testing.assert_allclose(history[f"gradient_norm_{mode}"], expected, rtol=1e-4)


@pytest.mark.slow
def test_one_step_on_one_batch_has_its_norms_too() -> None:
    made = learner(Nested(), optax.sgd(0.1), metrics=[GradientNorm(), UpdateNorm(per_layer=True)])
    x, y = data(21)
    made, logs = made.train_on_batch(x[:BATCH], y[:BATCH])
    assert made.test_on_batch(x[:BATCH], y[:BATCH]).keys() == {"loss"}
    grads = by_hand(frozen=False)[0][0]
    assert logs["gradient_norm"] == pytest.approx(norm(grads), rel=1e-4)
    assert logs["update_norm/layers[1]"] == pytest.approx(0.1 * norm(grads.layers[1]), rel=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
def test_norms_of_any_dtype_are_taken_in_float32(dtype: Any, rng: np.random.Generator) -> None:
    # 300 squared is beyond float16
    grads = [jnp.asarray(300 * rng.normal(size=20)).astype(dtype), None, jnp.arange(3)]
    if dtype == jnp.complex64:
        grads[0] = grads[0] * (1 + 1j)
    result = GradientNorm().update(grads=grads).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, norm(grads[0]), rtol=1e-5)


@pytest.mark.parametrize("kind", [GradientNorm, UpdateNorm])
def test_no_step_seen_is_nan_and_no_arrays_have_the_norm_0(kind: Any) -> None:
    assert jnp.isnan(kind().compute())
    assert jnp.isnan(kind(per_layer=True).compute())
    seen = kind(per_layer=True).update({"a": {"w": jnp.ones(4)}})
    assert jnp.isnan(seen.reset().compute()["['a']"])
    assert kind().update({"a": None}).compute() == 0
    assert kind(per_layer=True).update({"a": None}).results("n") == {}


def test_keys_with_dots_are_layers_of_their_own() -> None:
    grads = {"a.x": jnp.full(1, 3.0), "a.y": {"w": jnp.full(1, 4.0), "a.b": jnp.full(1, 0.0)}}
    layers = GradientNorm(per_layer=True).update(grads).results("n")
    assert layers == {"n/model": 3.0, "n/['a.y']": 4.0}


@pytest.mark.parametrize("fresh_first", [True, False])
def test_a_fresh_metric_adds_nothing_to_one_that_saw_layers(fresh_first: bool) -> None:
    fresh = GradientNorm(per_layer=True)
    seen = fresh.update({"a": {"w": jnp.ones(4)}})
    both = fresh.merge(seen) if fresh_first else seen.merge(fresh)
    assert both.compute() == {"['a']": 2.0}


def test_gradients_may_be_numpys() -> None:
    assert GradientNorm().update({"w": np.full(4, 1.5, np.float32)}).compute() == 3
