"""Methods of a learner that look like steps, but would never be called."""

import difflib
import inspect
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

_FOREIGN = {
    "predict_step": "pred_step",
    "training_step": "train_step",
    "validation_step": "test_step",
    "eval_step": "test_step",
}
"""The names of our steps in other libraries."""

_CLOSE = 0.85


def refuse_misnamed(
    learner_class: type, base_class: type, steps: Collection[str], names: Collection[str]
) -> None:
    """Refuse a method with the name of another library's step, or with a mistyped one.

    **Arguments:**

    - `learner_class`, `base_class`: the class to check, and the one that defines the steps.
    - `names`: what steps may ask for.
    """
    listed = f"The steps are {', '.join(steps)}."
    for name, value in list(vars(learner_class).items()):
        if name in _FOREIGN and callable(value):
            raise TypeError(
                f"`{learner_class.__name__}.{name}` would never be called: the step is named "
                f"`{_FOREIGN[name]}` here. {listed}"
            )
        meant = _mistyped(name, steps)
        if meant is not None and _is_stray(learner_class, base_class, name, names):
            raise TypeError(
                f"`{learner_class.__name__}.{name}` would never be called: did you mean `{meant}`? "
                f"{listed} Give a method of your own a name less like these, or call it in a step."
            )


def _mistyped(name: str, steps: Collection[str]) -> str | None:
    """The step that this name nearly spells. A prefix or suffix to a step's name is no typo."""
    stripped = name.strip("_").removesuffix("s")
    if name != stripped and stripped in {step.removesuffix("s") for step in steps}:
        return next(step for step in steps if step.removesuffix("s") == stripped)
    if name.startswith("_") or any(step in name for step in steps):
        return None
    return next(iter(difflib.get_close_matches(name, steps, n=1, cutoff=_CLOSE)), None)


def _is_stray(learner_class: type, base_class: type, name: str, names: Collection[str]) -> bool:
    """Whether a method asks for what steps ask for, is new, and no other method calls it."""
    fn = getattr(learner_class, name)
    own = [cls for cls in learner_class.__mro__ if cls not in base_class.__mro__]
    if not inspect.isfunction(fn) or any(
        name in vars(cls) for cls in own if cls is not learner_class
    ):
        return False
    asked = inspect.signature(fn).parameters.values()
    everything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in asked)
    if not everything and not any(p.name in names for p in asked):
        return False
    return not any(
        name in used for cls in own for value in vars(cls).values() for used in _names_in(value)
    )


def _names_in(value: Any) -> Iterator[tuple[str, ...]]:
    """The names that the code of a method uses, including functions inside it."""
    fn: Callable[..., Any] = inspect.unwrap(value) if callable(value) else value
    codes = [fn.__code__] if isinstance(fn, types.FunctionType) else []
    while codes:
        code = codes.pop()
        yield code.co_names
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
