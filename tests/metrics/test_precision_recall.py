"""Counts of decisions, next to scikit-learn and torchmetrics."""

import re
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import in_batches

import eqxtrain.metrics as m

ROWS, CLASSES = 40, 4


def specificity(t: Any, p: Any, *, average: Any = "binary", sample_weight: Any = None) -> Any:
    """scikit-learn has none: that of a class is the recall of all others."""
    w = np.ones(len(t)) if sample_weight is None else sample_weight
    if average == "binary":
        return sk.recall_score(1 - t, 1 - p, sample_weight=w)
    tn = np.array([(w * (t != c) * (p != c)).sum() for c in range(CLASSES)])
    fp = np.array([(w * (t != c) * (p == c)).sum() for c in range(CLASSES)])
    if average == "micro":
        return tn.sum() / (tn + fp).sum()
    support = np.array([(w * (t == c)).sum() for c in range(CLASSES)])
    return np.average(tn / (tn + fp), weights=support if average == "weighted" else None)


KINDS: dict[str, tuple[Any, Any]] = {
    "precision": (m.Precision, sk.precision_score),
    "recall": (m.Recall, sk.recall_score),
    "f1": (m.F1, sk.f1_score),
    "f_beta": (
        lambda **options: m.FBeta(0.5, **options),
        lambda *a, **options: sk.fbeta_score(*a, beta=0.5, **options),
    ),
    "jaccard": (m.Jaccard, sk.jaccard_score),
    "specificity": (m.Specificity, specificity),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def scores(rng: np.random.Generator, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and weights; the last class is rare but there."""
    t = rng.choice(CLASSES, rows, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
    t[:CLASSES] = np.arange(CLASSES)
    p = (rng.normal(size=(rows, CLASSES)) + np.eye(CLASSES)[t]).astype(np.float32)
    return p, t, rng.uniform(0.1, 2, rows).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@every_kind
def test_averages_over_classes_are_those_of_scikit_learn(
    name: str, average: Any, weighted: bool, rng: np.random.Generator
) -> None:
    (kind, oracle), (p, t, w) = KINDS[name], scores(rng)
    weight = w if weighted else None
    expected = oracle(t, p.argmax(1), average=average, sample_weight=weight)
    mask = np.arange(ROWS) < ROWS  # a mask that hides nothing
    for labels in (t, np.eye(CLASSES, dtype=np.float32)[t]):
        result = in_batches(kind(average=average), p, labels, mask, weight=weight).compute()
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@every_kind
def test_a_single_class_is_that_of_scikit_learn(name: str, rng: np.random.Generator) -> None:
    kind, oracle = KINDS[name]
    t = rng.integers(0, 2, ROWS).astype(np.int32)
    p = np.clip(t * 0.3 + rng.random(ROWS) * 0.7, 0, 1).astype(np.float32)
    w = rng.random(ROWS).astype(np.float32)
    for cut in (0.5, 0.8):
        expected = oracle(t, (p > cut).astype(int), sample_weight=w)
        column = in_batches(kind(threshold=cut), p[:, None], t[:, None], weight=w).compute()
        np.testing.assert_allclose(column, expected, rtol=1e-5)
        for decided in (p, p > cut):
            metric = kind(threshold=cut) if decided is p else kind()
            result = in_batches(metric, decided, t.astype(bool), weight=w).compute()
            np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_both_classes_of_one_score_are_averaged_when_told_to(
    average: Any, rng: np.random.Generator
) -> None:
    t, p = rng.integers(0, 2, ROWS).astype(np.int32), rng.random(ROWS).astype(np.float32)
    expected = sk.f1_score(t, p > 0.5, average=average)
    np.testing.assert_allclose(in_batches(m.F1(average=average), p, t).compute(), expected, 1e-5)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@pytest.mark.parametrize("name", ["precision", "recall", "f1", "jaccard"])
def test_several_labels_are_those_of_scikit_learn(
    name: str, average: Any, rng: np.random.Generator
) -> None:
    kind, oracle = KINDS[name]
    t = rng.integers(0, 2, (ROWS, 3)).astype(np.int32)
    t[:, 2] = 0  # a label that never is
    p, w = rng.random((ROWS, 3)).astype(np.float32), rng.random(ROWS).astype(np.float32)
    p[:, 2] = 0.1
    metric = kind(multilabel=True, average=average)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = oracle(t, p > 0.5, average=average, sample_weight=w)
    np.testing.assert_allclose(in_batches(metric, p, t, weight=w).compute(), expected, rtol=1e-5)


@every_kind
def test_each_class_goes_by_its_name_and_is_that_of_scikit_learn(
    name: str, rng: np.random.Generator
) -> None:
    (kind, oracle), (p, t, _) = KINDS[name], scores(rng)
    seen = in_batches(kind(average="none", class_names=["a", "b", "c", "d"]), p, t)
    for index, letter in enumerate("abcd"):
        one = (t == index).astype(int), (p.argmax(1) == index).astype(int)
        np.testing.assert_allclose(seen.results("it")[f"it/{letter}"], oracle(*one), rtol=1e-5)
    assert list(in_batches(kind(average="none"), p, t).results("it")) == [
        f"it/{index}" for index in range(CLASSES)
    ]


@pytest.mark.slow
def test_classes_that_never_occur_are_left_out_as_in_scikit_learn() -> None:
    t, p = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 1, 3], np.int32)
    for name in ("precision", "recall", "f1", "jaccard"):
        kind, oracle = KINDS[name]
        expected = oracle(t, p, average="macro", zero_division=0)
        result = in_batches(kind(num_classes=5), p, t, sizes=[1]).compute()
        np.testing.assert_allclose(result, expected, rtol=1e-6)
        each = in_batches(kind(num_classes=5, average="none"), p, t, sizes=[1]).compute()
        assert np.isnan(each["2"]) and np.isnan(each["4"]) and each["3"] == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_balanced_accuracy_is_that_of_scikit_learn(
    weighted: bool, rng: np.random.Generator
) -> None:
    p, t, w = scores(rng)
    weight = w if weighted else None
    expected = sk.balanced_accuracy_score(t, p.argmax(1), sample_weight=weight)
    result = in_batches(m.BalancedAccuracy(), p, t, weight=weight).compute()
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    one, decided = (t > 1).astype(np.int32), p[:, 2] > 0
    expected = sk.balanced_accuracy_score(one, decided, sample_weight=weight)
    result = in_batches(m.BalancedAccuracy(), decided, one, weight=weight).compute()
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_balanced_accuracy_leaves_out_classes_without_labels() -> None:
    t, p = np.array([0, 0, 1], np.int32), np.array([0, 2, 1], np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.balanced_accuracy_score(t, p)
    result = in_batches(m.BalancedAccuracy(num_classes=3), p, t, sizes=[1]).compute()
    np.testing.assert_allclose(result, expected)


@every_kind
def test_tokens_to_ignore_and_padding_are_left_out(name: str, rng: np.random.Generator) -> None:
    kind, oracle = KINDS[name]
    p, t, _ = scores(rng, 60)
    tokens, labels = p.reshape(12, 5, CLASSES), t.reshape(12, 5)
    kept = rng.random((12, 5)) < 0.7
    kept.reshape(-1)[:CLASSES] = True
    mask = np.arange(12) < 9
    tokens[~mask] = np.nan
    metric = kind(ignore_index=-100)
    result = in_batches(metric, tokens, np.where(kept, labels, -100).astype(np.int32), mask)
    real = kept & mask[:, None]
    expected = oracle(labels[real], tokens[real].argmax(-1), average="macro")
    np.testing.assert_allclose(result.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "none"])
@pytest.mark.parametrize("name", [*KINDS, "balanced"])
def test_torchmetrics_agrees(name: str, average: Any, rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm

    theirs: dict[str, Any] = {
        "precision": tm.MulticlassPrecision,
        "recall": tm.MulticlassRecall,
        "f1": tm.MulticlassF1Score,
        "f_beta": lambda **options: tm.MulticlassFBetaScore(0.5, **options),
        "jaccard": tm.MulticlassJaccardIndex,
        "specificity": tm.MulticlassSpecificity,
        "balanced": tm.MulticlassAccuracy,
    }
    p, t, _ = scores(rng)
    kind = m.BalancedAccuracy if name == "balanced" else KINDS[name][0]
    # for the class to ignore itself, theirs differ among themselves
    ignore = 1 if average in ("micro", "weighted") and name != "jaccard" else None
    ours = in_batches(kind(average=average, ignore_index=ignore), p, t).compute()
    metric = theirs[name](num_classes=CLASSES, average=average, ignore_index=ignore)
    expected = metric(torch.from_numpy(p), torch.from_numpy(t).long()).numpy()
    ours = list(ours.values()) if average == "none" else ours
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_labels_outside_of_the_classes_get_a_sentence_or_are_nan() -> None:
    p, t = np.eye(3, dtype=np.float32), np.array([0, 1, 5], np.int32)
    with pytest.raises(ValueError, match=r"`F1` was given the class 5, but there are 3, 0 to 2"):
        m.F1().update(p, t)
    assert np.isnan(eqx.filter_jit(m.F1().update)(p, t).compute())
    assert in_batches(m.F1(ignore_index=5), p, t, sizes=[1]).compute() == 1
    with pytest.raises(ValueError, match="a single class takes labels of 0 or 1"):
        m.Precision().update(np.ones(3, np.float32), t)


def test_accumulators_of_known_classes_can_be_carried_by_a_scan(rng: np.random.Generator) -> None:
    p, t, _ = scores(rng)
    stacked = (jnp.asarray(p).reshape(8, 5, CLASSES), jnp.asarray(t).reshape(8, 5))
    step = lambda seen, batch: (seen.update(*batch), None)
    seen, _ = jax.lax.scan(step, m.F1(num_classes=CLASSES).reset(), stacked)
    expected = sk.f1_score(t, p.argmax(1), average="macro")
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_options_that_are_not_known_or_contradict_get_a_sentence() -> None:
    wrong: Any = "samples"
    with pytest.raises(ValueError, match=r"`F1\(average='samples'\)` is not valid: .*'micro'"):
        m.F1(average=wrong)
    with pytest.raises(ValueError, match=r"gives two classes the same name"):
        m.F1(class_names=("a", "a"))
    with pytest.raises(ValueError, match=r"2 `class_names`, but `num_classes=3`"):
        m.F1(class_names=("a", "b"), num_classes=3)
    with pytest.raises(ValueError, match=r"2 `class_names` for 3 classes"):
        m.F1(class_names=("a", "b")).update(np.eye(3), np.arange(3))


@pytest.mark.parametrize("label", [-1, 4])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@every_kind
def test_a_label_outside_makes_every_average_nan(
    name: str, average: Any, label: int, rng: np.random.Generator
) -> None:
    p, t, _ = scores(rng)
    t[5] = label
    seen = eqx.filter_jit(KINDS[name][0](average=average).update)(p, t)
    assert np.isnan(seen.compute()) and "not one of its classes" in seen.warning()
    assert np.isnan(eqx.filter_jit(m.BalancedAccuracy().update)(p, t).compute())
    for matrix in (m.ConfusionMatrix(), m.CohenKappa(), m.MatthewsCorrCoef(), m.Accuracy()):
        assert np.isnan(eqx.filter_jit(matrix.update)(p, t).compute()).any()


@pytest.mark.slow
def test_a_score_of_nan_makes_the_result_nan_and_padding_does_not(
    rng: np.random.Generator,
) -> None:
    p, t, _ = scores(rng)
    p[3] = np.nan
    for metric in (m.F1(), m.Accuracy(), m.MatthewsCorrCoef()):
        assert np.isnan(metric.update(p, t).compute())
        assert np.isfinite(metric.update(p, t, np.arange(ROWS) != 3).compute())


def test_an_average_of_none_is_each_class_by_itself(rng: np.random.Generator) -> None:
    p, t, _ = scores(rng)
    given: Any = None
    assert m.F1(average=given).update(p, t).compute() == m.F1(average="none").update(p, t).compute()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: m.FBeta(-1.0), "FBeta(beta)"),
        (lambda: m.TopKAccuracy(0), "TopKAccuracy(k)"),
        (lambda: m.CalibrationError(0), "CalibrationError(bins)"),
        (lambda: m.HuberLoss(-1.0), "HuberLoss(delta)"),
        (lambda: m.PinballLoss(2.0), "PinballLoss(alpha)"),
        (lambda: m.PrecisionAtRecall(1.5), "PrecisionAtRecall(recall)"),
        (lambda: m.RecallAtPrecision(-0.5), "RecallAtPrecision(precision)"),
        (lambda: m.Accuracy("0.5"), "Accuracy(threshold)"),  # pyright: ignore[reportArgumentType]
        (lambda: m.F1(num_classes="3"), "F1(num_classes)"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_numbers_out_of_range_get_a_sentence(make: Any, option: str) -> None:
    with pytest.raises(ValueError, match=f"`{re.escape(option)}` must be a"):
        make()


def test_a_string_of_class_names_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`class_names='cat'` is one string"):
        m.F1(class_names="cat")
