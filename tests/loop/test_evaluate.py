"""`evaluate`, `predict` and the validation of a `fit`."""

import gc
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, learner, library, linear, normed, same
from jaxtyping import Array

import eqxtrain as et

X, Y = data(21)


def batches(size: int = 4) -> Iterator[Any]:
    for start in range(0, 21, size):
        yield X[start : start + size], Y[start : start + size]


class Outputs(et.Learner[Any]):
    """Predicts whatever its `make` makes of a batch."""

    make: Any = eqx.field(static=True, default=None)

    def pred_step(self, model: Any, state: Any, x: Array) -> Any:
        return self.make(x), state


def predicting(make: Any) -> Any:
    return Outputs(linear(), None, make=make)


# remainders


@pytest.mark.slow
@pytest.mark.parametrize("remainder", ["keep", "pad"])
@pytest.mark.parametrize("batch_size", [4, 7, 21, 50])
def test_what_is_measured_is_the_same_whatever_becomes_of_the_remainder(
    remainder: Any, batch_size: int
) -> None:
    weights = np.linspace(0, 2, 21).astype(np.float32)
    metrics = [
        et.metrics.Accuracy(), et.metrics.Weighted(et.metrics.Accuracy()), et.metrics.Gather(),
        et.metrics.AUROC(bins=None), CROSS_ENTROPY,
    ]  # fmt: skip
    one_hot = np.eye(3, dtype=np.float32)[Y]
    made = learner(loss=optax.safe_softmax_cross_entropy, metrics=metrics[:3])
    options: dict[str, Any] = {"sample_weight": weights, "class_weight": {1: 3.0}}
    whole = made.evaluate(X, one_hot, batch_size=21, **options)
    result = made.evaluate(X, one_hot, batch_size=batch_size, remainder=remainder, **options)
    assert result.keys() == whole.keys()
    for name in whole:
        np.testing.assert_allclose(result[name], whole[name], rtol=2e-6)
    predicted = made.predict(X, batch_size=batch_size, remainder=remainder)
    np.testing.assert_allclose(predicted, made.predict(X, batch_size=21), rtol=2e-6)


def test_dropping_leaves_out_the_last_batch_alone() -> None:
    made = learner()
    assert made.evaluate(X, Y, batch_size=4, remainder="drop") == made.evaluate(
        X[:20], Y[:20], batch_size=4
    )
    assert made.predict(X, batch_size=4, remainder="drop").shape == (20, 3)
    assert made.predict(lambda: (x for x, _ in batches()), remainder="drop").shape == (20, 3)
    with pytest.raises(ValueError, match=r'`remainder="drop"` leaves no batch.* 21 .*size=32`'):
        made.evaluate(X, Y, remainder="drop")


@pytest.mark.slow
@pytest.mark.parametrize("given", [lambda: batches(), lambda: batches(8)])
def test_iterables_are_padded_to_their_first_batch(given: Any) -> None:
    made = learner(metrics=[et.metrics.Accuracy(), et.metrics.Gather()])
    whole, padded = made.evaluate(X, Y), made.evaluate(given, remainder="pad")
    for name in whole:
        np.testing.assert_allclose(padded[name], whole[name], rtol=2e-6)


def test_a_scalar_and_what_is_gathered_by_hand_stand_for_real_rows_alone() -> None:
    class Logs(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array, mask: Any) -> Any:
            real = jnp.ones(len(x)) if mask is None else mask.astype(jnp.float32)
            mean = jnp.sum(real * x[:, 0]) / jnp.sum(real)
            return mean, {"mean": mean, "all": et.metrics.Gather.of(y_true)}, state

    result = Logs(linear(), None).evaluate(X, Y, batch_size=8, remainder="pad")
    assert result["mean"] == result["loss"] == pytest.approx(X[:, 0].mean(), rel=1e-6)
    assert np.array_equal(result["all"], Y)


def test_padding_needs_steps_and_metrics_that_heed_it() -> None:
    class Heedless(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.mean(x), {}, state

    class Counts(et.metrics.Metric):
        n: et.metrics.Sum = eqx.field(default_factory=et.metrics.Sum)

        def update(self, y_pred: Array) -> Any:
            return self.replace(n=self.n.merge(et.metrics.Sum.of(jnp.sum(y_pred))))

        def compute(self) -> Any:
            return self.n.compute()

    heedless = Heedless(linear(), optax.sgd(0.1))
    for run in (heedless.evaluate, heedless.fit):
        with pytest.raises(TypeError, match=r"`Heedless.test_step` does not ask for `mask`"):
            run(X, remainder="pad", verbose=0)
    assert heedless.predict(X, remainder="pad").shape == (21, 3)  # which does not call it
    with pytest.raises(
        TypeError, match=r"metric `n` looks at the rows of `y_pred`.*not take `mask`"
    ):
        learner(metrics={"n": Counts()}).evaluate(X, Y, remainder="pad")
    outer = learner(metrics={"n": et.metrics.On(Counts(), "a")})
    with pytest.raises(TypeError, match=r"`Counts.update` does not take `mask`"):
        outer.evaluate(X, Y, remainder="pad")


@pytest.mark.slow
def test_padding_and_batch_statistics_are_warned_of_in_training_alone() -> None:
    made = normed().init()
    padded = made.evaluate(X, Y, batch_size=8, remainder="pad")
    assert padded["loss"] == pytest.approx(made.evaluate(X, Y, batch_size=8)["loss"], rel=1e-6)
    made.fit(X[:16], Y[:16], batch_size=8, remainder="pad", verbose=0)  # where there is none
    with pytest.warns(UserWarning, match="padding too, which enters the batch statistics"):
        made.fit(X, Y, batch_size=8, remainder="pad", verbose=0)


def test_a_padded_pass_has_one_program() -> None:
    with et.max_compiles(1):
        learner(linear(7), metrics=None).evaluate(X, Y, batch_size=6, remainder="pad")


# steps


def test_so_many_steps_of_data_with_or_without_an_end() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield from batches()

    made = learner()
    some = made.evaluate(X[:8], Y[:8], batch_size=4)
    assert made.evaluate(X, Y, batch_size=4, steps=2) == some
    assert made.evaluate(endless, steps=2) == some
    assert made.predict(lambda: (x for x, _ in endless()), steps=3).shape == (12, 3)
    with pytest.warns(UserWarning, match="ran out after 6 of the 9 steps that were asked for"):
        assert made.evaluate(batches, steps=9) == made.evaluate(X, Y, batch_size=4)
    with pytest.raises(ValueError, match="`steps` must be a whole number, 1 or more"):
        made.evaluate(X, Y, steps=0)


@pytest.mark.slow
def test_data_that_say_that_they_never_end_need_a_number_of_steps() -> None:
    grain = library("grain")
    forever = grain.MapDataset.source(list(zip(X, Y, strict=True))).batch(3).repeat()
    made = learner().init()
    with pytest.raises(ValueError, match=r"`x` never ends.*: give `steps`"):
        made.evaluate(forever)
    with pytest.raises(ValueError, match=r"`x` never ends.*`steps_per_epoch`, or `steps` for the"):
        made.fit(forever, verbose=0)
    with pytest.raises(ValueError, match=r"`validation_data` never ends.*`validation_steps`"):
        made.fit(X, Y, validation_data=forever, verbose=0)
    fitted, history = made.fit(
        forever, steps=8, verbose=0, validation_data=forever, validation_steps=7
    )
    expected, _ = made.fit(X, Y, batch_size=3, steps=8, shuffle=False, verbose=0)
    assert same(fitted, expected)
    assert history["val_loss"][-1] == pytest.approx(fitted.evaluate(X, Y)["loss"], rel=1e-6)


# predict


def test_any_tree_of_outputs_comes_back_whole_and_in_order() -> None:
    assert predicting(lambda x: x[:, :0]).predict(X, batch_size=4).shape == (21, 0)
    make = lambda x: {"a": (x, x[:, 0]), "b": [jnp.round(x[:, 1:]).astype(jnp.int32), None]}
    for given in (X, lambda: (x for x, _ in batches(5))):
        out = predicting(make).predict(given, batch_size=4)
        assert np.array_equal(out["a"][0], X) and np.array_equal(out["a"][1], X[:, 0])
        assert np.array_equal(out["b"][0], np.round(X[:, 1:])) and out["b"][1] is None
        assert out["b"][0].dtype == np.int32


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x: jnp.mean(x), r"`y_pred` has shape \(\) for a batch of 4 examples"),
        (lambda x: {"a": x, "b": x[:3]}, r"`y_pred\['b'\]` has shape \(3, 4\)"),
        (lambda x: x.reshape(-1), r"shape \(16,\) for a batch of 4.*one row per example"),
        (lambda x: {"a": x, "b": 3.0}, r"`y_pred\['b'\]` is 3.0, not an array of numbers"),
        (lambda x: (x, "s"), r"`y_pred\[1\]` is 's', not an array"),
        (lambda x: jax.vmap(jax.random.key)(jnp.arange(4)), r"`y_pred` is a random key"),
        (lambda x: None, r"`y_pred` holds no array"),
    ],
)
def test_outputs_without_a_row_an_example_are_refused(make: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        predicting(make).predict(X, batch_size=4)


def test_outputs_whose_shapes_differ_from_batch_to_batch_are_refused() -> None:
    ragged = [X[:4, :3], X[4:8]]
    with pytest.raises(ValueError, match=r"the shape \(3,\) in one batch and \(4,\) in another"):
        predicting(lambda x: x).predict(iter(ragged))


@pytest.mark.slow
def test_predictions_leave_the_device_as_they_come() -> None:
    held: list[int] = []

    class Looks(et.Callback):
        calls = 0

        def on_predict_batch_end(self, run: et.Run) -> None:
            self.calls += 1
            if self.calls % 100 == 0:
                held.append(sum(a.nbytes for a in jax.live_arrays()))

    wide = predicting(lambda x: jnp.tile(x, (1, 256)))
    gc.collect()
    before = sum(a.nbytes for a in jax.live_arrays())
    out = wide.predict(np.ones((8192, 4), np.float32), batch_size=16, callbacks=Looks())
    assert out.nbytes == 8192 * 4096 and max(held) - before < 6e6  # two calls, of 33 MB in all


@pytest.mark.slow
def test_without_a_loss_the_metrics_alone_are_measured_and_a_fit_says_what_is_missing() -> None:
    made = learner(loss=None, metrics=[et.metrics.Accuracy(), et.metrics.GradientNorm()])
    right = {"accuracy": pytest.approx((made.predict(X).argmax(1) == Y).mean())}
    assert made.evaluate(X, Y, batch_size=4) == right
    assert made.evaluate(X, Y, batch_size=4, remainder="pad") == right
    assert made.test_on_batch(X, Y) == right
    for wrong in (made, made.replace(metrics=None)):
        with pytest.raises(TypeError, match="`Learner` has no loss: pass one"):
            wrong.fit(X, Y, verbose=0)
    with pytest.raises(TypeError, match="`Learner` has no loss"):
        made.replace(metrics=None).evaluate(X, Y)
    asks = made.replace(metrics={"of_loss": lambda y_pred, loss: loss * y_pred[:, 0]})
    with pytest.raises(TypeError, match="asks for `loss`, which nobody provides"):
        asks.evaluate(X, Y)


# validation


@pytest.mark.usefixtures("unchecked")
def test_a_remainder_that_is_none_of_the_known_gets_a_sentence() -> None:
    wrong: Any = "last"
    sentence = '`remainder` must be "keep", "pad" or "drop"; got \'last\''
    with pytest.raises(ValueError, match=sentence):
        learner().evaluate(X, Y, remainder=wrong)
