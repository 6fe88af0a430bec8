"""Calling by name."""

import functools
from typing import Any

import jax
import optax
import pytest

from eqxtrain import metrics
from eqxtrain._request import (
    LOSS_NAMES,
    Request,
    call,
    is_by_name,
    missing_message,
    name_of,
    request,
    select,
    snake_case,
)


def step(model: Any, x: Any, *, key: Any, training: Any = None) -> Any:
    return model, x, key, training


def test_a_signature_is_read_as_what_is_required_and_what_is_not() -> None:
    assert request(step) == Request(("model", "x", "key"), ("training",), everything=False)
    assert request(step).names == ("model", "x", "key", "training")


def test_the_first_parameters_can_be_left_out() -> None:
    assert request(step, skip=1).required == ("x", "key")


def test_keywords_at_large_ask_for_everything_and_varargs_for_nothing() -> None:
    assert request(lambda x, **rest: x) == Request(("x",), (), everything=True)
    assert request(lambda *args: args) == Request((), (), everything=False)


def test_a_partial_no_longer_requires_what_it_holds() -> None:
    assert request(functools.partial(step, key=1)).required == ("model", "x")
    assert request(functools.partial(step, 1)).required == ("x", "key")


def test_methods_leave_out_self() -> None:
    assert request(metrics.Accuracy().update).required == ("y_pred", "y_true")


def test_what_has_no_signature_asks_for_nothing() -> None:
    assert request(max) == Request((), (), everything=False)


def test_a_call_gives_what_is_asked_for_whatever_the_order() -> None:
    available = {"key": 3, "x": 2, "model": 1, "state": 4}
    assert call(step, available, who="step") == (1, 2, 3, None)
    assert call(step, available | {"training": True}, who="step") == (1, 2, 3, True)


def test_keywords_at_large_receive_every_name() -> None:
    assert select(lambda x, **rest: x, {"x": 1, "y": 2}, who="f") == {"x": 1, "y": 2}


def test_a_default_is_for_what_nobody_provides() -> None:
    assert call(lambda x, y_true=7: y_true, {"x": 1}, who="f") == 7
    assert call(lambda x, y_true=7: y_true, {"x": 1, "y_true": None}, who="f") is None


def test_a_missing_name_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(TypeError, match=r"`step` asks for `key`, `model`.*Available: state, x\."):
        select(step, {"x": 1, "state": 2}, who="step")


def test_missing_labels_and_weights_come_with_a_remedy() -> None:
    assert "pass `y`" in missing_message("f", ["y_true"], {"x": 1})
    assert "`sample_weight=None`" in missing_message("f", ["sample_weight"], {"x": 1})
    assert "pass `y`" not in missing_message("f", ["key"], {"x": 1})


def test_names_of_other_libraries_are_translated() -> None:
    message = missing_message("Mine.train_step", {"rng", "labels"}, {"key": 0, "y_true": 0})
    assert "`labels` is `y_true` here." in message and "`rng` is `key` here." in message


def test_positional_only_parameters_cannot_be_called_by_name() -> None:
    def positional(x: Any, model: Any, /) -> Any:
        return x, model

    with pytest.raises(
        TypeError,
        match=r"`f` is called by name, but has positional-only .*\(`x`, `model`\): drop the `/`",
    ):
        select(positional, {"x": 1, "model": 2}, who="f")


@pytest.mark.parametrize(
    ("fn", "by_name"),
    [
        (lambda y_pred, y_true: 0, True),
        (lambda y_pred, anything: 0, True),
        (lambda *, model: 0, True),
        (lambda a, b: 0, False),
        (lambda a, b, mask=None: 0, False),
        (lambda y_true=None: 0, False),
        (lambda **rest: 0, False),
        (lambda *args: 0, False),
        (lambda y_pred, y_true, /: 0, False),
        (functools.partial(lambda a, b, model: 0, model=1), False),
        (optax.squared_error, False),
        (optax.softmax_cross_entropy_with_integer_labels, False),
    ],
)
def test_one_required_name_of_ours_makes_a_call_by_name(fn: Any, by_name: bool) -> None:
    assert is_by_name(fn, LOSS_NAMES) == by_name


def test_things_are_named_by_name_function_or_class() -> None:
    class Focal:
        def __call__(self, y_pred: Any, y_true: Any) -> Any:
            return y_pred

    class Named(Focal):
        name = "my name"

    assert name_of(step) == "step"
    assert name_of(functools.partial(functools.partial(step, 1), 2)) == "step"
    assert name_of(jax.jit(step)) == "step"
    assert name_of(Focal()) == "focal"
    assert name_of(Named()) == "my name"
    assert name_of(metrics.MeanSquaredError()) == "mean_squared_error"
    assert name_of(metrics.Accuracy().update) == "update"


def test_a_lambda_has_no_name() -> None:
    nameless = lambda y_pred, y_true: y_pred
    assert name_of(nameless) is None
    assert name_of(functools.partial(nameless, 1)) is None
    assert name_of(jax.jit(nameless)) is None


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("MeanSquaredError", "mean_squared_error"),
        ("Accuracy", "accuracy"),
        ("F1", "f1"),
        ("F1Score", "f1_score"),
        ("AUROC", "auroc"),
        ("TopKAccuracy", "top_k_accuracy"),
        ("_Private", "private"),
        ("already_snake", "already_snake"),
    ],
)
def test_class_names_become_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake
