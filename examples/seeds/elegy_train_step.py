"""A `train_step` with its own optax calls."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array
from sklearn.datasets import load_digits

import eqxtrain as et


class LinearClassifier(et.Learner[eqx.nn.Linear]):
    def train_step(self, model: Any, state: Any, x: Array, y_true: Array, key: Array) -> Any:
        _, logs, state, grads = self.grad_step(
            model=model, state=state, x=x, y_true=y_true, key=key
        )
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, params)
        model = eqx.apply_updates(model, updates)

        logs["update_norm"] = optax.tree.norm(updates)
        return logs, model, state.update(opt_state=opt_state)


images, labels = load_digits(return_X_y=True)
X_train, y_train = (images / 16).astype(np.float32), labels.astype(np.int32)

learner = LinearClassifier(
    eqx.nn.Linear(64, 10, key=jr.key(42)),
    optax.adam(1e-2),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics=et.metrics.Accuracy(),
)
learner, history = learner.fit(
    X_train, y_train, epochs=10, batch_size=64, validation_split=0.1, verbose=2
)
print(learner.evaluate(X_train, y_train))
