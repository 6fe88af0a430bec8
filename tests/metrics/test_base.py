"""What every metric is made with. That no split changes one is in `test_law.py`."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import eqxtrain as et
from eqxtrain.metrics import Metric
from eqxtrain.metrics._base import check_same_shape, num_examples


def test_the_number_of_examples_is_that_of_the_first_axis() -> None:
    assert num_examples({"x": {"a": np.ones((3, 2))}, "y_pred": np.ones((5, 1))}) == 3
    assert num_examples({"x": None, "y_pred": (np.ones(5),)}) == 5
    with pytest.raises(TypeError, match="number of examples is unknown"):
        num_examples({"model": np.ones(3)})


def test_shapes_that_would_broadcast_are_refused() -> None:
    check_same_shape("It", np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"`It` compares .*\(2, 1\) and `y_true` has shape \(2,\)"):
        check_same_shape("It", np.ones((2, 1)), np.ones(2))


class Nested(Metric):
    """A metric whose value is a dict of dicts."""

    mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    def update(self, y_pred: Any) -> Any:
        return self.replace(mean=self.mean.update(y_pred))

    def compute(self) -> Any:
        mean = self.mean.compute()
        return {"a": {"b": mean, "c": 2 * mean}, "d": 3 * mean}


def test_a_dict_of_values_is_logged_by_the_path_of_each() -> None:
    results = Nested().update(jnp.ones(2)).results("n")
    assert results == {"n/a/b": 1, "n/a/c": 2, "n/d": 3}


def test_what_a_metric_lacks_is_named() -> None:
    class Unfinished(Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    with pytest.raises(NotImplementedError, match="`Unfinished` does not define `update`"):
        Unfinished().update(y_pred=jnp.zeros(3))
    with pytest.raises(NotImplementedError, match="`Unfinished` does not define `compute`"):
        Unfinished().compute()
