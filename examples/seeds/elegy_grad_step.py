"""A `grad_step` that clips by global norm, and logs the norm that it found."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from sklearn.datasets import load_digits

import eqxtrain as et


class Clipped(et.Learner[eqx.nn.MLP]):
    max_norm: float = 1.0

    def grad_step(self, **available: Any) -> Any:
        loss, logs, state, grads = super().grad_step(**available)
        norm = optax.tree.norm(grads)
        scale = jnp.minimum(1.0, self.max_norm / norm)
        grads = jax.tree.map(lambda g: g * scale, grads)
        return loss, {**logs, "grad_norm": et.metrics.Max.of(norm)}, state, grads


images, labels = load_digits(return_X_y=True)
X_train, y_train = images.astype(np.float32), labels.astype(np.int32)

learner = Clipped(
    eqx.nn.MLP(64, 10, 64, depth=1, key=jr.key(42)),
    optax.sgd(0.05),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics=et.metrics.Accuracy(),
    max_norm=0.5,
)
learner, history = learner.fit(X_train, y_train, epochs=10, batch_size=64, verbose=2)
print(learner.evaluate(X_train, y_train))
