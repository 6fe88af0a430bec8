"""Methods that look like steps and would never be called."""

from typing import Any

import pytest

import eqxtrain as et


def step(self: Any, model: Any, state: Any, x: Any) -> Any:
    """What any step may ask for."""
    return x, state


def define(*bases: type, **body: Any) -> type:
    return type("Mine", bases or (et.Learner,), body)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("predict_step", "pred_step"),
        ("validation_step", "test_step"),
        ("train_stp", "train_step"),
        ("trian_step", "train_step"),
        ("trainstep", "train_step"),
        ("tset_step", "test_step"),
        ("state_step", "states_step"),
        ("jit_setp", "jit_step"),
        ("test_steps", "test_step"),
        ("train_step_", "train_step"),
        ("_train_step", "train_step"),
        ("states_steps", "states_step"),
    ],
)
def test_a_method_that_would_never_be_called_is_told_the_step_that_is_meant(
    name: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=f"`Mine.{name}` would never be called: .*`{meant}`"):
        define(**{name: step})
    with pytest.raises(TypeError, match="would never be called"):
        define(**{name: lambda self, **everything: None})


@pytest.mark.parametrize(
    "name", ["train_step_of_a_part", "my_train_step", "_train_stp", "generator_step", "step"]
)
def test_a_name_of_ones_own_is_left_alone(name: str) -> None:
    assert getattr(define(**{name: step}), name)


def test_a_close_name_that_makes_sense_is_left_alone() -> None:
    class Texts(et.Learner[Any]):
        scale: float = 1.0

        def test_step(self, model: Any, state: Any, x: Any) -> Any:
            both = [self.text_step(model=model, state=state, x=part)[0] for part in x]
            return sum(both), {}, state

        def text_step(self, model: Any, state: Any, x: Any) -> Any:
            return x, state

        def rest_step(self, seconds: float) -> float:
            return seconds  # it asks for nothing that a step gets

        @property
        def best_step(self) -> int:
            return 3

    class Others(Texts):
        def text_step(self, model: Any, state: Any, x: Any) -> Any:
            return -x, state

    assert Others(None, None).best_step == 3

    class Calls(et.Learner[Any]):
        def test_step(self, **given: Any) -> Any:
            return [self.text_step(**given) for _ in range(2)]

        def text_step(self, **given: Any) -> Any:
            raise NotImplementedError

    define(Calls, text_step=step)
