"""From values to one number: reductions, weights, and the law that they keep over a pass."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import library
from hypothesis import given, settings, strategies as st

import eqxtrain as et
from eqxtrain._losses import labels as _labels
from eqxtrain._losses.class_weight import class_weight_table
from eqxtrain._losses.loss import compute_losses
from eqxtrain.metrics import _logs

ROWS, TOKENS = 12, 2


def total(loss: Any, **available: Any) -> float:
    none = {"sample_weight": None, "class_weight": None, "mask": None}
    return float(compute_losses(loss, none | available)[0])


def by_loop(
    ell: np.ndarray, mask: np.ndarray, weight: np.ndarray, class_weight: np.ndarray
) -> float:
    """`Σ(m·w·c·ℓ) / Σm` in plain Python: all of shape `(examples, values)` but the mask."""
    top = bottom = 0.0
    for i in range(len(ell)):
        if mask[i]:
            row = [weight[i, j] * class_weight[i, j] * ell[i, j] for j in range(ell.shape[1])]
            top += sum(row) / len(row)
            bottom += 1
    return top / bottom


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("labels", ["sparse", "one-hot"])
@pytest.mark.parametrize("table", [{0: 0.5, 2: 3.0}, np.array([0.5, 1.0, 3.0])])
def test_the_reduction_is_that_of_a_plain_loop(
    rank: int, labels: str, table: Any, rng: np.random.Generator
) -> None:
    n, tokens = 7, 4
    logits = rng.normal(size=(n, tokens, 3)).astype(np.float32)
    classes = rng.integers(0, 3, (n, tokens)).astype(np.int32)
    mask = rng.random(n) < 0.6
    weight = rng.random((n, tokens) if rank == 2 else n).astype(np.float32)
    logits[~mask] = np.nan
    ell = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(classes))
    one_hot = labels == "one-hot"
    result = total(
        optax.softmax_cross_entropy if one_hot else optax.softmax_cross_entropy_with_integer_labels,
        y_pred=jnp.asarray(logits),
        y_true=jnp.asarray(np.eye(3, dtype=np.float32)[classes] if one_hot else classes),
        mask=mask,
        sample_weight=weight,
        class_weight=class_weight_table(table),
    )
    wide = np.broadcast_to(weight.reshape(n, -1), (n, tokens))
    oracle = by_loop(np.asarray(ell, float), mask, wide, np.array([0.5, 1.0, 3.0])[classes])
    np.testing.assert_allclose(result, oracle, rtol=1e-5)


def tokenwise(y_pred: Any, y_true: Any) -> Any:
    return jnp.square(y_pred - y_true)


LOSSES: dict[str, Any] = {
    "mean": tokenwise,
    "sum": et.Loss(tokenwise, reduction="sum"),
    "mean_with_sample_weight": et.Loss(tokenwise, reduction="mean_with_sample_weight"),
    "parts": lambda p, t: {"square": (p - t) ** 2, "sign": jnp.sign(p)},
    "mixture": {
        "data": [et.Loss(tokenwise, reduction="sum", weight=0.25), et.Loss(tokenwise, name="mean")],
        "shared": et.Loss(lambda y_pred: y_pred, reduction="mean_with_sample_weight", weight=2.0),
        "l2": et.Loss(lambda model: jnp.sum(model**2), weight=0.1),
    },
}


@eqx.filter_jit
def contribution(name: str, batch: Any) -> Any:
    available = {"sample_weight": None, "class_weight": None, "mask": None, **batch}
    available |= {"model": jnp.array([3.0, 4.0])}
    loss, logs = compute_losses(LOSSES[name], available)
    mask = available["mask"]
    real = len(batch["y_pred"]) if mask is None else jnp.sum(mask.astype(jnp.float32))
    return _logs.contributions({"loss": loss} | logs, real)


def oracle(name: str, ell: np.ndarray, weight: np.ndarray) -> float:
    """The three reductions in NumPy, of values `(examples, tokens)` and their weights."""
    each = np.broadcast_to(weight.reshape(len(weight), -1), ell.shape)
    sums = {"mean": ell.shape[1] * len(ell), "sum": 1.0, "mean_with_sample_weight": each.sum()}
    return float((each * ell).sum() / sums[name])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=5)
@given(seed=st.integers(0, 999), real=st.sampled_from([1, 7, ROWS]), size=st.sampled_from([3, 4]))
def test_no_split_of_the_data_changes_what_a_loss_comes_to(
    name: str, rank: int, seed: int, real: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.permutation(np.arange(ROWS) < real)
    y_pred, y_true = rng.normal(size=(2, ROWS, TOKENS)).astype(np.float32)
    data = {"y_pred": y_pred, "y_true": y_true}
    if rank:
        shape = (ROWS, TOKENS)[:rank]
        data["sample_weight"] = (rng.random(shape) + 0.01).astype(np.float32)
    for value in data.values():
        value[~mask] = np.nan
    whole = _logs.compute(contribution(name, {n: v[mask] for n, v in data.items()}))
    batches = [
        contribution(name, {n: v[i : i + size] for n, v in (data | {"mask": mask}).items()})
        for i in range(0, ROWS, size)
    ]
    merged = _logs.empty_accumulators(batches[0])
    for index in rng.permutation(len(batches)):
        merged = _logs.merge(merged, batches[index])
    split = _logs.compute(merged)
    assert split.keys() == whole.keys()
    for path in whole:
        np.testing.assert_allclose(split[path], whole[path], rtol=1e-5, atol=1e-6, err_msg=path)
    if name in ("mean", "sum", "mean_with_sample_weight"):
        weight = data["sample_weight"][mask] if rank else np.ones(real)
        ell = np.square(y_pred - y_true)[mask].astype(float)
        np.testing.assert_allclose(whole["loss"], oracle(name, ell, weight), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_the_epoch_loss_of_every_reduction_is_that_of_one_batch_in_a_real_pass(
    reduction: Any, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(10, 4)).astype(np.float32)
    y = rng.integers(0, 3, 10).astype(np.int32)
    weight = rng.random(10).astype(np.float32)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    model = eqx.nn.Linear(4, 3, key=jax.random.key(0))
    learner = et.Learner(model, None, loss=[et.Loss(cross_entropy, reduction=reduction)])
    ell = np.asarray(cross_entropy(jax.vmap(model)(jnp.asarray(x)), y), float)
    expected = (weight * ell).sum() / (weight.sum() if reduction != "sum" else 1)
    for batch_size in (4, 10):
        result = learner.evaluate(x, y, sample_weight=weight, batch_size=batch_size)
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("reduction", "keras_name"),
    [("mean", "sum_over_batch_size"), ("sum", "sum"), ("mean_with_sample_weight",) * 2],
)
def test_reductions_agree_with_those_of_keras(
    reduction: Any, keras_name: str, rng: np.random.Generator
) -> None:
    keras: Any = library("keras")
    y_pred, y_true = rng.normal(size=(2, 6, 1)).astype(np.float32)
    weight = rng.random(6).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.losses.MeanSquaredError(reduction=keras_name)(y_true, y_pred, weight)
    loss = et.Loss(tokenwise, reduction=reduction)
    ours = total(loss, y_pred=y_pred, y_true=y_true, sample_weight=weight)
    np.testing.assert_allclose(ours, float(theirs), rtol=1e-6)


def test_weights_of_zero_leave_out_values_that_are_nan_and_their_gradients() -> None:
    def loss(scale: Any) -> Any:
        values = lambda y_pred: scale + y_pred
        weight = jnp.array([1.0, 0.0])
        return compute_losses(
            values, {"y_pred": jnp.array([2.0, jnp.nan]), "sample_weight": weight}
        )[0]

    value, slope = jax.value_and_grad(loss)(3.0)
    assert (value, slope) == (2.5, 0.5)


def slopes(loss: Any, y_pred: Any, **available: Any) -> np.ndarray:
    return np.asarray(
        jax.grad(lambda p: compute_losses(loss, {"y_pred": p, **available})[0])(y_pred)
    )


of_optax = [
    (optax.softmax_cross_entropy, "mask"),
    (optax.kl_divergence, "sample_weight"),
    (optax.squared_error, "sample_weight"),
    (optax.huber_loss, "mask"),
    (optax.sigmoid_binary_cross_entropy, "sample_weight"),
    (optax.cosine_distance, "sample_weight"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "factor"), of_optax)
def test_labels_that_are_nan_where_the_weight_is_zero_leave_every_gradient_finite(
    loss: Any, factor: str, rng: np.random.Generator
) -> None:
    """The gradient through a layer is that of the examples which count."""
    x, w = rng.normal(size=(4, 3)).astype(np.float32), jnp.eye(3) * 0.7
    y = rng.dirichlet(np.ones(3), 4).astype(np.float32)
    counts = np.array([True, True, False, True])
    y[2, 1] = np.nan

    def through(w: Any, rows: Any, **factors: Any) -> Any:
        return compute_losses(loss, {"y_pred": x[rows] @ w, "y_true": y[rows], **factors})[0]

    found = jax.grad(through)(w, slice(None), **{factor: jnp.asarray(counts, jnp.float32)})
    among = 4 if factor == "sample_weight" else 3  # the mean is over real examples
    np.testing.assert_allclose(found, jax.grad(through)(w, counts) * 3 / among, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", _labels._INDICES[:2])
def test_labels_that_are_no_class_where_the_weight_is_zero_leave_every_gradient_finite(
    loss: Any, rng: np.random.Generator
) -> None:
    logits = jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32)
    y = np.array([[0, -1], [1, 2], [7, 0], [-100, 3]], np.int32)
    weight = ((y >= 0) & (y < 3)).astype(np.float32)
    found = slopes(loss, logits, y_true=jnp.asarray(y), sample_weight=weight)
    expected = slopes(
        loss, logits, y_true=jnp.asarray(np.where(weight, y, 0)), sample_weight=weight
    )
    np.testing.assert_array_equal(found, expected)
    assert not found[weight == 0].any() and found[weight == 1].any(axis=-1).all()


@pytest.mark.slow
def test_tokens_whose_weight_is_zero_may_have_labels_that_are_nan() -> None:
    y_pred, y = jnp.arange(6.0).reshape(2, 3, 1), np.ones((2, 3, 1), np.float32)
    y[0, 2] = y[1, 0] = np.nan
    weight = np.isfinite(y[..., 0]).astype(np.float32)
    found = slopes(optax.squared_error, y_pred, y_true=jnp.asarray(y), sample_weight=weight)
    expected = np.where(weight[..., None], 2 * (np.asarray(y_pred) - 1) / 6, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_predictions_that_count_nothing_but_enter_other_values_keep_their_gradient() -> None:
    """Across a batch of finite numbers the gradient is the derivative of what is logged."""
    across = lambda y_pred, y_true: (y_pred - y_pred.mean()) ** 2
    weight = jnp.array([1.0, 0.0, 2.0])
    found = slopes(across, jnp.arange(3.0), y_true=jnp.zeros(3), sample_weight=weight)
    plain = lambda p: jnp.mean(weight * (p - p.mean()) ** 2)
    np.testing.assert_allclose(found, jax.grad(plain)(jnp.arange(3.0)), rtol=1e-6)
    assert found[1] != 0


@pytest.mark.parametrize("padded", [False, True])
def test_a_fit_leaves_out_labels_that_are_nan_by_their_weight(padded: bool) -> None:
    x, y = np.ones((5, 2), np.float32), np.ones((5, 1), np.float32)
    y[4] = np.nan
    learner = et.Learner(
        eqx.nn.Linear(2, 1, key=jax.random.key(0)), optax.sgd(0.1), loss=optax.squared_error
    )
    weight = np.isfinite(y[:, 0]).astype(np.float32)
    remainder = "pad" if padded else "keep"
    fitted, _ = learner.fit(
        x, y, sample_weight=weight, batch_size=4, remainder=remainder, shuffle=False, verbose=0
    )
    assert np.isfinite(np.asarray(fitted.model.weight)).all()


def test_a_total_of_other_reductions_is_logged_as_the_loss_of_the_pass() -> None:
    y = jnp.ones((3, 2))
    _, logs = compute_losses(et.Loss(tokenwise, reduction="sum"), {"y_pred": y, "y_true": 0 * y})
    again = _logs.merge(_logs.contributions(logs, 3), _logs.contributions(logs, 3))
    assert _logs.compute(again) == {"loss": 12, "tokenwise": 12}
