"""`GradientMonitor`: norms, ratios, spikes and dead units, against a loop by hand."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner

import eqxtrain as et
from eqxtrain.callbacks import GradientMonitor

SIZE = 4


def model() -> Any:
    return eqx.nn.MLP(4, 3, 6, 1, key=jr.key(0))


def norm(tree: Any) -> float:
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in leaves)))


def by_hand(x: Any, y: Any, begin: Any, epochs: int = 1) -> list[dict[str, float]]:
    """For each step of plain gradient descent: norms, and ratios by layer."""
    optimizer, params = optax.sgd(0.1), begin
    state = optimizer.init(eqx.filter(params, eqx.is_inexact_array))
    loss = lambda m, x, y: CROSS_ENTROPY(jax.vmap(m)(x), y).mean()
    seen: list[dict[str, float]] = []
    updates: Any
    for start in list(range(0, len(x), SIZE)) * epochs:
        grads = eqx.filter_grad(loss)(params, x[start : start + SIZE], y[start : start + SIZE])
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state)
        seen.append(
            {
                "gradient_norm": norm(grads),
                "gradient_norm/layers[1]": norm(grads.layers[1]),
                "update_ratio": norm(updates) / norm(params),
                "update_ratio/layers[0]": norm(updates.layers[0]) / norm(params.layers[0]),
            }
        )
        params = eqx.apply_updates(params, updates)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("per_layer", [False, True])
def test_the_logs_are_those_of_a_loop_by_hand(per_layer: bool) -> None:
    x, y = data(16)
    monitor = GradientMonitor(per_layer=per_layer)
    made = learner(model(), optax.sgd(0.1))
    _, history = made.fit(
        x, y, batch_size=SIZE, epochs=2, shuffle=False, verbose=0, callbacks=monitor
    )
    steps = by_hand(x, y, model(), epochs=2)
    names = [name for name in steps[0] if ("/" in name) == per_layer]
    for name in names:
        values = [step[name] for step in steps]
        expected = [np.mean(values[:4]), np.mean(values[4:])]
        assert history[name] == pytest.approx(expected, rel=1e-4), name
    norms = [step["gradient_norm"] for step in steps]
    assert history["gradient_norm_max"] == pytest.approx([max(norms[:4]), max(norms[4:])], rel=1e-4)
    assert not [name for name in history if name.startswith("__")] and monitor.spikes == []


def test_a_spike_is_found_at_its_step() -> None:
    x, y = data(40)
    x = x.copy()
    x[20:24] *= 1000
    monitor = GradientMonitor(spike_factor=5.0)
    made = learner(optimizer=optax.sgd(1e-9), metrics=None)
    with pytest.warns(UserWarning, match="The gradient of step 6 of the learner's life"):
        made.fit(x, y, batch_size=SIZE, epochs=2, shuffle=False, verbose=0, callbacks=monitor)
    grad = eqx.filter_grad(lambda m, x, y: CROSS_ENTROPY(jax.vmap(m)(x), y).mean())
    starts = range(0, 40, SIZE)
    norms = [norm(grad(made.model, x[i : i + SIZE], y[i : i + SIZE])) for i in starts]
    first, second = monitor.spikes
    assert (first.step, second.step) == (5, 15)
    assert first.norm == pytest.approx(norms[5], rel=1e-4)
    assert first.usual == pytest.approx(np.mean(norms[:5] + norms[6:]), rel=1e-3)
    again = GradientMonitor()
    again.load_state_dict(monitor.state_dict())
    assert again.spikes == monitor.spikes


@pytest.mark.slow
def test_units_without_a_gradient_are_counted() -> None:
    dead = model()
    bias = jnp.asarray([-1e3, 0.0, 0.0, -1e3, 0.0, 0.0])
    dead = eqx.tree_at(lambda m: m.layers[0].bias, dead, bias)
    x, y = data(16)
    # So that some unit of the first layer is positive for each example, or is dead for ever.
    made = learner(dead, optax.sgd(0.1))
    _, history = made.fit(
        x, y, batch_size=SIZE, epochs=2, verbose=0, callbacks=GradientMonitor(dead_units=True)
    )
    assert history["dead_units/layers[0]"] == pytest.approx([2 / 6, 2 / 6])
    assert history["dead_units/layers[1]"] == [0.0, 0.0]


class Silent(et.Learner[Any]):
    def train_step(self, **available: Any) -> Any:
        logs, model, state = super().train_step(**available)
        return {"loss": logs["loss"]}, model, state


def test_a_step_without_those_logs_has_none() -> None:
    made = Silent(model(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    _, history = made.fit(*data(8), verbose=0, callbacks=GradientMonitor())
    assert list(history) == ["loss"]


def test_a_monitor_can_be_followed_by_early_stopping() -> None:
    stop = et.callbacks.EarlyStopping("gradient_norm_max", mode="min", min_delta=1e9)
    _, history = learner().fit(*data(8), epochs=9, verbose=0, callbacks=[GradientMonitor(), stop])
    assert history.epochs == 2


def test_a_factor_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GradientMonitor\(spike_factor\)"):
        GradientMonitor(spike_factor=0.5)


def test_a_second_run_begins_without_spikes() -> None:
    x, y = data(16)
    x = x.copy()
    x[4:8] *= 1000
    monitor = GradientMonitor(spike_factor=2.0)
    made = learner(optimizer=optax.sgd(1e-9), metrics=None)
    for _ in range(2):
        with pytest.warns(UserWarning, match="The gradient of step 2"):
            made.fit(x, y, batch_size=SIZE, shuffle=False, verbose=0, callbacks=monitor)
        assert len(monitor.spikes) == 1


def test_a_norm_of_nan_is_the_largest() -> None:
    x, y = data(16)
    x = x.copy()
    x[9] = np.nan
    with pytest.warns(UserWarning, match="nan"):
        _, history = learner(metrics=None).fit(
            x, y, batch_size=SIZE, shuffle=False, verbose=0, callbacks=GradientMonitor()
        )
    assert np.isnan(history["gradient_norm_max"][0])


def test_a_peak_does_not_drown_the_others() -> None:
    x, y = data(16)
    x = x.copy()
    x[4:8] *= 1e12
    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="has a norm of"):
        learner(optimizer=optax.sgd(1e-30), metrics=None).fit(
            x, y, batch_size=SIZE, shuffle=False, verbose=0, callbacks=monitor
        )
    assert 0.1 < monitor.spikes[0].usual < 10


@pytest.mark.slow
def test_it_works_in_64_bits_and_with_nothing_to_train() -> None:
    x, y = data(8)
    with jax.enable_x64(True):
        learner(model(), optax.sgd(0.1)).fit(
            x.astype(np.float64),
            y,
            verbose=0,
            callbacks=[GradientMonitor(), et.callbacks.TerminateOnNaN()],
        )
    frozen = learner(trainable=lambda leaf: False)
    _, history = frozen.fit(*data(8), verbose=0, callbacks=GradientMonitor())
    assert history["update_ratio"] == [0.0]


def test_metrics_of_a_callback_must_be_metrics() -> None:
    callback = et.Callback()
    callback.metrics = {"mine": lambda grads: 0.0}  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match=r"`Callback.metrics\['mine'\]` must be a metric"):
        learner().fit(*data(8), verbose=0, callbacks=callback)
