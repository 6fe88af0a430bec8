"""The law of all measuring: no way of splitting the same examples changes a number.

Each metric is measured on one batch of the real examples alone, and then in every other way. To try
another way (devices, processes), add it to `WAYS`.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import eqxtrain as et
from eqxtrain._request import call
from eqxtrain.metrics import Metric, _logs

m = et.metrics

ROWS, SIZE, CLASSES = 12, 4, 3
"""Examples with their padding, how many of them are in a batch, and of how many classes."""
COUNTS = [1, 9]
"""How many examples are real: few numbers, and a last batch that is as long as the smallest, since
each length is a program of its own for each metric."""


def peak(y_pred: Any) -> Any:
    return {"size": jnp.abs(y_pred), "sign": jnp.sign(y_pred)}


class Bias(Metric):
    """A metric as users write them, that merges and resets through its parts."""

    error: m.Mean = eqx.field(default_factory=m.Mean)
    worst: m.Max = eqx.field(default_factory=m.Max)

    def update(self, y_pred: Any, y_true: Any, mask: Any = None) -> "Bias":
        error = m.Mean.of(y_pred - y_true, mask=mask)
        worst = m.Max.of(y_pred - y_true, mask=mask)
        return Bias(self.error.merge(error), self.worst.merge(worst))

    def compute(self) -> jax.Array:
        return self.error.compute() + self.worst.compute()


VALUES: dict[str, Metric] = {
    "through_its_parts": Bias(),
    "mean": m.Mean(),
    "sum": m.Sum(),
    "min": m.Min(),
    "max": m.Max(),
    "std": m.Std(),
    "last": m.Last(),
    "gather": m.Gather(),
    "modes": m.Modes(m.Mean(), m.Std(), m.Max(), m.Gather()),
    "function": m.from_function(lambda p, t: p * t),
    "function_of_modes": m.from_function(peak, m.Mean(), m.Min()),
    "mean_squared_error": m.MeanSquaredError(),
    "root_mean_squared_error": m.RootMeanSquaredError(),
    "mean_absolute_error": m.MeanAbsoluteError(),
    "mean_absolute_percentage_error": m.MeanAbsolutePercentageError(),
    "huber_loss": m.HuberLoss(),
    "pinball_loss": m.PinballLoss(0.3),
    "r2_score": m.R2Score(),
    "explained_variance": m.ExplainedVariance(),
    "pearson_corr_coef": m.PearsonCorrCoef(),
    "spearman_corr_coef": m.SpearmanCorrCoef(),
}
SCORES: dict[str, Metric] = {
    "accuracy": m.Accuracy(),
    "top_k_accuracy": m.TopKAccuracy(2),
    "precision": m.Precision(),
    "recall": m.Recall(average="weighted"),
    "specificity": m.Specificity(average="none"),
    "f_beta": m.FBeta(2.0, average="micro"),
    "f1": m.F1(class_names=("a", "b", "c"), average="none"),
    "jaccard": m.Jaccard(ignore_index=1),
    "balanced_accuracy": m.BalancedAccuracy(),
    "confusion_matrix": m.ConfusionMatrix(),
    "cohen_kappa": m.CohenKappa(weights="linear"),
    "matthews_corr_coef": m.MatthewsCorrCoef(),
    "log_loss": m.LogLoss(from_logits=True),
    "perplexity": m.Perplexity(from_logits=True),
    "calibration_error": m.CalibrationError(from_logits=True),
    "auroc": m.AUROC(from_logits=True),
    "auroc_exact": m.AUROC(from_logits=True, bins=None, average="none"),
    "average_precision": m.AveragePrecision(from_logits=True, average="micro"),
    "average_precision_exact": m.AveragePrecision(from_logits=True, bins=None),
    "precision_at_recall": m.PrecisionAtRecall(0.5, from_logits=True),
    "recall_at_precision": m.RecallAtPrecision(0.5, from_logits=True, bins=None),
    "roc_curve": m.ROCCurve(from_logits=True),
    "roc_curve_exact": m.ROCCurve(from_logits=True, bins=None, average="micro"),
    "precision_recall_curve": m.PrecisionRecallCurve(from_logits=True, average="micro"),
    "precision_recall_curve_exact": m.PrecisionRecallCurve(from_logits=True, bins=None),
    "calibration_curve": m.CalibrationCurve(from_logits=True),
    "cosine_similarity": m.from_function(lambda y_pred: y_pred @ jnp.array([1.0, 2.0, 0.5])),
    "on": m.On(m.Accuracy(), ()),
}
UNWEIGHTED = {"spearman_corr_coef"}
CASES = VALUES | SCORES

every_metric = pytest.mark.parametrize("name", CASES)

OF_EACH_KIND = {
    "through_its_parts", "mean", "std", "gather", "modes", "mean_squared_error", "r2_score",
    "spearman_corr_coef", "f1", "confusion_matrix", "calibration_error", "auroc", "auroc_exact",
}  # fmt: skip
"""One metric of each way of keeping what was seen; the law of all others is among the slow."""

Data = dict[str, np.ndarray]


@st.composite
def examples(draw: st.DrawFn, name: str) -> Data:
    """Real rows among padding that is nan. Numbers are such that a constant has no variance."""
    numbers = lambda shape: (
        np.array(
            draw(st.lists(st.integers(-8, 8), min_size=shape[0] * shape[1], max_size=99)),
            np.float32,
        )[: shape[0] * shape[1]].reshape(shape)
        / np.float32(4)
    )
    seed = draw(st.integers(0, 99))
    real = np.arange(ROWS) < draw(st.sampled_from(COUNTS))
    mask = np.random.default_rng(seed).permutation(real)
    if name in VALUES:
        y_pred, y_true = numbers((ROWS, 1))[:, 0], numbers((ROWS, 1))[:, 0]
        y_true = np.where(mask, y_true, np.float32(np.nan))
    else:
        y_pred = numbers((ROWS, CLASSES))
        y_true = np.random.default_rng(seed + 1).integers(0, CLASSES, ROWS).astype(np.int32)
        y_true = np.where(mask, y_true, np.int32(77))
    y_pred[~mask] = np.nan
    weight = np.random.default_rng(seed + 2).integers(0, 9, ROWS).astype(np.float32) / 8
    weight[~mask] = np.nan
    return {"y_pred": y_pred, "y_true": y_true, "mask": mask, "sample_weight": weight}


def contribution(metric: Metric, batch: Any) -> Metric:
    return call(metric.reset().update, {"mask": None, **batch}, who="test")


def merged(a: Metric, b: Metric) -> Metric:
    return a.merge(b)


def rows(data: Data, index: Any) -> Data:
    return {name: value[index] for name, value in data.items()}


def heeds_order(metric: Metric) -> bool:
    ordered = lambda node: isinstance(node, m.Last | m.Gather)
    return any(map(ordered, jax.tree.leaves(metric, is_leaf=ordered)))


def one_batch(metric: Metric, data: Data, draw: Any) -> Metric:
    """The real examples and nothing else."""
    real = rows(data, data["mask"])
    return contribution(metric, {n: v for n, v in real.items() if n != "mask"})


def batches(metric: Metric, data: Data, draw: Any) -> Metric:
    """The real examples in batches of one size, the last of which is short."""
    real = rows(data, data["mask"])
    del real["mask"]
    count = len(real["y_pred"])
    starts = range(0, count, SIZE)
    parts = [contribution(metric, rows(real, slice(i, i + SIZE))) for i in starts]
    return functools.reduce(merged, parts)


def padded(metric: Metric, data: Data, draw: Any) -> Metric:
    """Batches with padding, some of nothing else, merged in any grouping and any order."""
    parts = [contribution(metric, rows(data, slice(i, i + SIZE))) for i in range(0, ROWS, SIZE)]
    parts += [contribution(metric, rows(data, slice(SIZE)) | {"mask": np.zeros(SIZE, bool)})]
    parts.insert(draw(st.integers(0, len(parts))), parts[0].reset())
    if not heeds_order(metric):
        parts = draw(st.permutations(parts))
    while len(parts) > 1:
        index = draw(st.integers(0, len(parts) - 2))
        parts[index : index + 2] = [merged(parts[index], parts[index + 1])]
    return parts[0]


@eqx.filter_jit
def _fused(metric: Metric, stacked: Any) -> tuple[Metric, Any]:
    first = jax.tree.map(lambda leaf: leaf[0], stacked)
    empty = _logs.extract_gathers(contribution(metric, first).reset())[0]

    def step(seen: Metric, batch: Any) -> tuple[Metric, Any]:
        new, emitted = _logs.extract_gathers(contribution(metric, batch))
        return seen.merge(new), emitted

    dynamic, static = eqx.partition(empty, eqx.is_array)
    body = lambda seen, batch: (lambda out: (eqx.filter(out[0], eqx.is_array), out[1]))(
        step(eqx.combine(seen, static), batch)
    )
    seen, emitted = jax.lax.scan(body, dynamic, stacked)
    joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), emitted)
    return eqx.combine(seen, static), joined


def fused(metric: Metric, data: Data, draw: Any) -> Metric:
    """All batches, with their padding, in one call of a scan; what is emitted joined at the end."""
    stacked = {n: v.reshape(-1, SIZE, *v.shape[1:]) for n, v in data.items()}
    seen, joined = _fused(metric, stacked)
    return _logs.restore_gathers(seen, joined)


WAYS: dict[str, Callable[[Metric, Data, Any], Metric]] = {
    "batches": batches,
    "padded": padded,
    "fused": fused,
}


@pytest.mark.parametrize(
    "weighted", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "weighted"]
)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in OF_EACH_KIND else pytest.mark.slow) for n in CASES],
)
@settings(max_examples=4)
@given(draw=st.data())
def test_no_way_of_splitting_changes_a_number(name: str, weighted: bool, draw: Any) -> None:
    if weighted and name in UNWEIGHTED:
        return
    metric: Metric = m.Weighted(CASES[name]) if weighted else CASES[name]
    data = draw.draw(examples(name))
    whole = one_batch(metric, data, draw.draw).results(name)
    for way, split in WAYS.items():
        results = split(metric, data, draw.draw).results(name)
        assert results.keys() == whole.keys()
        for key, value in results.items():
            np.testing.assert_allclose(value, whole[key], rtol=2e-5, atol=2e-5, err_msg=way)


def bits(metric: Metric) -> list[bytes]:
    arrays = jax.tree.leaves(eqx.filter(metric, eqx.is_array))
    return [np.asarray(leaf).tobytes() for leaf in arrays]


@every_metric
@settings(max_examples=4)
@given(draw=st.data())
def test_reset_is_the_identity_bit_for_bit(name: str, draw: Any) -> None:
    seen = contribution(CASES[name], rows(draw.draw(examples(name)), slice(SIZE)))
    assert bits(merged(seen, seen.reset())) == bits(seen)
    assert bits(merged(seen.reset(), seen)) == bits(seen)


@every_metric
@given(draw=st.data())
@settings(max_examples=1)
def test_dtype_and_structure_stay_what_they_are_from_the_first_update(name: str, draw: Any) -> None:
    new = contribution(CASES[name], rows(draw.draw(examples(name)), slice(SIZE)))
    kinds: Callable[[Any], Any] = lambda metric: jax.tree.map(
        lambda leaf: jax.typeof(leaf) if eqx.is_array(leaf) else leaf,
        _logs.extract_gathers(metric)[0],
    )
    for other in (new.reset(), merged(new, new), merged(new.reset(), new), new.merge(new)):
        assert eqx.tree_equal(kinds(other), kinds(new))
    for leaf in jax.tree.leaves(eqx.filter(_logs.extract_gathers(new)[0], eqx.is_array)):
        assert leaf.dtype in (jnp.float32, jnp.bool_) and not leaf.weak_type


NOTHING: dict[str, Any] = {"sum": 0, "gather": [], "modes_gather": [], "confusion_matrix": 0}


@every_metric
def test_what_saw_nothing_is_nan_and_counts_are_0(name: str) -> None:
    shape = (SIZE,) if name in VALUES else (SIZE, CLASSES)
    y_true = np.zeros(SIZE, np.float32 if name in VALUES else np.int32)
    weight, mask = np.ones(SIZE, np.float32), np.zeros(SIZE, bool)
    batch = {"y_pred": np.ones(shape, np.float32), "y_true": y_true, "sample_weight": weight}
    padding = contribution(CASES[name], batch | {"mask": mask})
    for empty in (CASES[name], CASES[name].reset(), padding, padding.reset()):
        for path, value in empty.results(name).items():
            np.testing.assert_array_equal(value, NOTHING.get(path, np.nan), err_msg=path)


def test_every_metric_is_among_the_cases() -> None:
    """A new metric joins the list, or says here why it has no part in it."""
    of_steps = {"GradientNorm", "UpdateNorm", "UpdateRatio", "DeadUnits", "LearningRate"}
    tested_as_they_are = {"MeanSquaredLogError", "CosineSimilarity"}  # of no negative values; rows
    wrappers = {"Metric", "ClassMetric", "Weighted", "On"}
    public = {n for n in dir(m) if isinstance(getattr(m, n), type)}
    covered = {type(metric).__name__ for metric in CASES.values()}
    assert public - covered == of_steps | tested_as_they_are | wrappers - {"On"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["values", "scores"])
def test_evaluate_in_batches_gives_of_every_metric_what_one_batch_gives(
    kind: str, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    y = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    weight = rng.random(ROWS).astype(np.float32)
    metrics: dict[str, Any] = dict(SCORES if kind == "scores" else VALUES)
    metrics |= {f"{n}/weighted": m.Weighted(v) for n, v in metrics.items() if n not in UNWEIGHTED}
    if kind == "values":
        x, y = x[:, 0], x[:, 1]
    learner = et.Learner(eqx.nn.Identity(), None, metrics=metrics)
    split = learner.evaluate(x, y, sample_weight=weight, batch_size=SIZE)
    assert len(split) > len(metrics)
    batch = {"y_pred": x, "y_true": y, "sample_weight": weight}
    for name, metric in metrics.items():
        for path, value in contribution(metric, batch).results(name).items():
            np.testing.assert_allclose(split.pop(path), value, rtol=2e-5, atol=2e-5, err_msg=path)
    assert not split


@pytest.mark.slow
@every_metric
def test_with_64_bits_switched_on_numbers_and_dtypes_are_the_same(
    name: str, rng: np.random.Generator
) -> None:
    scores, labels = rng.normal(size=(COUNTS[-1], CLASSES)), rng.integers(0, CLASSES, COUNTS[-1])
    data = {"y_pred": scores, "y_true": labels, "sample_weight": np.ones(COUNTS[-1])}
    if name in VALUES:
        data |= {"y_pred": scores[:, 0], "y_true": scores[:, 1]}
    small = {n: v.astype(np.float32 if v.dtype == float else np.int32) for n, v in data.items()}
    expected = contribution(CASES[name], small).results(name)
    with jax.enable_x64(True):
        new = contribution(CASES[name], data)
        wide = merged(new, new.reset()).results(name)
        arrays = jax.tree.leaves(eqx.filter(_logs.extract_gathers(new)[0], eqx.is_array))
    for key, value in expected.items():
        np.testing.assert_allclose(wide[key], value, rtol=2e-5, atol=2e-5)
    if name != "last":  # which keeps what it is given
        assert {leaf.dtype for leaf in arrays} <= {np.dtype(np.float32), np.dtype(bool)}
