"""What a pass accumulates, and when it is computed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    data,
    learner,
    linear,
)
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _placement
from eqxtrain._engine.runner import StepRunner
from eqxtrain._engine.step import TRAIN
from eqxtrain.metrics import _logs


def test_accumulators_keep_dtype_and_structure_from_the_first_step() -> None:
    x, y = data(24)
    running = StepRunner(learner().init(), TRAIN)
    describe = lambda a: (a.shape, a.dtype, a.weak_type) if eqx.is_array(a) else a
    seen: list[Any] = []
    for start in (0, 8, 16):
        running((x[start : start + 8], y[start : start + 8]))
        metrics = running.accumulators.with_emitted()
        seen.append(jax.tree.map(describe, (running.learner.state, metrics)))
    assert seen[0] == seen[1] == seen[2]
    assert set(seen[0][1]) == {"loss", "accuracy"}


@pytest.mark.slow
def test_a_metric_configured_by_an_array_keeps_it_from_the_first_batch() -> None:
    class Above(et.metrics.Metric):
        thresholds: Array
        counts: Any = None

        def update(self, y_pred: Array) -> Any:
            new = jnp.sum(y_pred[:, :1] > self.thresholds[None], axis=0).astype(jnp.float32)
            return Above(self.thresholds, new)

        def merge(self, other: Any) -> Any:
            return Above(self.thresholds, self.counts + other.counts)

        def reset(self) -> Any:
            return Above(self.thresholds, jnp.zeros(len(self.thresholds)))

        def compute(self) -> Any:
            return {"at": self.thresholds, "count": self.counts}

    x, y = data(21)
    thresholds = jnp.asarray([-1.0, 0.0, 1.0])
    made = learner(metrics={"above": Above(thresholds)})
    result = made.evaluate(x, y, batch_size=8)
    assert result["above/at"].tolist() == [-1.0, 0.0, 1.0]
    expected = (made.predict(x)[:, :1] > np.asarray(thresholds)).sum(0)
    assert result["above/count"].tolist() == expected.tolist()


def test_a_log_whose_shape_follows_the_batch_is_refused_by_name() -> None:
    class Follows(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"rows": et.metrics.Last.of(x[:, 0])}, state

    with pytest.raises(ValueError, match=r"logs\['rows'\].value`: float32\[8\] → float32\[5\]"):
        Follows(linear(), None).evaluate(data(21)[0], batch_size=8)


def test_metrics_are_computed_when_somebody_looks_and_not_in_steps() -> None:
    computed: list[int] = []

    class Told(et.metrics.Metric):
        mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

        def update(self, y_pred: Array) -> Any:
            return self.replace(mean=self.mean.update(y_pred))

        def compute(self) -> Array:
            computed.append(1)
            return self.mean.compute()

    x, y = data(16)
    running = StepRunner(learner(metrics=Told()).init(), TRAIN)
    for _ in range(3):
        running((x, y))
    running.wait()
    assert not computed
    assert np.isfinite(running.accumulators.compute_logs()["told"]) and len(computed) == 1


@pytest.mark.slow
def test_probabilities_that_are_logits_are_nan_and_say_so() -> None:
    x, y = data()
    metrics = {"area": et.metrics.AUROC(), "loss": et.metrics.Weighted(et.metrics.LogLoss())}
    metrics |= {"exact": et.metrics.AUROC(bins=None)}
    with (
        pytest.warns(UserWarning, match=r"`area` is nan: `AUROC` .*`from_logits=True`"),
        pytest.warns(UserWarning, match=r"`loss_1` is nan: `LogLoss` .*`from_logits=True`"),
        pytest.warns(UserWarning, match=r"`exact` is nan: `AUROC` .*`from_logits=True`"),
    ):
        result = learner(metrics=metrics).evaluate(50 * x, y)
    assert np.isnan(result["area"]) and np.isnan(result["loss_1"])


def test_logs_of_two_shapes_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []
    check = _logs.check_same_structure
    monkeypatch.setattr(
        _logs, "check_same_structure", lambda *given: compared.append(given) or check(*given)
    )
    (x, y), made = data(20), learner()
    made.fit(x, y, epochs=4, batch_size=8, verbose=0)  # tracing compares, too
    compared.clear()
    made.fit(x, y, epochs=4, batch_size=8, verbose=0)
    assert len(compared) == 1


def test_the_logs_of_every_step_of_a_call_are_computed_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arrays, several values of one metric and whole numbers among them."""
    matrix = et.metrics.ConfusionMatrix()
    modes = et.metrics.from_function(
        lambda y_pred: y_pred[:, 0], et.metrics.Mean(), et.metrics.Max()
    )
    made = learner(metrics={"matrix": matrix, "first": modes})
    x, y = data(20)
    fetches: list[Any] = []
    fetch = _placement.fetch

    def logs_of_each_step(steps_per_call: int) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []

        class Reads(et.Callback):
            reads = "logs"

            def on_train_batch_end(self, run: et.Run) -> None:
                with monkeypatch.context() as patch:
                    patch.setattr(_placement, "fetch", lambda t: fetches.append(t) or fetch(t))
                    seen.append(dict(run.logs))

        options: dict[str, Any] = {"shuffle": False, "verbose": 0, "callbacks": Reads()}
        made.fit(x, y, batch_size=4, steps_per_call=steps_per_call, **options)
        return seen

    together, count = logs_of_each_step(5), len(fetches)
    alone = logs_of_each_step(1)
    assert count == 1 and len(together) == len(alone) == 5
    for one, other in zip(together, alone, strict=True):
        assert list(one) == list(other) == ["loss", "first_max", "first_mean", "matrix"]
        assert isinstance(one["loss"], float)
        assert type(one["matrix"]) is type(other["matrix"]) is matrix.array_class
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
    assert [int(logs["matrix"].sum()) for logs in together] == [4, 8, 12, 16, 20]


@pytest.mark.slow
def test_stacks_of_two_sizes_have_their_logs_computed_each() -> None:
    x, y = data(40)
    seen: list[float] = []

    class Reads(et.Callback):
        reads = "logs"

        def on_train_batch_end(self, run: et.Run) -> None:
            seen.append(run.logs["loss"])

    made = learner()
    for steps_per_call in (4, 300):
        made.fit(
            x, y, batch_size=2, steps_per_call=steps_per_call, callbacks=Reads(), verbose=0,
            shuffle=False,
        )  # fmt: skip
    assert seen[:20] == pytest.approx(seen[20:], rel=1e-4)
