"""Elegy's linear classifier, by `test_step` alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array
from sklearn.datasets import load_digits

import eqxtrain as et


class LinearClassifier(et.Learner[Any]):
    def init_step(self, x: Array, key: Array) -> Any:
        # initialize parameters from the first batch
        wkey, bkey = jr.split(key)
        w = jr.uniform(wkey, shape=[math.prod(x.shape[1:]), 10])
        b = jr.uniform(bkey, shape=[1])
        return (w, b), self.states_step(model=(w, b), key=key)

    def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        x = jnp.reshape(x, (x.shape[0], -1)) / 16
        w, b = model

        # model
        logits = jnp.dot(x, w) + b

        # categorical crossentropy loss
        labels = jax.nn.one_hot(y_true, 10)
        loss = jnp.mean(-jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == y_true)

        # metrics
        logs = dict(accuracy=accuracy, loss=loss)
        return loss, logs, state


images, labels = load_digits(return_X_y=True)
X_train, y_train = images.astype(np.float32), labels.astype(np.int32)

learner = LinearClassifier(None, optax.adam(1e-2))
learner, history = learner.fit(X_train, y_train, epochs=20, batch_size=64, verbose=2)
print(learner.evaluate(X_train, y_train))
