"""Losses: how they are called, named, weighted and reduced to one number."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqxtrain as et
from eqxtrain._losses.loss import check_losses, compute_losses
from eqxtrain._request import LOSS_NAMES, is_by_name, request

Y_PRED, Y_TRUE = jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 4.0, 3.0])
REAL = jnp.array([True, True, False])


def absolute(y_pred: Any, y_true: Any) -> Any:
    return jnp.abs(y_pred - y_true)


def given(y_pred: Any = Y_PRED, y_true: Any = Y_TRUE, **more: Any) -> dict[str, Any]:
    """What a step hands to the loss."""
    available = {"x": None, "model": jnp.array([3.0, 4.0]), "y_pred": y_pred, "y_true": y_true}
    available |= {"sample_weight": None, "class_weight": None, "mask": None}
    return available | more


def total(loss: Any, **available: Any) -> float:
    return float(compute_losses(loss, given(**available))[0])


def parts(loss: Any, **available: Any) -> dict[str, float]:
    logs: dict[str, Any] = compute_losses(loss, given(**available))[1]
    return {name: float(value) for name, value in logs.items()}


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (optax.squared_error, "values"),
        (optax.l2_loss, "values"),
        (optax.huber_loss, "values"),
        (functools.partial(optax.huber_loss, delta=0.5), "values"),
        (optax.log_cosh, "values"),
        (optax.cosine_distance, "values"),
        (optax.sigmoid_binary_cross_entropy, "one-hot"),
        (optax.softmax_cross_entropy, "one-hot"),
        (optax.safe_softmax_cross_entropy, "one-hot"),
        (optax.softmax_cross_entropy_with_integer_labels, "sparse"),
    ],
)
def test_the_losses_of_optax_work_as_they_are(
    loss: Callable[..., Any], labels: str, rng: np.random.Generator
) -> None:
    y_pred = rng.normal(size=(5, 3)).astype(np.float32)
    sparse = rng.integers(0, 3, 5).astype(np.int32)
    y_true = {
        "values": rng.normal(size=(5, 3)).astype(np.float32),
        "one-hot": np.eye(3, dtype=np.float32)[sparse],
        "sparse": sparse,
    }[labels]
    value, logged = compute_losses(loss, given(jnp.asarray(y_pred), jnp.asarray(y_true)))
    expected = np.mean(loss(jnp.asarray(y_pred), jnp.asarray(y_true)), dtype=float)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value.shape == () and value.dtype == jnp.float32
    assert logged == {}, "a lone function is the loss, and has no parts"


def test_no_loss_of_optax_with_two_arguments_is_taken_for_one_by_name() -> None:
    functions = [fn for _, fn in inspect.getmembers(optax.losses, inspect.isfunction)]
    two = [fn for fn in functions if len(request(fn).required) == 2]
    assert len(two) > 8 and not any(is_by_name(fn, LOSS_NAMES) for fn in two)


def test_a_loss_that_asks_by_name_gets_what_it_names() -> None:
    def smooth(model: Any, y_true: Any, *, y_pred: Any, scale: float = 2.0) -> Any:
        return scale * jnp.abs(y_pred - y_true) + jnp.sum(model)

    assert total(smooth) == pytest.approx(2 * 5 / 3 + 7)


def test_a_key_of_a_mapping_batch_is_a_name_too() -> None:
    assert total(lambda image: image, image=Y_TRUE) == pytest.approx(8 / 3)


def test_a_function_without_required_parameters_is_called_with_the_two() -> None:
    assert total(lambda a=0.0, b=0.0: absolute(a, b)) == pytest.approx(5 / 3)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.float16, jnp.bfloat16])
def test_values_of_any_dtype_are_reduced_in_float32(dtype: Any) -> None:
    value, _ = compute_losses(lambda p, t: (p != t).astype(dtype), given())
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 2 / 3, rtol=1e-6)


def test_a_list_logs_each_member_by_its_own_name_and_adds_them_up() -> None:
    losses = [absolute, absolute, lambda p, t: p]
    assert parts(losses) == pytest.approx({"absolute": 5 / 3, "absolute_1": 5 / 3, "2": 3})
    assert total(losses) == pytest.approx(2 * 5 / 3 + 3)


def test_dicts_nest_and_name_what_stands_under_them() -> None:
    losses = {"a": {"b": [absolute, absolute], "c": absolute}, "d": None}
    assert list(parts(losses)) == ["a/b/absolute", "a/b/absolute_1", "a/c"]


def test_a_loss_may_return_a_dict_of_parts() -> None:
    def vae(y_pred: Any, y_true: Any) -> dict[str, Any]:
        return {"rec": absolute(y_pred, y_true), "kl": jnp.float32(2)}

    assert parts(vae) == pytest.approx({"rec": 5 / 3, "kl": 2})
    assert parts({"v": vae}) == pytest.approx({"v/rec": 5 / 3, "v/kl": 2})
    assert total([et.Loss(vae, weight=3.0)]) == pytest.approx(3 * (5 / 3 + 2))


def test_weights_count_in_the_total_and_not_in_what_is_logged() -> None:
    losses = {"a": et.Loss(absolute, weight=0.5), "b": et.Loss(lambda p, t: p, weight=-2.0)}
    assert total(losses) == pytest.approx(0.5 * 5 / 3 - 2 * 3)
    assert parts(losses) == pytest.approx({"a": 5 / 3, "b": 3})


def test_a_refined_loss_is_logged_by_its_name_or_else_by_that_of_its_function() -> None:
    assert list(parts([et.Loss(absolute, name="mine")])) == ["mine"]
    assert list(parts(et.Loss(absolute, name="mine"))) == ["mine"]
    assert list(parts([et.Loss(absolute), et.Loss(lambda p, t: p)])) == ["absolute", "1"]
    assert list(parts(et.Loss(absolute, weight=2.0))) == ["absolute"]


def test_no_part_takes_the_name_of_the_total_or_of_another() -> None:
    losses = {"loss": absolute, "a": {"b": absolute}, "a/b": absolute}
    assert list(parts(losses)) == ["loss_1", "a/b", "a/b_1"]


def test_on_picks_a_part_of_predictions_and_labels() -> None:
    y_pred, y_true = {"u": [0 * Y_PRED, Y_PRED]}, {"u": [Y_TRUE, Y_TRUE]}
    loss = et.Loss(absolute, on=("u", 1))
    assert total(loss, y_pred=y_pred, y_true=y_true) == pytest.approx(5 / 3)
    by_name = et.Loss(lambda y_pred: y_pred, on=0)
    assert total(by_name, y_pred=(Y_PRED, Y_TRUE), y_true=None) == 3


def test_on_a_part_weights_masks_and_classes_apply_as_to_a_lone_output() -> None:
    labels = jnp.array([0, 1, 1])
    loss = et.Loss(lambda p, t: p, on="u")
    applied = {"sample_weight": jnp.array([1.0, 2.0, 9.0]), "class_weight": jnp.array([1.0, 5.0])}
    value = total(loss, y_pred={"u": Y_PRED}, y_true={"u": labels}, mask=REAL, **applied)
    assert value == pytest.approx((1 * 1 * 1 + 2 * 5 * 2) / 2)


def test_binary_cross_entropy_with_weights_as_in_the_design() -> None:
    def bce(y_pred: Any, y_true: Any) -> Any:
        return -(y_true * jnp.log(y_pred) + (1 - y_true) * jnp.log(1 - y_pred))

    y_true, y_pred = jnp.array([[0.0, 1], [0, 0]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])
    value = total(bce, y_pred=y_pred, y_true=y_true, sample_weight=jnp.array([1.0, 0.0]))
    assert value == pytest.approx(0.458, abs=5e-4)


def test_a_column_of_weights_or_labels_counts_as_one_an_example() -> None:
    column = {"sample_weight": jnp.array([[1.0], [2.0], [0.0]])}
    assert total(absolute, **column) == pytest.approx((0 + 2 * 2 + 0) / 3)
    classes = {"y_true": jnp.array([[0], [1], [1]]), "class_weight": jnp.array([1.0, 5.0])}
    assert total(lambda p, t: p, **classes) == pytest.approx((1 + 5 * 2 + 5 * 6) / 3)


def test_a_loss_that_names_weights_or_mask_applies_them_itself() -> None:
    weight = jnp.array([1.0, 3.0, 0.0])

    def weighted(y_pred: Any, sample_weight: Any) -> Any:
        return jnp.where(sample_weight > 1, y_pred, 0)

    def masked(y_pred: Any, mask: Any) -> Any:
        return jnp.max(y_pred, initial=0, where=mask)

    def classed(y_pred: Any, class_weight: Any) -> Any:
        return y_pred * class_weight[1]

    assert total(weighted, sample_weight=weight) == pytest.approx(2 / 3)
    assert total(weighted, sample_weight=weight, mask=REAL) == pytest.approx(2 / 2)
    assert total(masked, mask=REAL) == 2
    assert total(classed, class_weight=jnp.array([1.0, 5.0])) == pytest.approx(5 * 3)


def test_padding_that_is_nan_does_not_reach_the_loss() -> None:
    y_pred = jnp.array([1.0, 2.0, jnp.nan])
    weight = jnp.array([1.0, 3.0, jnp.nan])
    assert total(lambda p, t: p, y_pred=y_pred, mask=REAL) == 1.5
    assert total(lambda p, t: p, y_pred=y_pred, mask=REAL, sample_weight=weight) == 3.5


def test_padding_has_no_part_in_the_gradient() -> None:
    slope = jax.grad(lambda y_pred: compute_losses(lambda p, t: p**2, given(y_pred, mask=REAL))[0])
    assert slope(Y_PRED).tolist() == [1, 2, 0]


def test_a_batch_of_padding_has_no_loss_and_no_gradient() -> None:
    value, slope = jax.value_and_grad(
        lambda scale: compute_losses(lambda p, t: scale * p, given(mask=jnp.zeros(3, bool)))[0]
    )(1.0)
    assert (value, slope) == (0, 0)


def test_a_regulariser_is_added_as_it_is_while_weights_are_in_play() -> None:
    losses = {"data": absolute, "l2": et.Loss(lambda model: jnp.sum(model**2), weight=0.1)}
    weight = jnp.array([1.0, 3.0, 7.0])
    applied = {"sample_weight": weight, "class_weight": jnp.ones(9), "mask": REAL}
    assert parts(losses, **applied) == pytest.approx({"data": (0 + 3 * 2) / 2, "l2": 25})
    assert total(losses, **applied) == pytest.approx(3 + 0.1 * 25)


@pytest.mark.parametrize("name", ["sample_weight", "class_weight", "mask"])
def test_a_scalar_cannot_be_weighted_and_says_so(name: str) -> None:
    applied = {"sample_weight": jnp.ones(3), "class_weight": jnp.ones(2), "mask": REAL}

    def mean(y_pred: Any, y_true: Any) -> Any:
        return jnp.mean(y_pred)

    with pytest.raises(ValueError, match=f"`mean` returned a scalar, so `{name}` can't"):
        total(mean, **{name: applied[name]})
    with pytest.raises(ValueError, match=f"scalar, so `{name}`.*ask for `{name}` by name"):
        total(lambda p, t: jnp.mean(p), **{name: applied[name]})
    assert total(mean) == 3


def test_a_loss_that_asks_by_name_and_for_something_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`half` asks .* `teacher`.*half and half.*Available: "):
        total({"half": lambda y_pred, teacher: y_pred})


def test_a_loss_that_asks_for_a_name_that_is_missing_says_what_there_is() -> None:
    available = {name: value for name, value in given().items() if name != "y_true"}
    with pytest.raises(TypeError, match=r"`y_true`, which nobody provides.*pass `y`.*Available"):
        compute_losses(lambda y_pred, y_true: y_pred, available)


def test_a_positional_loss_without_labels_says_so() -> None:
    available = {name: value for name, value in given().items() if name != "y_true"}
    with pytest.raises(TypeError, match=r"`a\(y_pred, y_true\)`.*no labels.*pass `y`"):
        compute_losses({"a": lambda p, t: p}, available)


def test_values_that_are_not_one_an_example_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`a` returned .* \(2,\) for a batch of 3 examples"):
        total({"a": lambda p, t: p[:2]})


@pytest.mark.parametrize("weight", [jnp.ones(2), jnp.ones((3, 2)), jnp.ones((1, 3))])
def test_weights_that_fit_no_values_are_refused(weight: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"`sample_weight` has shape.*`a`.*\(3,\)"):
        total({"a": absolute}, sample_weight=weight)


@pytest.mark.parametrize("mask", [REAL[:1], REAL[:, None], jnp.stack([REAL, REAL], 1)])
def test_a_mask_that_is_not_one_bool_an_example_is_refused(mask: jax.Array) -> None:
    with pytest.raises(ValueError, match="`mask`"):
        total(absolute, mask=mask)


def test_on_something_that_is_not_there_is_refused() -> None:
    trees = {"y_pred": {"u": Y_PRED, "v": Y_PRED}, "y_true": {"u": Y_TRUE}}
    with pytest.raises(KeyError, match=r"`a` is on 'w', which `y_pred` lacks; it has .*'u', 'v'"):
        total({"a": et.Loss(absolute, on="w")}, **trees)
    with pytest.raises(KeyError, match=r"on 'v', which `y_true` lacks; it has \['u'\]"):
        total({"a": et.Loss(absolute, on="v")}, **trees)
    with pytest.raises(KeyError, match=r"on 3, which `y_pred` lacks"):
        total(et.Loss(absolute, on=3), y_pred=(Y_PRED,), y_true=(Y_TRUE,))


@pytest.mark.parametrize("wrong", [3, "mse", Y_PRED])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"`loss` holds .*not a function: pass one such as `optax"):
        check_losses({"a": {"b": wrong}})


def test_functions_and_refined_losses_of_any_nesting_pass_the_check() -> None:
    check_losses({"a": [absolute, et.Loss(absolute)], "b": (lambda p, t: p,), "c": None})


@pytest.mark.usefixtures("unchecked")
def test_a_refined_loss_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match=r"`Loss` takes a function, not 'mse'"):
        et.Loss("mse")  # pyright: ignore[reportArgumentType]
    for none in (None, "none"):
        with pytest.raises(ValueError, match=r"would leave a loss for each example.*Gather"):
            et.Loss(absolute, reduction=none)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"'sum_over_batch_size'.* 'mean', 'sum', 'mean_with"):
        et.Loss(absolute, reduction="sum_over_batch_size")  # pyright: ignore[reportArgumentType]


def test_class_weights_without_one_array_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`class_weight` needs `y_true` to be one array"):
        total(lambda p, t: Y_PRED, y_true={"a": Y_TRUE}, class_weight=jnp.ones(2))


@pytest.mark.parametrize("kind", ["optional", "everything"])
def test_a_positional_loss_is_weighted_by_us_whatever_it_could_take(kind: str) -> None:
    def optional(pred: Any, target: Any, sample_weight: Any = None, mask: Any = None) -> Any:
        return jnp.abs(pred - target)

    def everything(pred: Any, target: Any, **rest: Any) -> Any:
        return jnp.abs(pred - target)

    fn = optional if kind == "optional" else everything
    zeros = jnp.zeros(len(Y_PRED))
    assert total(fn, sample_weight=zeros) == 0.0


def test_an_empty_container_holds_no_loss() -> None:
    with pytest.raises(ValueError, match="holds no loss"):
        check_losses([])


@pytest.mark.usefixtures("unchecked")
def test_a_weight_that_is_no_number_is_refused() -> None:
    wrong: Any = "a"
    with pytest.raises(TypeError, match=r"`Loss\(weight='a'\)` is not a number"):
        et.Loss(absolute, weight=wrong)


# --- several outputs, some of them without labels


def test_labels_that_have_no_parts_are_for_every_output() -> None:
    main = {"main": et.Loss(absolute, on=0), "auxiliary": et.Loss(absolute, on=1)}
    both = parts(main, y_pred=(Y_PRED, 2 * Y_PRED))
    assert both == pytest.approx({"main": 5 / 3, "auxiliary": np.abs(2 * Y_PRED - Y_TRUE).mean()})


def test_an_output_without_labels_is_left_out() -> None:
    losses = {"a": et.Loss(absolute, on="a"), "b": et.Loss(absolute, on="b")}
    trees = {"y_pred": {"a": Y_PRED, "b": Y_PRED}, "y_true": {"a": Y_TRUE, "b": None}}
    assert parts(losses, **trees) == pytest.approx({"a": 5 / 3})
    assert total(losses, **trees) == pytest.approx(5 / 3)
    with pytest.raises(ValueError, match="nothing to minimise: every loss is on an output"):
        total(losses["b"], **trees)


def test_what_a_model_returns_beside_its_prediction_is_a_loss_without_labels() -> None:
    losses = {"data": et.Loss(absolute, on=0), "aux": et.Loss(lambda y_pred: y_pred[1], weight=0.5)}
    weight = jnp.array([1.0, 3.0, 0.0])
    value = parts(losses, y_pred=(Y_PRED, Y_PRED**2), sample_weight=weight)
    assert value == pytest.approx({"data": (0 + 3 * 2 + 0) / 3, "aux": (1 + 3 * 4 + 0) / 3})


def test_each_output_may_have_weights_of_its_own() -> None:
    weights = {"a": jnp.array([1.0, 0.0, 0.0]), "b": jnp.array([0.0, 0.0, 1.0])}
    losses = [et.Loss(lambda p, t: p, on="a", name="a"), et.Loss(lambda p, t: p, on="b", name="b")]
    trees = {"y_pred": {"a": Y_PRED, "b": Y_PRED}, "y_true": Y_TRUE}
    assert parts(losses, **trees, sample_weight=weights) == pytest.approx({"a": 1 / 3, "b": 6 / 3})


def test_an_array_has_no_parts_to_be_on() -> None:
    with pytest.raises(KeyError, match=r"on 0, which `y_pred` lacks"):
        total(et.Loss(absolute, on=0))


def test_names_of_losses_are_the_same_whichever_labels_there_are() -> None:
    losses = [et.Loss(absolute, on="a"), et.Loss(absolute, on="b")]
    y_pred = {"a": Y_PRED, "b": 2 * Y_PRED}
    both = parts(losses, y_pred=y_pred)
    assert list(both) == ["absolute", "absolute_1"]
    only = parts(losses, y_pred=y_pred, y_true={"a": None, "b": Y_TRUE})
    assert only == {"absolute_1": both["absolute_1"]}
