"""A model whose size comes from the first batch: what Elegy does with `initializing`."""

from typing import Any

import equinox as eqx
import numpy as np
import optax
from jaxtyping import Array
from sklearn.datasets import load_digits

import eqxtrain as et


class LazyClassifier(et.Learner[Any]):
    width: int = 64

    def init_step(self, x: Array, y_true: Array, key: Array) -> Any:
        classes = int(y_true.max()) + 1
        model = eqx.nn.MLP(x.shape[-1], classes, self.width, depth=1, key=key)
        return model, self.states_step(model=model, key=key)


images, labels = load_digits(return_X_y=True)
X_train, y_train = (images / 16).astype(np.float32), labels.astype(np.int32)

learner = LazyClassifier(
    None,
    optax.adam(1e-3),
    loss=optax.softmax_cross_entropy_with_integer_labels,
    metrics=et.metrics.Accuracy(),
)
learner = learner.init(X_train, y_train)
print(learner.summary(X_train[:64]))
learner, history = learner.fit(X_train, y_train, epochs=10, batch_size=64, verbose=2)
print(learner.evaluate(X_train, y_train))
