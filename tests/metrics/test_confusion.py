"""What follows from the whole confusion matrix, next to scikit-learn and torchmetrics."""

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import in_batches

import eqxtrain.metrics as m

ROWS, CLASSES = 40, 4


def decisions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    t = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    p = np.where(rng.random(ROWS) < 0.6, t, rng.integers(0, CLASSES, ROWS)).astype(np.int32)
    return p, t, rng.random(ROWS).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_the_matrix_is_that_of_scikit_learn(
    normalize: Any, weighted: bool, rng: np.random.Generator
) -> None:
    p, t, w = decisions(rng)
    weight = w if weighted else None
    seen = in_batches(m.ConfusionMatrix(normalize=normalize, num_classes=4), p, t, weight=weight)
    expected = sk.confusion_matrix(t, p, normalize=normalize, sample_weight=weight)
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_is_that_of_scikit_learn(
    weights: Any, weighted: bool, rng: np.random.Generator
) -> None:
    p, t, w = decisions(rng)
    weight = w if weighted else None
    seen = in_batches(m.CohenKappa(weights=weights, num_classes=4), p, t, weight=weight)
    expected = sk.cohen_kappa_score(t, p, weights=weights, sample_weight=weight)
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_matthews_correlation_is_that_of_scikit_learn(
    weighted: bool, rng: np.random.Generator
) -> None:
    p, t, w = decisions(rng)
    weight = w if weighted else None
    expected = sk.matthews_corrcoef(t, p, sample_weight=weight)
    scores = np.eye(CLASSES, dtype=np.float32)[p]
    for predicted, metric in (
        (p, m.MatthewsCorrCoef(num_classes=4)),
        (scores, m.MatthewsCorrCoef()),
    ):
        result = in_batches(metric, predicted, t, weight=weight).compute()
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [m.ConfusionMatrix, m.CohenKappa, m.MatthewsCorrCoef])
def test_one_score_counts_as_two_classes(kind: Any, rng: np.random.Generator) -> None:
    oracles: dict[Any, Any] = {
        m.ConfusionMatrix: sk.confusion_matrix,
        m.CohenKappa: sk.cohen_kappa_score,
        m.MatthewsCorrCoef: sk.matthews_corrcoef,
    }
    t, p = rng.integers(0, 2, ROWS).astype(np.int32), rng.random(ROWS).astype(np.float32)
    result = in_batches(kind(threshold=0.3), p, t).compute()
    np.testing.assert_allclose(result, oracles[kind](t, p > 0.3), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("t", "p"), [([1, 1, 1], [0, 1, 2]), ([0, 1, 2], [1, 1, 1]), ([2, 2, 2], [2, 2, 2])]
)
def test_a_single_class_has_no_correlation_as_in_scikit_learn(t: Any, p: Any) -> None:
    pair = np.array(p, np.int32), np.array(t, np.int32)
    result = in_batches(m.MatthewsCorrCoef(num_classes=3), *pair, sizes=[1]).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert result == sk.matthews_corrcoef(t, p) == 0


def test_labels_to_ignore_are_not_counted(rng: np.random.Generator) -> None:
    p, t, _ = decisions(rng)
    seen = in_batches(m.ConfusionMatrix(num_classes=4, ignore_index=2), p, t)
    expected = sk.confusion_matrix(t[t != 2], p[t != 2], labels=range(4))
    np.testing.assert_array_equal(seen.compute(), expected)


def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm

    p, t, _ = decisions(rng)
    tensors = torch.from_numpy(p).long(), torch.from_numpy(t).long()
    pairs = [
        (m.ConfusionMatrix(num_classes=4), tm.MulticlassConfusionMatrix(4)),
        (
            m.CohenKappa(num_classes=4, weights="linear"),
            tm.MulticlassCohenKappa(4, weights="linear"),
        ),
        (m.MatthewsCorrCoef(num_classes=4), tm.MulticlassMatthewsCorrCoef(4)),
    ]
    for ours, theirs in pairs:
        expected = theirs(*tensors).numpy()
        np.testing.assert_allclose(in_batches(ours, p, t).compute(), expected, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_options_that_are_not_known_get_a_sentence() -> None:
    wrong: Any = "rows"
    with pytest.raises(ValueError, match=r"`ConfusionMatrix\(normalize='rows'\)` is not valid"):
        m.ConfusionMatrix(normalize=wrong)
    with pytest.raises(ValueError, match=r"`CohenKappa\(weights='rows'\)` is not valid"):
        m.CohenKappa(weights=wrong)
    with pytest.raises(ValueError, match=r"not how many there are: pass `CohenKappa\(num_classes"):
        m.CohenKappa().update(np.array([1], np.int32), np.array([1], np.int32))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [10**4, 10**6, 4 * 10**6])
def test_matthews_correlation_of_a_rare_class_loses_no_digits(rows: int) -> None:
    t, p = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    t[:5], p[2:9] = 1, 1
    result = m.MatthewsCorrCoef(num_classes=2).update(p, t).compute()
    np.testing.assert_allclose(result, sk.matthews_corrcoef(t, p), rtol=1e-5)
    assert m.MatthewsCorrCoef(num_classes=2).update(t, t).compute() == pytest.approx(1, abs=1e-6)
