"""`TerminateOnNaN`: which step it names, and what it finds there."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, linear, same

import eqxtrain as et
from eqxtrain.callbacks import TerminateOnNaN

BAD = 37
"""The row of the data that is nan."""


def bad_data(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    x, y = data(n)
    x = x.copy()
    x[BAD, 2] = np.nan
    return x, y


def unmeasured() -> et.Learner[Any]:
    return learner(metrics=None)  # an accuracy would warn of nan as well


def fitted(made: et.Learner[Any], *arrays: Any, **options: Any) -> tuple[TerminateOnNaN, Any]:
    watch = TerminateOnNaN()
    options = {"batch_size": 4, "verbose": 0, "shuffle": False} | options
    with pytest.warns(UserWarning, match="not finite|The loss is nan"):
        fit = made.fit(*arrays, callbacks=watch, **options)
    return watch, fit


@pytest.mark.parametrize("steps_per_call", [1, 4, "auto"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_first_bad_step_and_its_example_are_named(steps_per_call: Any, shuffle: bool) -> None:
    x, y = bad_data()
    watch, (after, history) = fitted(
        unmeasured(), x, y, epochs=3, steps_per_call=steps_per_call, shuffle=shuffle
    )
    assert watch.replay is not None and watch.step is not None
    rows = watch.replay.rows
    assert rows is not None and BAD in rows
    if not shuffle:
        assert watch.step == BAD // 4 and rows.tolist() == [36, 37, 38, 39]
    assert history.stopped == f"not finite in step {watch.step + 1}"
    assert f"row {BAD} of the data" in str(watch.message)
    assert "`x` is not finite" in str(watch.message) and "Its loss is nan" in str(watch.message)
    assert "`grads.weight`, `grads.bias` are not finite" in str(watch.message)
    state: Any = after.state
    assert int(state.step) <= 20
    # The learner is that of the steps before, to the bit.
    reached, _ = unmeasured().fit(
        x, y, steps=watch.step, batch_size=4, verbose=0, shuffle=shuffle,
        steps_per_call=steps_per_call, callbacks=TerminateOnNaN(),
    )  # fmt: skip
    assert same(watch.replay.learner.model, reached.model)
    assert np.isfinite(np.asarray(reached.model.weight)).all()
    np.testing.assert_array_equal(np.asarray(watch.replay.arguments["x"]), x[rows])


def test_it_stops_within_the_promised_number_of_steps() -> None:
    x, y = bad_data(4000)
    watch = TerminateOnNaN(max_delay=20)
    with pytest.warns(UserWarning, match="Step 10 of the learner's life, in epoch 1"):
        after, history = unmeasured().fit(
            x, y, batch_size=4, verbose=0, shuffle=False, callbacks=watch, steps_per_call=8
        )
    state: Any = after.state
    assert watch.step == 9 and 10 <= int(state.step) <= 10 + 20 + 8
    assert history.epochs == 1


def test_a_later_epoch_is_replayed_from_its_beginning() -> None:
    """A rate that is far too high: the weights overflow after some steps."""
    x, y = data(16)
    made = et.Learner(linear(), optax.sgd(1e12), loss=lambda y_pred, y_true: (y_pred**2).sum(-1))
    watch, (_, history) = fitted(made, x, y, epochs=20, shuffle=True)
    assert watch.step is not None and watch.replay is not None
    assert history.epochs == watch.step // 4 + 1
    reached, _ = made.fit(
        x, y, steps=watch.step, batch_size=4, verbose=0, callbacks=TerminateOnNaN()
    )
    assert same(watch.replay.learner.model, reached.model)
    assert "In its batch" not in str(watch.message)


class Roots(eqx.Module):
    """Its gradient at 0 is inf, while its value is 0."""

    weight: Any

    def __call__(self, x: Any) -> Any:
        return jnp.sqrt(x * self.weight)


def test_a_gradient_that_is_not_finite_is_found_where_the_loss_is() -> None:
    x = np.ones((12, 1), np.float32)
    x[5] = 0.0
    made = et.Learner(Roots(jnp.ones(1)), optax.lion(1e-2), loss=lambda y_pred: y_pred.mean(-1))
    watch, _ = fitted(made, (x,))
    assert watch.step == 1 and "Its loss is 0.7" in str(watch.message)
    assert "Of its gradient, `grads.weight` is not finite" in str(watch.message)
    assert "row 5 of the data" in str(watch.message)


class ByItself(et.Learner[Any]):
    def train_step(self, **available: Any) -> Any:
        logs, model, state = super().train_step(**available)
        return {"loss": logs["loss"]}, model, state


def test_without_the_logs_of_apply_gradients_the_loss_is_watched() -> None:
    made = ByItself(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    watch, (_, history) = fitted(made, *bad_data())
    assert watch.replay is None and str(watch.message).startswith("The loss is nan by step")
    assert watch.step is None and str(history.stopped).startswith("not finite by step")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"snapshots": False}, "`snapshots=False` or `donate=True`"),
        ({"once": True}, "It could not be looked into: "),
    ],
)
def test_what_cant_be_gone_back_to_still_stops(options: dict[str, Any], said: str) -> None:
    x, y = bad_data()
    if options.pop("once", False):
        arrays: Any = (((x[i : i + 4], y[i : i + 4]) for i in range(0, 80, 4)),)
    else:
        arrays = (x, y)
    watch, (_, history) = fitted(unmeasured(), *arrays, **options)
    assert watch.step == BAD // 4 and watch.replay is None
    assert said in str(watch.message) and history.stopped == "not finite in step 10"


def test_whoever_only_watches_changes_nothing_and_leaves_no_trace() -> None:
    x, y = data(24)
    options: dict[str, Any] = {"batch_size": 8, "epochs": 2, "verbose": 0}
    watch = TerminateOnNaN()
    watched, history = learner().fit(x, y, callbacks=watch, validation_split=0.25, **options)
    plain, expected = learner().fit(x, y, validation_split=0.25, **options)
    assert list(history) == list(expected) and history.directions == expected.directions
    for a, b in zip(watched.model.weight.ravel(), plain.model.weight.ravel(), strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-5)
    assert watch.step is None and watch.message is None
    with et.max_compiles(0):
        learner().fit(x, y, callbacks=TerminateOnNaN(), validation_split=0.25, **options)


def test_two_callbacks_that_measure_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Two callbacks measure `__callback/nonfinite`"):
        learner().fit(*data(8), callbacks=[TerminateOnNaN(), TerminateOnNaN()], verbose=0)


def test_what_a_run_can_go_back_to() -> None:
    said: list[str] = []

    class Goes(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 5:
                for step in (2, 5):
                    with pytest.raises(ValueError) as raised:
                        run.replay(step)
                    said.append(str(raised.value))
                again = run.replay(3)
                _, model, _ = again.learner.train_step(**again.arguments)
                expected = run.replay(4).learner
                np.testing.assert_allclose(model.weight, expected.model.weight, rtol=1e-5)

        def on_test_end(self, run: et.Run) -> None:
            with pytest.raises(ValueError, match="goes back to a training step of `fit`"):
                run.replay(0)

    x, y = data(24)
    made, _ = learner().fit(x, y, batch_size=8, epochs=2, callbacks=Goes(), verbose=0)
    made.evaluate(x, y, callbacks=Goes())
    assert said == [
        f"Step {n} can't be gone back to: steps 3 to 4 can, those since the beginning of the epoch."
        for n in (2, 5)
    ]


class NeedsWholeBatches(et.Learner[Any]):
    def test_step(self, **available: Any) -> Any:
        loss, logs, state = super().test_step(**available)
        _ = available["x"].reshape(4, 4)  # 4 rows of 4
        return loss, logs, state


def test_a_step_that_takes_no_part_of_a_batch_ends_all_the_same() -> None:
    made = NeedsWholeBatches(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    watch, (_, history) = fitted(made, *bad_data())
    assert "None of its examples alone" in str(watch.message)
    assert history.stopped == "not finite in step 10"


def test_weights_that_are_not_finite_are_not_blamed_on_the_examples() -> None:
    broken = eqx.tree_at(lambda m: m.bias, linear(), jnp.full(3, jnp.nan))
    watch, _ = fitted(learner(broken, metrics=None), *data(8))
    assert "Before it, `model.bias` is not finite" in str(watch.message)
    assert "What makes it so" not in str(watch.message)
