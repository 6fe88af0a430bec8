"""Keras's guide: a custom `train_step` under `fit`'s comforts."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

import eqxtrain as et


class CustomLearner(et.Learner[eqx.nn.Linear]):
    def train_step(
        self, model: Any, state: Any, x: Array, y_true: Array, sample_weight: Any, key: Array
    ) -> Any:
        # Compute the gradients. The loss, the metrics and the model's own state come along.
        loss, logs, state, grads = self.grad_step(
            model=model, state=state, x=x, y_true=y_true, sample_weight=sample_weight, key=key
        )

        # Update trainable variables and optimizer variables.
        _, model, state = self.apply_gradients(model=model, state=state, grads=grads, loss=loss)

        # Return metric logs and updated state variables. The engine averages the logs.
        return logs, model, state


# Construct an instance of CustomLearner
learner = CustomLearner(
    eqx.nn.Linear(32, 1, key=jr.key(0)),
    optax.adam(1e-3),
    loss=optax.squared_error,
    metrics={"mae": et.metrics.MeanAbsoluteError()},
)

# Just use `fit` as usual
rng = np.random.default_rng(0)
x = rng.random((1000, 32), dtype=np.float32)
y = rng.random((1000, 1), dtype=np.float32)
learner, history = learner.fit(x, y, epochs=3, verbose=2)
