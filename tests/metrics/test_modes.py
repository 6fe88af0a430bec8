"""The modes that fold numbers, next to NumPy's. That no split changes them is in `test_base.py`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data, learner

from eqxtrain.metrics import (
    Accuracy,
    Last,
    Max,
    Mean,
    Metric,
    Min,
    Modes,
    Std,
    Sum,
    Weighted,
    from_function,
)

# Each mode with NumPy's word for it.
MODES: dict[str, tuple[Callable[..., Metric], Callable[..., Any]]] = {
    "mean": (Mean.of, np.mean),
    "sum": (Sum.of, np.sum),
    "min": (Min.of, np.min),
    "max": (Max.of, np.max),
    "std": (Std.of, np.std),
}
every_mode = pytest.mark.parametrize(("of", "numpy"), MODES.values(), ids=MODES)


@every_mode
def test_of_a_batch_agrees_with_numpy(
    of: Callable[..., Metric], numpy: Callable[..., Any], rng: np.random.Generator
) -> None:
    values = rng.normal(size=9).astype(np.float32)
    np.testing.assert_allclose(of(values).compute(), numpy(values.astype(float)), rtol=1e-6)


@every_mode
def test_padding_is_ignored_even_where_it_is_nan(
    of: Callable[..., Metric], numpy: Callable[..., Any], rng: np.random.Generator
) -> None:
    values = rng.normal(size=9).astype(np.float32)
    mask = np.arange(9) < 6
    padded = np.where(mask, values, np.float32(np.nan))
    result = of(padded, mask=mask).compute()
    np.testing.assert_allclose(result, numpy(values[:6].astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    ("of", "expected"), [(Mean.of, 2.5), (Sum.of, 10), (Min.of, 1), (Max.of, 4)]
)
def test_a_mask_leaves_out_whole_rows(of: Callable[..., Metric], expected: float) -> None:
    rows = jnp.array([[1.0, 2.0], [3.0, 4.0], [jnp.nan, 9.0]])
    assert of(rows, mask=jnp.array([True, True, False])).compute() == expected


@every_mode
def test_a_mask_that_is_not_one_bool_a_row_is_refused(
    of: Callable[..., Metric], numpy: Callable[..., Any]
) -> None:
    for mask in (jnp.array([True]), jnp.array([[True], [True], [True]]), jnp.array(True)):
        with pytest.raises(ValueError, match="mask"):
            of(jnp.ones((3, 2)), mask=mask)


@every_mode
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.float16, jnp.bfloat16, jnp.bool_])
def test_any_dtype_is_measured_in_float32(
    of: Callable[..., Metric], numpy: Callable[..., Any], dtype: Any
) -> None:
    values = jnp.array([1, 0, 1, 1]).astype(dtype)
    result = of(values).compute()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, numpy([1.0, 0.0, 1.0, 1.0]), rtol=1e-6)


@every_mode
def test_a_scalar_stands_for_itself(of: Callable[..., Metric], numpy: Callable[..., Any]) -> None:
    np.testing.assert_allclose(of(jnp.float32(3.5)).compute(), numpy([3.5]))
    np.testing.assert_allclose(of(2.0).compute(), numpy([2.0]))


@every_mode
def test_a_nan_that_is_seen_is_reported_and_stays(
    of: Callable[..., Metric], numpy: Callable[..., Any]
) -> None:
    seen, finite = of(jnp.array([1.0, jnp.nan])), of(jnp.array([1.0, 2.0]))
    for metric in (seen, seen.merge(finite), finite.merge(seen), seen.merge(seen.reset())):
        assert jnp.isnan(metric.compute())


@pytest.mark.parametrize(
    ("of", "expected"), [(Mean.of, np.inf), (Sum.of, np.inf), (Min.of, 1), (Max.of, np.inf)]
)
def test_an_infinite_value_gives_an_infinite_total_and_no_nan(
    of: Callable[..., Metric], expected: float
) -> None:
    seen, finite = of(jnp.array([3.0, jnp.inf])), of(jnp.array([1.0, 2.0]))
    for metric in (seen.merge(finite), finite.merge(seen), seen.merge(seen).merge(finite)):
        assert metric.compute() == expected


def test_a_pass_of_infinities_has_an_infinite_extreme_and_not_nan() -> None:
    assert Max.of(jnp.array([-jnp.inf])).merge(Max()).compute() == -jnp.inf
    assert Min.of(jnp.array([jnp.inf])).merge(Min()).compute() == jnp.inf


def test_an_empty_batch_is_nothing_seen() -> None:
    for of, _ in MODES.values():
        empty = of(jnp.zeros(0))
        np.testing.assert_equal(float(empty.compute()), 0.0 if isinstance(empty, Sum) else np.nan)


def test_a_hundred_million_equal_contributions_keep_their_mean() -> None:
    steps, weight = 10**6, 101

    @jax.jit
    def folded() -> jax.Array:
        one = Mean.of(0.1, weight)
        return jax.lax.fori_loop(0, steps, lambda _, m: m.merge(one), Mean().reset()).compute()

    @jax.jit
    def plain() -> jax.Array:
        one = jnp.array([0.1 * weight, weight], jnp.float32)
        total = jax.lax.fori_loop(0, steps, lambda _, sums: sums + one, jnp.zeros(2))
        return total[0] / total[1]

    assert abs(float(folded()) - 0.1) < 1e-6
    assert abs(float(plain()) - 0.1) > 1e-3  # a float32 sum alone would not do


def test_mean_of_a_scalar_stands_for_its_weight() -> None:
    mean = Mean.of(1.0, 3).merge(Mean.of(jnp.float32(5.0), jnp.int32(1)))
    assert mean.compute() == 2.0


def test_mean_of_a_scalar_without_weight_counts_for_nothing_even_if_it_is_nan() -> None:
    assert Mean.of(2.0).merge(Mean.of(jnp.nan, 0)).compute() == 2.0


def test_mean_of_a_batch_takes_one_weight_an_example(rng: np.random.Generator) -> None:
    values, weight = rng.uniform(size=(2, 7)).astype(np.float32)
    mask = np.arange(7) != 2
    result = Mean.of(values, weight, mask=mask).compute()
    oracle = np.average(values[mask].astype(float), weights=weight[mask].astype(float))
    np.testing.assert_allclose(result, oracle, rtol=1e-6)


def test_mean_averages_trailing_axes_within_their_example(rng: np.random.Generator) -> None:
    values = rng.normal(size=(4, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(Mean.of(values).compute(), values.mean(), rtol=1e-5)


def test_mean_of_refuses_what_it_cannot_weigh() -> None:
    with pytest.raises(ValueError, match="scalar can't use a `mask`"):
        Mean.of(1.0, mask=jnp.array([True]))
    with pytest.raises(ValueError, match=r"shape \(2,\) as the weight of a scalar"):
        Mean.of(1.0, jnp.ones(2))
    with pytest.raises(ValueError, match=r"3 examples and weights of shape \(2,\)"):
        Mean.of(jnp.ones(3), jnp.ones(2))


def test_std_keeps_its_digits_where_the_mean_is_large(rng: np.random.Generator) -> None:
    values = (rng.normal(size=400) + 1e4).astype(np.float32)
    folded = Std()
    for batch in np.split(values, 8):
        folded = folded.merge(Std.of(batch))
    np.testing.assert_allclose(folded.compute(), values.astype(float).std(), rtol=1e-3)


def test_std_of_one_value_or_of_equal_ones_is_0() -> None:
    assert Std.of(jnp.array([3.0])).compute() == 0
    assert Std.of(jnp.full(4, 0.1)).merge(Std.of(jnp.full(4, 0.1))).compute() == 0


@pytest.mark.parametrize("mode", [Mean, Sum, Min, Max, Std, Last])
def test_a_bare_mode_measures_y_pred_under_the_mask(mode: Callable[[], Metric]) -> None:
    metric = mode().update(y_pred=jnp.array([2.0, jnp.nan]), mask=jnp.array([True, False]))
    assert metric.compute() == (0 if mode is Std else 2)


# Of values and weights, with NumPy's word for it: a weighted covariance, for the deviation.
WEIGHED: dict[str, tuple[Metric, Callable[..., Any]]] = {
    "mean": (Mean(), lambda v, w: np.average(v, weights=w)),
    "sum": (Sum(), lambda v, w: np.sum(v * w)),
    "min": (Min(), lambda v, w: v[w > 0].min()),
    "max": (Max(), lambda v, w: v[w > 0].max()),
    "std": (Std(), lambda v, w: np.sqrt(np.cov(v, aweights=w, ddof=0))),
}


@pytest.mark.parametrize("tokens", [False, True], ids=["rows", "tokens"])
@pytest.mark.parametrize(("mode", "numpy"), WEIGHED.values(), ids=WEIGHED)
def test_weights_whose_sum_is_below_1_weigh_as_in_numpy(
    mode: Metric, numpy: Callable[..., Any], tokens: bool, rng: np.random.Generator
) -> None:
    values = rng.normal(size=(12, 3) if tokens else 12).astype(np.float32)
    weight = rng.uniform(0, 0.02, values.shape).astype(np.float32)
    weight[[2, 9]] = 0
    values[[2, 9]] = np.nan
    metric: Metric = Weighted(mode)
    for rows in (slice(0, 5), slice(5, 12)):
        metric = metric.update(y_pred=values[rows], sample_weight=weight[rows], mask=None)
    expected = numpy(np.nan_to_num(values).ravel().astype(float), weight.ravel().astype(float))
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-5)


@pytest.mark.slow
def test_std_over_steps_is_numpys_of_the_means_of_the_steps(rng: np.random.Generator) -> None:
    values, weight = rng.normal(size=(40, 2)).astype(np.float32), rng.uniform(0, 0.01, 40)
    steps = np.split(np.arange(40), [3, 14, 20])
    plain, weighted = Std(over="steps"), Weighted(Std(over="steps"))
    for rows in steps:
        plain = plain.merge(plain.reset().update(values[rows]))
        w = weight[rows].astype(np.float32)
        weighted = weighted.merge(weighted.reset().update(y_pred=values[rows], sample_weight=w))
    expected = np.std([values[rows].mean(dtype=float) for rows in steps])
    np.testing.assert_allclose(plain.compute(), expected, rtol=1e-5)
    means = [np.average(values[rows].mean(1, float), weights=weight[rows]) for rows in steps]
    np.testing.assert_allclose(weighted.compute(), np.std(means), rtol=1e-5)


def test_std_over_steps_leaves_out_padding_and_steps_of_it_alone() -> None:
    padded = jnp.float32([1.0, 3.0, np.nan])
    seen = Std(over="steps").update(padded, mask=np.array([True, True, False]))
    seen = seen.update(padded, mask=np.zeros(3, bool)).update(jnp.float32(5.0))
    assert seen.compute() == np.std([2, 5])
    assert jnp.isnan(seen.reset().compute()) and seen.reset().over == "steps"


def test_std_over_steps_of_what_a_function_gives_is_numpys() -> None:
    metric = from_function(lambda y_pred: jnp.max(y_pred), Std(over="steps"), name="peak")
    for step in ([1.0, 4.0], [9.0, 2.0, 3.0], [5.0]):
        metric = metric.update(y_pred=jnp.array(step))
    np.testing.assert_allclose(metric.compute(), np.std([4, 9, 5]), rtol=1e-6)


def test_std_over_something_else_is_refused(unchecked: None) -> None:
    over: Any = "epochs"
    with pytest.raises(ValueError, match=r"`Std\(over='epochs'\)` is not valid.*\"steps\""):
        Std(over=over)


@pytest.mark.slow
def test_several_modes_of_one_value_go_by_their_suffixes(rng: np.random.Generator) -> None:
    values = rng.normal(size=20).astype(np.float32)
    modes = Modes(Mean(), Max(), Std(), Std(over="steps"), Last())
    seen = modes.update(values[:8]).merge(modes.update(values[8:], mask=np.arange(12) < 10))
    real, means = values[:18].astype(float), [values[:8].mean(), values[8:18].mean()]
    expected = {
        "mean": real.mean(),
        "max": real.max(),
        "std": real.std(),
        "std_1": np.std(means),
        "last": real[-1],
    }
    assert seen.compute() == pytest.approx(expected, rel=1e-5)
    assert seen.results("norm") == pytest.approx(
        {f"norm_{name}": value for name, value in expected.items()}, rel=1e-5
    )


def test_modes_made_by_hand_are_one_contribution_to_each() -> None:
    made = Modes.of(jnp.array([1.0, 5.0, 9.0]), Mean(), Max(), mask=jnp.array([True, True, False]))
    assert made.compute() == {"mean": 3, "max": 5}
    used = Modes.of(jnp.float32(2), Mean().update(jnp.array([100.0])), Sum())
    assert used.compute() == {"mean": 2, "sum": 2}


def test_modes_that_saw_nothing_are_nan() -> None:
    modes = Modes(Mean(), Min(), Std(), Last())
    for empty in (modes, modes.update(jnp.ones(3)).reset()):
        assert all(jnp.isnan(value) for value in empty.compute().values())


@pytest.mark.parametrize("wrong", [(), (Mean,), (Mean(), 3), (Accuracy(),)])
def test_what_is_no_mode_is_refused(wrong: tuple[Any, ...], unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"`Modes` takes (modes|at least one mode)"):
        Modes(*wrong)


@pytest.mark.slow
def test_modes_in_a_fit_overwrite_nothing_and_agree_with_numpy() -> None:
    x, y = data(21)
    metrics = [Modes(Mean(), Max()), Modes(Mean()), {"modes_max": Min()}]
    result = learner(metrics=metrics).evaluate(x, y, batch_size=8)
    y_pred = learner().init().predict(x)
    means = [value for name, value in result.items() if "mean" in name]
    assert means == pytest.approx([y_pred.mean()] * 2, rel=1e-4)
    rest = sorted(value for name, value in result.items() if "max" in name)
    assert rest == pytest.approx([y_pred.min(), y_pred.max()], rel=1e-5)
    assert {"loss", "modes_mean", "modes_max"} < result.keys() and len(result) == 5
