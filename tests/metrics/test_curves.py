"""Curves over all thresholds, next to those of scikit-learn and torchmetrics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import in_batches

import eqxtrain.metrics as m

ROWS, CLASSES, BINS = 60, 3, 64


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities in the middles of bins, labels, and weights, some of which are 0."""
    t = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    p = rng.random((ROWS, CLASSES)) * 0.7 + 0.3 * np.eye(CLASSES)[t]
    weight = rng.integers(0, 4, ROWS).astype(np.float32)
    return ((np.floor(p * BINS) + 0.5) / BINS).astype(np.float32), t, weight


def roc(t: Any, p: Any, w: Any) -> list[np.ndarray]:
    return list(sk.roc_curve(t, p, sample_weight=w, drop_intermediate=False))


def precision_recall(t: Any, p: Any, w: Any) -> list[np.ndarray]:
    precision, recall, thresholds = sk.precision_recall_curve(t, p, sample_weight=w)
    return [precision, recall, np.append(thresholds, np.inf)]


KINDS: dict[str, tuple[Any, Any]] = {
    "roc": (m.ROCCurve, roc),
    "precision_recall": (m.PrecisionRecallCurve, precision_recall),
}
both_ways = pytest.mark.parametrize("bins", [pytest.param(BINS, marks=pytest.mark.slow), None])
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.mark.parametrize("weighted", [False, True])
@every_kind
def test_an_exact_curve_is_that_of_scikit_learn(
    name: str, weighted: bool, rng: np.random.Generator
) -> None:
    (kind, oracle), (p, t, w) = KINDS[name], scores(rng)
    p, t, weight = p[:, 0], (t == 0).astype(np.int32), w if weighted else None
    curve = in_batches(kind(bins=None), p, t, weight=weight).compute()
    expected = oracle(t, p, weight)
    assert curve.shape == (3, len(expected[0]))
    np.testing.assert_allclose(curve, np.stack(expected), rtol=1e-6)


@both_ways
@every_kind
def test_each_class_has_the_curve_of_scikit_learn(
    name: str, bins: int | None, rng: np.random.Generator
) -> None:
    """In bins, points stand at the edges of bins, and also where no score is."""
    (kind, oracle), (p, t, _) = KINDS[name], scores(rng)
    curves = np.asarray(in_batches(kind(bins=bins), p, t).compute())
    assert curves.shape[:2] == (3, CLASSES)
    for label in range(CLASSES):
        ours = list(zip(*curves[:, label], strict=True))
        theirs = np.stack(oracle(t == label, p[:, label], None))
        if bins is not None:
            theirs[2] = np.floor(theirs[2] * BINS) / BINS
        for point in zip(*theirs, strict=True):
            assert any(np.allclose(point, other, rtol=1e-6) for other in ours)
        if bins is not None:
            assert curves.shape[2] == BINS + 1
        else:
            assert len({*map(tuple, np.round(ours, 6))}) == theirs.shape[1]


@every_kind
def test_micro_is_one_curve_of_all_decisions(name: str, rng: np.random.Generator) -> None:
    (kind, oracle), (p, t, _) = KINDS[name], scores(rng)
    curve = in_batches(kind(bins=None, average="micro"), p, t).compute()
    expected = oracle(np.eye(CLASSES)[t].ravel(), p.ravel(), None)
    np.testing.assert_allclose(curve, np.stack(expected), rtol=1e-6)


@both_ways
def test_the_area_under_a_curve_is_what_the_score_says(
    bins: int | None, rng: np.random.Generator
) -> None:
    p, t, _ = scores(rng)
    fpr, tpr, _ = np.asarray(m.ROCCurve(bins=bins).update(p, t).compute())
    areas = m.AUROC(bins=bins, average="none").update(p, t).compute()
    np.testing.assert_allclose(np.trapezoid(tpr, fpr), list(areas.values()), rtol=1e-5)
    precision, recall, _ = np.asarray(m.PrecisionRecallCurve(bins=bins).update(p, t).compute())
    areas = m.AveragePrecision(bins=bins, average="none").update(p, t).compute()
    steps = -(np.diff(recall) * precision[:, :-1]).sum(1)
    np.testing.assert_allclose(steps, list(areas.values()), rtol=1e-5)


def test_thresholds_of_logits_are_probabilities(rng: np.random.Generator) -> None:
    t = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    logits = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    p = np.asarray(jax.nn.softmax(logits))
    ours = m.ROCCurve(bins=None, from_logits=True).update(logits, t).compute()
    theirs = m.ROCCurve(bins=None).update(p, t).compute()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    one = m.ROCCurve(bins=None, from_logits=True).update(logits[:, 0], t == 0).compute()
    expected = roc(t == 0, 1 / (1 + np.exp(-logits[:, 0].astype(float))), None)
    np.testing.assert_allclose(one, np.stack(expected), rtol=1e-5)


@every_kind
def test_a_curve_in_bins_is_compiled(name: str, rng: np.random.Generator) -> None:
    (kind, _), (p, t, _) = KINDS[name], scores(rng)
    seen = kind(bins=BINS).update(p, t)
    np.testing.assert_allclose(jax.jit(lambda: seen.compute())(), seen.compute(), rtol=1e-6)


@pytest.mark.parametrize("bins", [BINS, None])
def test_a_class_of_one_kind_alone_has_nan(bins: int | None) -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.0]], np.float32)
    t = np.array([0, 1, 1], np.int32)
    fpr, tpr, _ = m.ROCCurve(bins=bins).update(p, t).compute()
    assert np.isfinite(fpr).all() and np.isfinite(tpr[:2]).all() and np.isnan(tpr[2]).all()
    precision, recall, _ = m.PrecisionRecallCurve(bins=bins).update(p, t).compute()
    assert np.isfinite(recall[:2]).all() and np.isnan(recall[2]).all()
    assert np.isfinite(precision).all()


@both_ways
@every_kind
def test_what_is_no_probability_makes_all_of_it_nan(name: str, bins: int | None) -> None:
    p, t = np.array([[0.5, 0.5], [0.2, 1.8]], np.float32), np.array([1, 0], np.int32)
    assert jnp.isnan(KINDS[name][0](bins=bins).update(p, t).compute()).all()


@pytest.mark.slow
def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm

    p, t, _ = scores(rng)
    pair = torch.from_numpy(p[:, 0]), torch.from_numpy(t == 0).long()
    ours = m.ROCCurve(bins=None).update(p[:, 0], t == 0).compute()
    np.testing.assert_allclose(ours[:2], np.stack(tm.BinaryROC()(*pair)[:2]), rtol=1e-6)
    ours = m.PrecisionRecallCurve(bins=None).update(p[:, 0], t == 0).compute()
    theirs = np.stack(tm.BinaryPrecisionRecallCurve()(*pair)[:2])
    np.testing.assert_allclose(ours[:2], theirs, rtol=1e-6)


def test_averages_and_names_of_no_use_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"`ROCCurve\(average='macro'\)` is not valid: choose"):
        m.ROCCurve(average="macro")
    with pytest.raises(ValueError, match=r"no use for `class_names`: pass them to the `plot`"):
        m.PrecisionRecallCurve(class_names=("a", "b"))
