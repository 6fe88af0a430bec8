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
    with pytest.raises(ValueError, match="`steps` is a whole number, 1 or more"):
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
        (lambda x: jnp.mean(x), r"`y_pred` has the shape \(\) for a batch of 4 examples"),
        (lambda x: {"a": x, "b": x[:3]}, r"`y_pred\['b'\]` has the shape \(3, 4\)"),
        (lambda x: x.reshape(-1), r"shape \(16,\) for a batch of 4.*one row an example"),
        (lambda x: {"a": x, "b": 3.0}, r"`y_pred\['b'\]` is 3.0, and no array of numbers"),
        (lambda x: (x, "s"), r"`y_pred\[1\]` is 's', and no array"),
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


@pytest.mark.slow
def test_validation_by_any_means_is_evaluation() -> None:
    made = learner().init()
    whole = made.fit(X, Y, batch_size=4, verbose=0)[0].evaluate(X, Y, batch_size=4)
    weighted = (X, Y, np.ones(21, np.float32))  # whose program is another one
    for given in ((X, Y), batches, list(batches()), weighted):
        fitted, history = made.fit(X, Y, batch_size=4, verbose=0, validation_data=given)
        seen = {name[4:]: value[-1] for name, value in history.items() if "val" in name}
        assert seen == (pytest.approx(whole, rel=1e-6) if given is weighted else whole)
        assert same(fitted, made.fit(X, Y, batch_size=4, verbose=0)[0])
    _, history = made.fit(
        X, Y, batch_size=4, verbose=0, validation_data={"a": (X, Y), "b": batches}
    )
    assert history["val_a_loss"] == history["val_b_loss"] == [whole["loss"]]


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
def test_training_may_not_take_the_names_of_validation(eager: bool) -> None:
    """Before its first step, where that is compiled; in eager mode, after it."""
    metrics = {"val_loss": et.metrics.Mean(), "val_far_off": et.metrics.Mean()}
    made = learner(metrics=metrics)
    options: dict[str, Any] = {"batch_size": 4, "eager": eager, "verbose": 0}
    match = r"Training logs `val_\w+`, but names that begin with `val_` are those of validation"
    with pytest.raises(ValueError, match=match) as raised:
        made.fit(X, Y, validation_data=(X, Y), **options)
    carried: Any = raised.value
    assert int(carried.learner.state.step) == int(eager)
    with pytest.raises(ValueError, match=r"Training logs `val_far_off`.* with `val_far_`"):
        made.fit(X, Y, validation_data={"far": (X, Y), "near": (X, Y)}, **options)
    _, history = made.fit(X, Y, validation_data={"near": (X, Y)}, **options)
    assert {"val_loss", "val_far_off", "val_near_loss", "val_near_val_loss"} < set(history)
    assert "val_loss" in made.fit(X, Y, **options).history


@pytest.mark.slow
@pytest.mark.parametrize("remainder", ["keep", "pad", "drop"])
def test_validation_measures_all_of_its_data(remainder: Any) -> None:
    fitted, history = learner().fit(
        X, Y, batch_size=4, remainder=remainder, verbose=0, validation_data=(X, Y)
    )
    expected = fitted.evaluate(
        X, Y, batch_size=4, remainder="pad" if remainder == "pad" else "keep"
    )
    assert history["val_loss"] == [expected["loss"]]


@pytest.mark.slow
def test_validation_after_some_epochs_leaves_nan_in_the_others() -> None:
    options: dict[str, Any] = {"epochs": 5, "verbose": 0, "validation_data": (X, Y)}
    made = learner().init()
    always = np.array(made.fit(X, Y, **options)[1]["val_loss"])
    for frequency, epochs in [(2, [1, 3]), ([1, 4], [0, 3]), (et.Every(epochs=5), [4])]:
        fitted, history = made.fit(X, Y, validation_freq=frequency, **options)
        expected = np.full(5, np.nan)
        expected[epochs] = always[epochs]
        assert np.array_equal(history["val_loss"], expected, equal_nan=True)
        assert [each["epoch"] for each in history.validations] == epochs
        assert same(fitted, made.fit(X, Y, **options)[0])


def test_validation_between_steps_is_of_exactly_those_steps() -> None:
    made = learner().init()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 4, "verbose": 0}
    fitted, history = made.fit(
        X, Y, validation_data=(X, Y), validation_freq=et.Every(steps=5), **options
    )
    assert same(fitted, made.fit(X, Y, **options)[0])
    assert [each["step"] for each in history.validations] == [5, 10, 15]
    assert [each["epoch"] for each in history.validations] == [0, 1, 2]
    for each in history.validations:
        then, _ = made.fit(X, Y, batch_size=4, steps=each["step"], verbose=0)
        assert each["val_loss"] == then.evaluate(X, Y, batch_size=4)["loss"]
    assert history["val_loss"] == [each["val_loss"] for each in history.validations]
    again, more = fitted.fit(  # the steps are those of its life
        X, Y, steps=4, batch_size=4, verbose=0, validation_data=(X, Y),
        validation_freq=et.Every(steps=5),
    )  # fmt: skip
    assert [each["step"] for each in more.validations] == [20] and again.state is not None


def test_each_validation_begins_at_the_beginning() -> None:
    made = learner().init()
    options: dict[str, Any] = {"epochs": 3, "verbose": 0, "validation_steps": 2}
    _, history = made.fit(X, Y, validation_data=batches, **options)
    _, expected = made.fit(X, Y, epochs=3, verbose=0, validation_data=list(batches())[:2])
    assert dict(history) == dict(expected)
    with pytest.warns(UserWarning, match="ran out after 6 of the 9 steps"):
        made.fit(X, Y, validation_data=batches, validation_steps=9, verbose=0)


@pytest.mark.parametrize("frequency", [1, et.Every(steps=2)])
def test_an_iterator_can_not_be_validated_on_twice(frequency: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`validation_data` is an iterator, which yields its batc"
    ):
        learner().fit(
            X, Y, epochs=4, validation_data=batches(), validation_freq=frequency, verbose=0
        )
    _, history = learner().fit(
        X, Y, epochs=2, validation_data=batches(), validation_freq=2, verbose=0
    )
    assert np.isnan(history["val_loss"][0]) and np.isfinite(history["val_loss"][1])


def test_the_split_works_on_nested_data_and_without_labels() -> None:
    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, a: Array, b: Array) -> Any:
            logs = {"a": et.metrics.Gather.of(a), "b": et.metrics.Gather.of(b["c"])}
            return jnp.sum(model.bias), logs, state

    mapping = {"a": np.arange(21), "b": {"c": (np.arange(21) * 2)[:, None]}}
    _, history = Reports(linear(), optax.sgd(0.1)).fit(mapping, validation_split=0.3, verbose=0)
    assert sorted(history["a"][0]) == list(range(14))
    assert list(history["val_a"][0]) == list(range(14, 21))
    assert np.array_equal(history["val_b"][0][:, 0], np.arange(14, 21) * 2)


@pytest.mark.slow
def test_validation_does_not_touch_training() -> None:
    from helpers import Dropped

    made = learner(Dropped(jax.random.key(0))).init()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "verbose": 0}
    plain, alone = made.fit(X, Y, **options)
    fitted, history = made.fit(
        X, Y, validation_data=(X, Y), validation_freq=et.Every(steps=1), **options
    )
    assert same(plain, fitted) and history["loss"] == alone["loss"]
    stateful, _ = normed().fit(X, Y, **options)
    validated, _ = normed().fit(X, Y, validation_data=(X, Y), **options)
    assert same(stateful, validated)


@pytest.mark.usefixtures("unchecked")
def test_a_remainder_that_is_none_of_the_known_gets_a_sentence() -> None:
    wrong: Any = "last"
    sentence = '`remainder` must be "keep", "pad" or "drop"; got \'last\''
    with pytest.raises(ValueError, match=sentence):
        learner().evaluate(X, Y, remainder=wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_a_loader_with_one_position_can_not_be_trained_and_validated_on() -> None:
    torch = pytest.importorskip("torch")
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    dataset = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    make = lambda: stateful(dataset, batch_size=4)
    one = make()
    stream = batches()
    for given in (one, stream):
        with pytest.raises(ValueError, match=r"`validation_data` are the same `\w+`, which keeps"):
            learner().fit(given, validation_data=given, verbose=0)
    _, history = learner().fit(one, validation_data=make(), verbose=0)
    plain = torch.utils.data.DataLoader(dataset, batch_size=4)
    options: dict[str, Any] = {"validation_freq": et.Every(steps=2), "verbose": 0}
    _, both = learner().fit(plain, validation_data=plain, **options)
    assert both["loss"] == history["loss"]
