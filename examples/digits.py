"""Train a small network on scikit-learn's handwritten digits, save it, and load it back."""

import argparse
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import eqxtrain as et


class ConvNet(eqx.Module):
    """Two convolutions and a linear layer, for one image."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    pool: eqx.nn.MaxPool2d
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        a, b, c = jr.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 16, 3, padding=1, key=a)
        self.second = eqx.nn.Conv2d(16, 32, 3, padding=1, key=b)
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.dropout = eqx.nn.Dropout(0.25)
        self.out = eqx.nn.Linear(32 * 2 * 2, 10, key=c)

    def __call__(
        self, x: Float[Array, "1 8 8"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "10"]:
        x = self.pool(jax.nn.relu(self.first(x)))
        x = self.pool(jax.nn.relu(self.second(x)))
        return self.out(self.dropout(x.reshape(-1), key=key))


def build() -> et.Learner[ConvNet]:
    """The learner, the same one every time: files hold only its numbers."""
    return et.Learner(
        ConvNet(jr.key(0)),
        optax.adam(3e-3),
        loss=optax.softmax_cross_entropy_with_integer_labels,
        metrics={"accuracy": et.metrics.Accuracy()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=25, help="passes over the data (25)")
    parser.add_argument("--out", type=Path, help="where to save (a temporary folder)")
    options = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    y = labels.astype(np.int32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)

    learner = build()
    print(learner.summary(x[:64]), "\n")

    learner, history = learner.fit(
        x, y, epochs=options.epochs, batch_size=32, validation_split=0.1, verbose=1
    )
    print(f"\n{history}\n")

    result = learner.evaluate(x_test, y_test)
    print(f"On {len(x_test)} digits never seen: ", end="")
    print(", ".join(f"{name} {value:.4f}" for name, value in result.items()))

    with tempfile.TemporaryDirectory() as folder:
        path = options.out or Path(folder) / "digits.eqx"
        path.parent.mkdir(parents=True, exist_ok=True)
        eqx.tree_serialise_leaves(path, learner)
        loaded = eqx.tree_deserialise_leaves(path, build().init())
        equal = np.array_equal(loaded.predict(x_test), learner.predict(x_test))
        print(f"Saved to {path} ({path.stat().st_size:,} bytes) and loaded; ", end="")
        print("the predictions are equal." if equal else "the predictions DIFFER.")
        if not equal:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
