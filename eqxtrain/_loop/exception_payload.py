"""What an exception carries out of a run, and how it crosses to another process.

Worker processes pickle the exceptions that they raise. Learners often can't be pickled, since they
hold local functions (those of optax, for example). The exception must arrive all the same, so
whatever can't be pickled stays behind.
"""

import copy
import copyreg
import functools
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx

_NAMES = ("learner", "history")

PickleRecipe = str | tuple[Any, ...]


def attach(error: BaseException, **values: Any) -> None:
    """Set attributes of an exception. One without a `__dict__` can carry nothing."""
    try:
        vars(error).update(values)
    except TypeError:
        return
    kind = type(error)
    earlier: Any = copyreg.dispatch_table.get(kind)
    if getattr(earlier, "func", None) is not _reduced:
        # every pickler looks here before it asks the class for `__reduce__`
        copyreg.pickle(kind, functools.partial(_reduced, earlier))


def _reduced(earlier: Callable[[Any], PickleRecipe] | None, error: BaseException) -> PickleRecipe:
    """Pickle or copy an exception as usual, apart from what it carries.

    **Arguments:**

    - `earlier`: the function that was registered for this class before ours, if any.
    """
    reduced = error.__reduce_ex__(4) if earlier is None else earlier(error)
    if isinstance(reduced, str):
        return reduced
    make, args, *rest = reduced
    if make is eqx.EquinoxRuntimeError:
        # Its `__module__` is "builtins", where pickle would not find it.
        make = _equinox_error
    if rest and isinstance(rest[0], dict) and any(name in rest[0] for name in _NAMES):
        rest[0] = _Attributes(rest[0])
    return make, args, *rest


def _equinox_error(*args: Any) -> Exception:
    return eqx.EquinoxRuntimeError(*args)


class _Attributes(dict[str, Any]):
    """The attributes of an exception: copied as they are, pickled as far as they can be."""

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: value for name, value in self.items() if name not in _NAMES}
        return _received, (own, {name: _pickled(self[name]) for name in _NAMES if name in self})

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)


def _pickled(value: Any) -> bytes | str:
    """A value pickled by itself, so that a failure affects nothing else; or why that failed."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _received(own: dict[str, Any], pickled: dict[str, bytes | str]) -> dict[str, Any]:
    """The attributes of an unpickled exception; None, and a note, for those that stayed behind."""
    attributes, notes = dict(own), list(own.get("__notes__", ()))
    for name, value in pickled.items():
        reason = value if isinstance(value, str) else None
        attributes[name] = None
        try:
            if isinstance(value, bytes):
                attributes[name] = pickle.loads(value)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            notes.append(
                f"`.{name}` stayed in the process where this was raised, since it can't be pickled "
                f"({reason}): save it there, in a callback's `on_exception`."
            )
    return {**attributes, "__notes__": notes} if notes else attributes
