"""Validation within `fit`: its sets, when it runs, and what it leaves alone."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import data, learner, linear, normed, same
from jaxtyping import Array

import eqxtrain as et

X, Y = data(21)


def batches(size: int = 4) -> Iterator[Any]:
    for start in range(0, 21, size):
        yield X[start : start + size], Y[start : start + size]


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
