"""Regularizers: which arrays they count, and what they add to the loss."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear
from jaxtyping import Array

import eqxtrain as et
from eqxtrain._losses.regularize import penalized_weights


class Mixed(eqx.Module):
    """Something of everything."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    cell: eqx.nn.GRUCell
    embedding: eqx.nn.Embedding
    layers: list[eqx.nn.Linear]
    scale: Array
    table: np.ndarray
    activation: Any = jax.nn.relu


def mixed() -> Mixed:
    a, b, c, d, e = jr.split(jr.key(0), 5)
    return Mixed(
        eqx.nn.Conv2d(1, 2, 3, key=a),
        eqx.nn.LayerNorm((2, 2)),
        eqx.nn.GRUCell(2, 3, key=b),
        eqx.nn.Embedding(4, 2, key=c),
        [eqx.nn.Linear(2, 3, key=d), eqx.nn.Linear(3, 1, key=e)],
        jnp.ones(5),
        np.ones((2, 2), np.int32),
    )


@pytest.mark.slow
def test_weights_are_what_is_no_bias_no_norm_and_no_vector() -> None:
    model = mixed()
    expected = [
        model.conv.weight,
        model.cell.weight_ih,
        model.cell.weight_hh,
        model.embedding.weight,
        *(layer.weight for layer in model.layers),
    ]
    found = penalized_weights(model)
    assert len(found) == len(expected)
    assert all(a is b for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "power"), [(et.L1, 1), (et.L2, 2)])
def test_the_penalty_is_the_sum_over_weights(make: Any, power: int) -> None:
    model = mixed()
    sums = [(np.abs(np.asarray(w, float)) ** power).sum() for w in penalized_weights(model)]
    np.testing.assert_allclose(make(0.1).fn(model), sum(sums), rtol=1e-5)
    chosen = make(0.1, where=lambda model: (model.scale, model.layers[1]))
    leaves = (model.scale, model.layers[1].weight, model.layers[1].bias)
    sums = [(np.abs(np.asarray(w, float)) ** power).sum() for w in leaves]
    np.testing.assert_allclose(chosen.fn(model), sum(sums), rtol=1e-5)


@pytest.mark.slow
def test_a_penalty_is_added_to_the_loss_and_logged_without_its_factor() -> None:
    x, y = data()
    plain = learner().evaluate(x, y)
    model = linear()
    result = learner(loss=[CROSS_ENTROPY, et.L2(0.1), et.L1(0.01)]).evaluate(x, y, batch_size=4)
    square, absolute = float((model.weight**2).sum()), float(abs(model.weight).sum())
    assert result["l2"] == pytest.approx(square) and result["l1"] == pytest.approx(absolute)
    assert result["loss"] == pytest.approx(plain["loss"] + 0.1 * square + 0.01 * absolute)


@pytest.mark.slow
def test_its_gradient_is_weight_decay() -> None:
    x, y = data()
    zero = lambda y_pred: 0 * y_pred[:, 0]
    one_step = learner(optimizer=optax.sgd(1.0), loss=[zero, et.L2(0.1)])
    trained, _ = one_step.fit(x, y, batch_size=len(x), verbose=0)
    np.testing.assert_allclose(trained.model.weight, 0.8 * linear().weight, rtol=1e-5)
    np.testing.assert_array_equal(trained.model.bias, linear().bias)


@pytest.mark.slow
def test_weights_and_classes_do_not_touch_a_penalty() -> None:
    x, y = data()
    losses = {"data": CROSS_ENTROPY, "decay": et.L2(0.1)}
    given = {"sample_weight": np.zeros(len(x), np.float32), "class_weight": {0: 3.0}}
    result = learner(loss=losses).evaluate(x, y, **given)
    assert result["loss"] == pytest.approx(0.1 * result["decay"])


def test_a_model_without_weights_is_told_how_to_choose_them() -> None:
    with pytest.raises(ValueError, match=r"`L2` found no weights in a `LayerNorm`.*where=lambda"):
        et.L2(0.1).fn(eqx.nn.LayerNorm(3))
