"""Elegy's linear classifier by `pred_step`, with loss and metrics by the default `test_step`."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array
from sklearn.datasets import load_digits

import eqxtrain as et


class LinearClassifier(et.Learner[tuple[Array, Array]]):
    def pred_step(self, model: Any, state: Any, x: Array) -> Any:
        x = jnp.reshape(x, (x.shape[0], -1)) / 16
        w, b = model

        # model
        y_pred = jnp.dot(x, w) + b
        return y_pred, state


images, labels = load_digits(return_X_y=True)
X_train, y_train = images.astype(np.float32), labels.astype(np.int32)

wkey, bkey = jr.split(jr.key(42))
learner = LinearClassifier(
    (jr.uniform(wkey, shape=[64, 10]), jr.uniform(bkey, shape=[1])),
    optimizer=optax.adam(1e-2),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics=et.metrics.Accuracy(),
)
learner, history = learner.fit(X_train, y_train, epochs=20, batch_size=64, verbose=2)
print(learner.evaluate(X_train, y_train))
