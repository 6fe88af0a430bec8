"""Rankings of scores, next to scikit-learn, torchmetrics and Keras; binned and exact."""

import warnings
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import sklearn.metrics as sk
from helpers import in_batches
from hypothesis import given, settings, strategies as st

import eqxtrain as et
import eqxtrain.metrics as m

ROWS, CLASSES = 60, 3


def at_recall(least: float) -> Any:
    """The highest precision of scikit-learn's curve, without its artificial last point."""

    def oracle(t: Any, p: Any, sample_weight: Any = None) -> float:
        curve = sk.precision_recall_curve(t, p, sample_weight=sample_weight)
        return max(a for a, r in zip(curve[0][:-1], curve[1][:-1], strict=True) if r >= least)

    return oracle


def at_precision(least: float) -> Any:
    def oracle(t: Any, p: Any, sample_weight: Any = None) -> float:
        curve = sk.precision_recall_curve(t, p, sample_weight=sample_weight)
        points = zip(curve[0][:-1], curve[1][:-1], strict=True)
        return max((r for a, r in points if a >= least), default=0)

    return oracle


KINDS: dict[str, tuple[Any, Any]] = {
    "auroc": (m.AUROC, sk.roc_auc_score),
    "average_precision": (m.AveragePrecision, sk.average_precision_score),
    "precision_at_recall": (lambda **o: m.PrecisionAtRecall(0.55, **o), at_recall(0.55)),
    "recall_at_precision": (lambda **o: m.RecallAtPrecision(0.55, **o), at_precision(0.55)),
}
every_kind = pytest.mark.parametrize("name", KINDS)


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities in steps of 1/64, labels and weights. No two bins of 200 hold the same step."""
    t = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    p = rng.random((ROWS, CLASSES)) * 0.7 + 0.3 * np.eye(CLASSES)[t]
    return (np.round(p * 64) / 64).astype(np.float32), t, rng.random(ROWS).astype(np.float32)


def rest(name: str, p: np.ndarray, t: np.ndarray, w: Any, average: str) -> Any:
    """scikit-learn's score of each class against the rest, and their average."""
    oracle = KINDS[name][1]
    each = np.array([oracle(t == c, p[:, c], sample_weight=w) for c in range(CLASSES)])
    if average == "micro":
        one_hot = np.eye(CLASSES)[t].ravel()
        return oracle(one_hot, p.ravel(), sample_weight=None if w is None else w.repeat(CLASSES))
    support = np.bincount(t, w, minlength=CLASSES)
    return (
        each
        if average == "none"
        else np.average(each, weights=support if average == "weighted" else None)
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
@pytest.mark.parametrize("bins", [200, None])
@every_kind
def test_classes_against_the_rest_are_those_of_scikit_learn(
    name: str, bins: int | None, average: Any, weighted: bool, rng: np.random.Generator
) -> None:
    p, t, w = scores(rng)
    weight = w if weighted else None
    seen = in_batches(KINDS[name][0](bins=bins, average=average), p, t, weight=weight).compute()
    expected = rest(name, p, t, weight, average)
    if average == "none":
        assert list(seen) == ["0", "1", "2"]
        seen = list(seen.values())
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.parametrize("bins", [200, None])
@every_kind
def test_one_class_is_that_of_scikit_learn(
    name: str, bins: int | None, rng: np.random.Generator
) -> None:
    (kind, oracle), (p, t, w) = KINDS[name], scores(rng)
    expected = oracle(t == 0, p[:, 0], sample_weight=w)
    for shape in ((ROWS,), (ROWS, 1)):
        pair = p[:, 0].reshape(shape), (t == 0).reshape(shape)
        seen = in_batches(kind(bins=bins), *pair, weight=w)
        np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("bins", [200, None])
@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_several_labels_are_those_of_scikit_learn(
    name: str, average: Any, bins: int | None, rng: np.random.Generator
) -> None:
    kind, oracle = KINDS[name]
    p, t = scores(rng)[0], rng.integers(0, 2, (ROWS, CLASSES)).astype(np.int32)
    seen = in_batches(kind(bins=bins, average=average, multilabel=True), p, t)
    np.testing.assert_allclose(seen.compute(), oracle(t, p, average=average), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bins", [200, None])
def test_tokens_to_ignore_and_padding_are_left_out(
    bins: int | None, rng: np.random.Generator
) -> None:
    p, t, _ = scores(rng)
    p, t, kept = p.reshape(12, 5, CLASSES), t.reshape(12, 5), rng.random((12, 5)) < 0.7
    mask = np.arange(12) < 9
    p[~mask] = np.nan
    labels = np.where(kept, t, -1).astype(np.int32)
    seen = in_batches(m.AUROC(bins=bins, ignore_index=-1), p, labels, mask)
    real = kept & mask[:, None]
    expected = rest("auroc", p[real], t[real], None, "macro")
    np.testing.assert_allclose(seen.compute(), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 40, -120])
@every_kind
def test_exact_curves_rank_logits_though_their_probabilities_are_all_one(
    name: str, shift: float, rng: np.random.Generator
) -> None:
    kind, oracle = KINDS[name]
    t = rng.integers(0, 2, 600).astype(np.int32)
    logits = (rng.normal(size=600) * 10 + 5 * t + shift).astype(np.float32)
    weight = rng.random(600).astype(np.float32)
    seen = in_batches(kind(bins=None, from_logits=True), logits, t, weight=weight).compute()
    np.testing.assert_allclose(seen, oracle(t, logits, sample_weight=weight), rtol=1e-6)
    labels = kind(bins=None, from_logits=True, multilabel=True, average="micro")
    two, both = logits.reshape(300, 2), t.reshape(300, 2)
    np.testing.assert_allclose(
        in_batches(labels, two, both).compute(), oracle(t, logits), rtol=1e-6
    )


@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("scale", [1, 10, 100])
@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_exact_curves_of_classes_rank_what_softmax_would_round(
    name: str, scale: float, average: Any, rng: np.random.Generator
) -> None:
    """Against scikit-learn on log-odds in float64, which have no ties."""
    t = rng.integers(0, CLASSES, 300).astype(np.int32)
    logits = ((rng.normal(size=(300, CLASSES)) + np.eye(CLASSES)[t]) * scale).astype(np.float32)
    odds = np.array(
        [
            [z[k] - np.logaddexp.reduce(np.delete(z, k)) for k in range(CLASSES)]
            for z in logits.astype(np.float64)
        ]
    )
    seen = in_batches(KINDS[name][0](bins=None, average=average, from_logits=True), logits, t)
    np.testing.assert_allclose(seen.compute(), rest(name, odds, t, None, average), rtol=1e-6)


@pytest.mark.slow
def test_a_logit_of_minus_infinity_is_a_class_that_is_ruled_out(rng: np.random.Generator) -> None:
    p, t, _ = scores(rng)
    ruled_out = np.where((p < 0.2) & (np.eye(CLASSES)[t] == 0), -np.inf, np.log(p + 1e-3))
    logits = ruled_out.astype(np.float32)
    exact = in_batches(m.AUROC(bins=None, from_logits=True), logits, t).compute()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(exact, rest("auroc", softmax, t, None, "macro"), rtol=1e-5)


pairs = st.tuples(
    hnp.arrays(np.float32, 24, elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.int32, 24, elements=st.integers(0, 1)),
).filter(lambda pair: 0 < pair[1].sum() < 24)


@pytest.mark.slow
@settings(max_examples=30)
@given(pairs)
def test_binned_scores_are_as_near_to_the_exact_ones_as_they_state(pair: Any) -> None:
    (p, t), bins = pair, 8
    index = np.minimum((p * bins).astype(int), bins - 1)[:, None] == np.arange(bins)[::-1]
    positives, negatives = index[t == 1].sum(0), index[t == 0].sum(0)
    bound = 0.5 * (positives * negatives).sum() / (positives.sum() * negatives.sum())
    area = m.AUROC(bins=bins).update(p, t).compute()
    assert abs(area - sk.roc_auc_score(t, p)) <= bound + 1e-6
    above = (positives + negatives).cumsum()
    worst = np.maximum(negatives, positives - 1) / np.maximum(above, 1)
    bound = (positives * np.where(positives > 0, worst, 0)).sum() / positives.sum()
    precision = m.AveragePrecision(bins=bins).update(p, t).compute()
    assert abs(precision - sk.average_precision_score(t, p)) <= bound + 1e-6


def test_torchmetrics_agrees(rng: np.random.Generator) -> None:
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics import classification as tm

    p, t, _ = scores(rng)
    p = p / p.sum(1, keepdims=True)  # theirs takes a softmax of what is beyond [0, 1]
    pair = torch.from_numpy(p), torch.from_numpy(t).long()
    for average in ("macro", "weighted"):
        options: dict[str, Any] = {"average": average}
        ours = in_batches(m.AUROC(bins=None, **options), p, t).compute()
        np.testing.assert_allclose(ours, tm.MulticlassAUROC(CLASSES, **options)(*pair), rtol=1e-5)
        ours = in_batches(m.AveragePrecision(bins=None, **options), p, t).compute()
        expected = tm.MulticlassAveragePrecision(CLASSES, **options)(*pair)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    one = pair[0][:, 0], (pair[1] == 0).long()
    ours = in_batches(m.PrecisionAtRecall(0.5, bins=None), p[:, 0], t == 0).compute()
    np.testing.assert_allclose(ours, tm.BinaryPrecisionAtFixedRecall(0.5)(*one)[0], rtol=1e-5)
    ours = in_batches(m.RecallAtPrecision(0.5, bins=None), p[:, 0], t == 0).compute()
    np.testing.assert_allclose(ours, tm.BinaryRecallAtFixedPrecision(0.5)(*one)[0], rtol=1e-5)


@pytest.mark.parametrize("bins", [200, None])
@every_kind
def test_a_class_without_a_curve_is_left_out_and_alone_is_nan(name: str, bins: int | None) -> None:
    kind, oracle = KINDS[name]
    p = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.25, 0.0]], np.float32)
    t = np.array([0, 1, 1], np.int32)
    seen = kind(bins=bins).update(p, t).compute()
    expected = np.mean([oracle(t == c, p[:, c]) for c in (0, 1)])
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    each = kind(bins=bins, average="none").update(p, t).compute()
    assert np.isnan(each["2"])
    assert np.isnan(kind(bins=bins).update(p[:, 0], np.zeros(3, np.int32)).compute())


@pytest.mark.parametrize("bins", [200, None])
@pytest.mark.parametrize("average", ["macro", "micro", "none"])
def test_what_is_no_probability_is_nan_and_not_left_out(average: Any, bins: int | None) -> None:
    p, t = np.array([[0.5, 0.5], [0.2, 1.8]], np.float32), np.array([1, 0], np.int32)
    seen = m.AUROC(bins=bins, average=average).update(p, t).compute()
    assert np.isnan(seen["1"] if average == "none" else seen)


@pytest.mark.slow
@every_kind
def test_the_exact_value_in_a_pass_does_not_depend_on_its_batches(
    name: str, rng: np.random.Generator
) -> None:
    (kind, _), (p, t, _) = KINDS[name], scores(rng)
    learner = et.Learner(
        eqx.nn.Identity(), None, loss=lambda y_pred: y_pred, metrics={"it": kind(bins=None)}
    )
    for size in (7, ROWS):
        result = learner.evaluate(p, t, batch_size=size)["it"]
        np.testing.assert_allclose(result, rest(name, p, t, None, "macro"), rtol=1e-5)


def test_wrong_labels_decisions_and_bins_get_a_sentence() -> None:
    p = np.full((2, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="was given the class 2, but there are 2"):
        m.AUROC().update(p, np.array([0, 2], np.int32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(eqx.filter_jit(m.AUROC().update)(p, np.array([0, 2], np.int32)).compute())
    with pytest.raises(ValueError, match="needs scores, but `y_pred` holds decisions"):
        m.AveragePrecision().update(p[:, 0] > 0, np.array([0, 1], np.int32))
    with pytest.raises(
        ValueError, match=r"`AUROC\(bins\)` must be a whole number, 2 or more; got 1"
    ):
        m.AUROC(bins=1)


@pytest.mark.slow
def test_scores_that_crowd_into_few_bins_are_warned_of(rng: np.random.Generator) -> None:
    rare = (rng.random(500) < 0.05).astype(np.int32)
    p = (0.003 * rng.random(500) + 0.001 * rare).astype(np.float32)
    for kind in (m.AUROC, m.AveragePrecision):
        assert "For the exact value, " in (kind().update(p, rare).warning() or "")
        assert kind(bins=None).update(p, rare).warning() is None
        assert kind().update(200 * p, rare).warning() is None


@pytest.mark.slow
def test_exact_curves_of_tokens_take_batches_of_any_length(rng: np.random.Generator) -> None:
    p, t, _ = scores(rng)
    cuts = [
        (p[:24].reshape(4, 6, 3), t[:24].reshape(4, 6)),
        (p[24:].reshape(4, 9, 3), t[24:].reshape(4, 9)),
    ]
    nothing = (p[:0].reshape(0, 5, 3), t[:0].reshape(0, 5))
    seen = m.AUROC(bins=None)
    for batch in (*cuts, nothing):
        seen = seen.merge(m.AUROC(bins=None).update(*batch))
    np.testing.assert_allclose(seen.compute(), rest("auroc", p, t, None, "macro"), rtol=1e-5)


@pytest.mark.parametrize("bins", [200, None])
def test_both_classes_of_one_score_are_averaged_when_told_to(
    bins: int | None, rng: np.random.Generator
) -> None:
    (p, t, _), names = scores(rng), ("no", "yes")
    p, t = p[:, 0], (t == 0).astype(np.int32)
    each = [sk.average_precision_score(1 - t, 1 - p), sk.average_precision_score(t, p)]
    seen = in_batches(m.AveragePrecision(bins=bins, average="macro"), p, t)
    np.testing.assert_allclose(seen.compute(), np.mean(each), rtol=1e-5)
    seen = in_batches(m.AveragePrecision(bins=bins, average="none", class_names=names), p, t)
    assert seen.results("it") == pytest.approx({"it/no": each[0], "it/yes": each[1]}, rel=1e-5)


@pytest.mark.parametrize("bins", [200, None])
def test_names_are_the_same_where_nothing_was_seen(bins: int | None) -> None:
    metric = m.AUROC(bins=bins, average="none", class_names=("a", "b"))
    assert list(metric.results("it")) == ["it/a", "it/b"]
    assert np.isnan(
        list(m.AUROC(bins=bins, average="none", num_classes=3).compute().values())
    ).all()
