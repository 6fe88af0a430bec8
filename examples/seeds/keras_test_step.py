"""Keras's guide: a custom `test_step`. `evaluate` gives the loss and the mae."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

import eqxtrain as et


class CustomLearner(et.Learner[eqx.nn.Linear]):
    def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        # Compute predictions and loss.
        y_pred, state = self.pred_step(model=model, state=state, x=x)
        loss, logs = self.measure(y_pred=y_pred, y_true=y_true)

        # Return metric logs and updated state variables.
        return loss, logs, state


# Construct an instance of CustomLearner
learner = CustomLearner(
    eqx.nn.Linear(32, 1, key=jr.key(0)),
    None,
    loss=optax.squared_error,
    metrics={"mae": et.metrics.MeanAbsoluteError()},
)

# Evaluate with our custom test_step
rng = np.random.default_rng(0)
x = rng.random((1000, 32), dtype=np.float32)
y = rng.random((1000, 1), dtype=np.float32)
print(learner.evaluate(x, y))
