"""Keras's guide, lower-level: no loss and no metrics are configured, the step has its own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

import eqxtrain as et


class CustomLearner(et.Learner[eqx.nn.Linear]):
    def compute_loss(self, model: Any, x: Array, y: Array) -> tuple[Array, Array]:
        y_pred = jax.vmap(model)(x)
        return jnp.mean((y_pred - y) ** 2), y_pred

    def train_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        # Compute the gradients.
        grad_fn = eqx.filter_value_and_grad(self.compute_loss, has_aux=True)
        (loss, y_pred), grads = grad_fn(model, x, y_true)

        # Update trainable variables and optimizer variables.
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        model = eqx.apply_updates(model, updates)

        # Update metrics: a scalar is the mean of its batch; nothing needs to be reset.
        logs = {"loss": loss, "mae": jnp.mean(jnp.abs(y_pred - y_true))}
        return logs, model, state.update(opt_state=opt_state)


# We don't pass a loss or metrics here.
learner = CustomLearner(eqx.nn.Linear(32, 1, key=jr.key(0)), optax.adam(1e-3))

# Just use `fit` as usual -- you can use callbacks, etc.
rng = np.random.default_rng(0)
x = rng.random((1000, 32), dtype=np.float32)
y = rng.random((1000, 1), dtype=np.float32)
learner, history = learner.fit(x, y, epochs=5, verbose=2)
