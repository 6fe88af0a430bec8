"""Likelihoods and calibration, next to scikit-learn and torchmetrics."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import in_batches
from sklearn.calibration import calibration_curve

import eqxtrain.metrics as m

ROWS, CLASSES = 40, 3


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, probabilities that add up to 1, labels and weights."""
    t = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    logits = (rng.normal(size=(ROWS, CLASSES)) + np.eye(CLASSES)[t]).astype(np.float32)
    p = np.exp(logits.astype(float))
    p /= p.sum(1, keepdims=True)
    return logits, p, t, rng.uniform(0.1, 2, ROWS).astype(np.float32)


def calibration(confidence: Any, right: Any, weight: Any, bins: int, norm: str) -> float:
    """Guo et al., equations 2 and 3, in a loop."""
    index = np.minimum((np.asarray(confidence, float) * bins).astype(int), bins - 1)
    gaps, shares = [], []
    for b in set(index):
        w = weight[index == b]
        means = [np.average(values[index == b], weights=w) for values in (confidence, right)]
        gaps.append(abs(means[0] - means[1]))
        shares.append(w.sum() / weight.sum())
    gap, share = np.array(gaps), np.array(shares)
    norms = {"l1": (share * gap).sum(), "l2": np.sqrt((share * gap**2).sum()), "max": gap.max()}
    return norms[norm]


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_log_loss_is_that_of_scikit_learn(weighted: bool, rng: np.random.Generator) -> None:
    logits, p, t, w = scores(rng)
    weight = w if weighted else None
    expected = sk.log_loss(t, p, sample_weight=weight)
    for labels in (t, np.eye(CLASSES, dtype=np.float32)[t]):
        given = in_batches(m.LogLoss(), p.astype(np.float32), labels, weight=weight)
        np.testing.assert_allclose(given.compute(), expected, rtol=1e-5)
        given = in_batches(m.LogLoss(from_logits=True), logits, labels, weight=weight)
        np.testing.assert_allclose(given.compute(), expected, rtol=1e-5)


@pytest.mark.slow
def test_log_loss_of_one_class_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    t, logits = rng.integers(0, 2, ROWS).astype(np.int32), rng.normal(size=ROWS).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    expected = sk.log_loss(t, p)
    given = in_batches(m.LogLoss(), p.astype(np.float32)[:, None], t[:, None])
    np.testing.assert_allclose(given.compute(), expected, rtol=1e-5)
    given = in_batches(m.LogLoss(from_logits=True), logits, t)
    np.testing.assert_allclose(given.compute(), expected, rtol=1e-5)


def test_probabilities_of_0_and_1_are_kept_at_eps() -> None:
    p, t = np.array([0, 1, 1, 0], np.float32), np.array([1, 1, 0, 0], np.int32)
    eps = float(np.finfo(np.float32).eps)
    expected = sk.log_loss(t, np.clip(p.astype(float), eps, 1 - eps))
    np.testing.assert_allclose(m.LogLoss().update(p, t).compute(), expected, rtol=1e-5)


def test_logits_too_large_for_a_probability_lose_nothing() -> None:
    logits, t = np.array([200, -200], np.float32), np.array([0, 0], np.int32)
    assert m.LogLoss(from_logits=True).update(logits, t).compute() == 100
    rows = np.stack([logits, 0 * logits], axis=1)
    assert m.LogLoss(from_logits=True).update(rows, np.array([1, 0], np.int32)).compute() == 200


def tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = rng.normal(size=(6, 5, 7)).astype(np.float32)
    return logits, rng.integers(0, 7, (6, 5)).astype(np.int32), rng.random((6, 5)) < 0.7


@pytest.mark.slow
def test_perplexity_of_tokens_leaves_out_padding(rng: np.random.Generator) -> None:
    logits, t, real = tokens(rng)
    log_p = logits - np.log(np.exp(logits.astype(float)).sum(-1, keepdims=True))
    expected = np.exp(-np.take_along_axis(log_p, t[..., None], -1)[..., 0][real].mean())
    ignoring = m.Perplexity(from_logits=True, ignore_index=-100)
    labels = np.where(real, t, -100).astype(np.int32)
    np.testing.assert_allclose(
        in_batches(ignoring, logits, labels, sizes=[2]).compute(), expected, 1e-5
    )
    weighing = m.Perplexity(from_logits=True)
    seen = in_batches(weighing, logits, t, weight=real.astype(np.float32), sizes=[2])
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)
    exact = in_batches(m.Accuracy(ignore_index=-100), logits, labels, sizes=[2]).compute()
    np.testing.assert_allclose(exact, (logits.argmax(-1) == t)[real].mean(), rtol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_is_that_of_a_loop(norm: Any, bins: int, rng: np.random.Generator) -> None:
    _, p, t, w = scores(rng)
    metric = m.CalibrationError(bins, norm=norm)
    expected = calibration(p.max(1), p.argmax(1) == t, w, bins, norm)
    seen = in_batches(metric, p.astype(np.float32), t, weight=w)
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-4)
    one = in_batches(m.CalibrationError(bins, norm=norm), p[:, 0].astype(np.float32), t == 0)
    expected = calibration(p[:, 0], t == 0, np.ones(ROWS), bins, norm)
    np.testing.assert_allclose(one.compute(), expected, rtol=1e-4)


@pytest.mark.slow
def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm
    from torchmetrics.text import Perplexity

    _, p, t, _ = scores(rng)
    p = p.astype(np.float32)
    pair = torch.from_numpy(p), torch.from_numpy(t).long()
    for norm in ("l1", "l2", "max"):
        ours = in_batches(m.CalibrationError(10, norm=norm), p, t).compute()
        expected = tm.MulticlassCalibrationError(CLASSES, 10, norm)(*pair)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
        ours = in_batches(m.CalibrationError(10, norm=norm), p[:, 0], t == 0).compute()
        expected = tm.BinaryCalibrationError(10, norm)(pair[0][:, 0], pair[1] == 0)
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
    logits, t, real = tokens(rng)
    labels = np.where(real, t, -100).astype(np.int32)
    ours = in_batches(m.Perplexity(from_logits=True, ignore_index=-100), logits, labels, sizes=[2])
    theirs = Perplexity(ignore_index=-100)(
        torch.from_numpy(logits), torch.from_numpy(labels).long()
    )
    np.testing.assert_allclose(ours.compute(), theirs, rtol=1e-5)


@pytest.mark.parametrize("kind", [m.LogLoss, m.Perplexity, m.CalibrationError, m.CalibrationCurve])
def test_what_is_no_probability_is_nan_unless_it_is_padding(kind: Any) -> None:
    p, t = np.array([[0.2, 0.8], [1.7, -0.7]], np.float32), np.array([1, 0], np.int32)
    assert np.isnan(kind().update(p, t).compute()).all()
    assert np.isfinite(kind().update(p, t, mask=np.array([True, False])).compute()).any()
    assert "from_logits=True" in kind().update(p, t).warning()
    assert kind().update(abs(p) / 2, t).warning() is None
    assert "from_logits" not in kind(from_logits=True).update(np.nan * p, t).warning()


@pytest.mark.parametrize("kind", [m.LogLoss, m.Perplexity, m.CalibrationError])
def test_wrong_labels_and_decisions_get_a_sentence(kind: Any) -> None:
    p = np.full((2, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="was given the class 2, but there are 2"):
        kind().update(p, np.array([0, 2], np.int32))
    assert np.isnan(eqx.filter_jit(kind().update)(p, np.array([0, 2], np.int32)).compute())
    with pytest.raises(ValueError, match="needs scores, but `y_pred` holds decisions"):
        kind().update(p[:, 0] > 0, np.array([0, 1], np.int32))


@pytest.mark.usefixtures("unchecked")
def test_a_norm_that_is_not_known_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"`CalibrationError\(norm='l3'\)` is not valid"):
        m.CalibrationError(norm="l3")  # pyright: ignore[reportArgumentType]


def test_a_log_loss_in_half_precision_is_taken_in_float32(rng: np.random.Generator) -> None:
    logits, _, t, _ = scores(rng)
    half = logits.astype(np.float16)
    expected = -np.asarray(jax.nn.log_softmax(half.astype(np.float32)))[np.arange(ROWS), t].mean()
    result = m.LogLoss(from_logits=True).update(half, t).compute()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_calibration_curve_is_that_of_scikit_learn(
    weighted: bool, rng: np.random.Generator
) -> None:
    _, p, t, _ = scores(rng)
    p, repeats = p.astype(np.float32), rng.integers(0, 4, ROWS)
    weight = repeats.astype(np.float32) if weighted else None
    times = repeats if weighted else 1
    for given, labels, confidence, right in (
        (p, t, p.max(1), p.argmax(1) == t),
        (p[:, 0], t == 0, p[:, 0], t == 0),
    ):
        seen = in_batches(m.CalibrationCurve(7), given, labels, weight=weight)
        prob_true, prob_pred, share = np.asarray(seen.compute())
        expected = calibration_curve(
            np.repeat(right, times), np.repeat(confidence, times), n_bins=7
        )
        filled = share > 0
        np.testing.assert_allclose(prob_true[filled], expected[0], rtol=1e-5)
        np.testing.assert_allclose(prob_pred[filled], expected[1], rtol=1e-5)
        assert np.isnan(prob_true[~filled]).all() and np.isnan(prob_pred[~filled]).all()
        error = in_batches(m.CalibrationError(7), given, labels, weight=weight).compute()
        gaps = share[filled] * np.abs(prob_true - prob_pred)[filled]
        np.testing.assert_allclose(gaps.sum(), error, rtol=1e-5)
