"""The models and the data that the benchmarks of the loop train."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray


class CNN(eqx.Module):
    """Two convolutions on images `(1, 28, 28)`."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b, c = jr.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 16, 3, stride=2, padding=1, key=a)
        self.second = eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=b)
        self.out = eqx.nn.Linear(32 * 7 * 7, 10, key=c)

    def __call__(self, x: Array) -> Array:
        x = jax.nn.relu(self.second(jax.nn.relu(self.first(x))))
        return self.out(x.reshape(-1))


class Block(eqx.Module):
    """Attention and an MLP, each behind its norm."""

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, width: int, key: PRNGKeyArray) -> None:
        a, b = jr.split(key)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.attention = eqx.nn.MultiheadAttention(4, width, key=a)
        self.mlp = eqx.nn.MLP(width, width, 4 * width, 1, activation=jax.nn.gelu, key=b)

    def __call__(self, x: Array) -> Array:
        h = jax.vmap(self.norms[0])(x)
        causal = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(h, h, h, mask=causal)
        return x + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x))


class GPT(eqx.Module):
    """Two blocks of width 128 over 64 tokens."""

    tokens: eqx.nn.Embedding
    positions: Array
    blocks: tuple[Block, Block]
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b, c, d, e = jr.split(key, 5)
        self.tokens = eqx.nn.Embedding(64, 128, key=a)
        self.positions = 0.02 * jr.normal(b, (64, 128))
        self.blocks = (Block(128, c), Block(128, d))
        self.out = eqx.nn.Linear(128, 64, key=e)

    def __call__(self, x: Array) -> Array:
        h = jax.vmap(self.tokens)(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return jax.vmap(self.out)(h)


class Deep(eqx.Module):
    """300 layers, 600 arrays."""

    layers: list[eqx.nn.Linear]
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, layers: int = 299) -> None:
        keys = jr.split(key, layers + 1)
        self.layers = [eqx.nn.Linear(16, 16, key=k) for k in keys[:-1]]
        self.out = eqx.nn.Linear(16, 10, key=keys[-1])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = x + 0.1 * jnp.tanh(layer(x))
        return self.out(x)


@dataclasses.dataclass
class Workload:
    """What is trained: a model, data, and the size of a batch."""

    name: str
    model: Any
    x: np.ndarray
    y: np.ndarray
    batch: int
    keras: Callable[[Any], Any] | None

    @property
    def steps(self) -> int:
        """How many whole batches an epoch has."""
        return len(self.x) // self.batch


def _classes(n: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, *shape)).astype(np.float32), rng.integers(0, 10, n).astype(np.int32)


def tiny() -> Workload:
    model = eqx.nn.MLP(32, 10, 32, 1, key=jr.key(0))
    return Workload("tiny", model, *_classes(32_000, 32), 32, lambda k: _dense(k, 32, 32))


def ragged() -> Workload:
    """The tiny model on so few rows that a short last batch weighs."""
    model = eqx.nn.MLP(32, 10, 32, 1, key=jr.key(0))
    return Workload("ragged", model, *_classes(1_292, 32), 32, lambda k: _dense(k, 32, 32))


def mlp() -> Workload:
    model = eqx.nn.MLP(784, 10, 128, 1, key=jr.key(0))
    return Workload("MLP", model, *_classes(12_800, 784), 64, lambda k: _dense(k, 784, 128))


def cnn() -> Workload:
    return Workload("CNN", CNN(jr.key(0)), *_classes(6_400, 1, 28, 28), 64, _keras_cnn)


def gpt() -> Workload:
    tokens = np.random.default_rng(0).integers(0, 64, (640, 65)).astype(np.int32)
    return Workload("GPT", GPT(jr.key(0)), tokens[:, :-1], tokens[:, 1:], 16, _keras_gpt)


def deep() -> Workload:
    return Workload("deep", Deep(jr.key(0)), *_classes(3_200, 16), 32, _keras_deep)


WORKLOADS = {"tiny": tiny, "ragged": ragged, "mlp": mlp, "cnn": cnn, "gpt": gpt, "deep": deep}


def _dense(keras: Any, inputs: int, width: int) -> Any:
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((inputs,)), dense(width, activation="relu"), dense(10)])


def _keras_cnn(keras: Any) -> Any:
    conv = lambda filters: keras.layers.Conv2D(
        filters, 3, strides=2, padding="same", activation="relu", data_format="channels_first"
    )
    layers = [keras.Input((1, 28, 28)), conv(16), conv(32), keras.layers.Flatten()]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


def _keras_gpt(keras: Any) -> Any:
    layers = keras.layers
    x = inputs = keras.Input((64,), dtype="int32")
    positions = layers.Embedding(64, 128)(keras.ops.arange(64))
    x = layers.Embedding(64, 128)(x) + positions
    for _ in range(2):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 32)(h, h, use_causal_mask=True)
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(128)(layers.Dense(512, activation="gelu")(h))
    return keras.Model(inputs, layers.Dense(64)(x))


def _keras_deep(keras: Any) -> Any:
    layers = keras.layers
    x = inputs = keras.Input((16,))
    for _ in range(299):
        x = x + 0.1 * layers.Dense(16, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(10)(x))
