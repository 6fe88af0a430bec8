"""Elegy's linear classifier, split into `pred_step` and `test_step`: now `predict` works too."""

from typing import Any

import jax
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
        logits = jnp.dot(x, w) + b
        return logits, state

    def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
        # call pred_step
        logits, state = self.pred_step(model=model, state=state, x=x)

        # categorical crossentropy loss
        labels = jax.nn.one_hot(y_true, 10)
        loss = jnp.mean(-jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))
        accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == y_true)

        # metrics
        logs = dict(accuracy=accuracy, loss=loss)
        return loss, logs, state


images, labels = load_digits(return_X_y=True)
X_train, y_train = images.astype(np.float32), labels.astype(np.int32)

wkey, bkey = jr.split(jr.key(42))
parameters = jr.uniform(wkey, shape=[64, 10]), jr.uniform(bkey, shape=[1])

learner = LinearClassifier(parameters, optax.adam(1e-2))
learner, history = learner.fit(X_train, y_train, epochs=20, batch_size=64, verbose=2)
print(learner.evaluate(X_train, y_train))
print("predicted", learner.predict(X_train[:10]).argmax(-1), "true", y_train[:10])
