"""What an exception carries out of a run, and how it crosses to another process.

Workers send what they raised by `pickle`, which refuses some functions that learners hold, those of
optax among them. The exception must arrive all the same, and what can't be sent stays behind.
"""

import copy
import copyreg
import functools
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx

_NAMES = ("learner", "history")

Reduced = str | tuple[Any, ...]


def carry(error: BaseException, **values: Any) -> None:
    """Make values attributes of an exception; one that has slots can carry nothing."""
    try:
        vars(error).update(values)
    except TypeError:
        return
    kind = type(error)
    earlier: Any = copyreg.dispatch_table.get(kind)
    if getattr(earlier, "func", None) is not _reduced:
        # it serves every pickler, and comes before whatever `__reduce__` the class has
        copyreg.pickle(kind, functools.partial(_reduced, earlier))


def _reduced(earlier: Callable[[Any], Reduced] | None, error: BaseException) -> Reduced:
    """How an exception is pickled and copied: as without us, apart from what it carries.

    **Arguments:**

    - `earlier`: how others had said that exceptions of this class are reduced.
    """
    reduced = error.__reduce_ex__(4) if earlier is None else earlier(error)
    if isinstance(reduced, str):
        return reduced
    make, args, *rest = reduced
    if make is eqx.EquinoxRuntimeError:  # it says that it is at home in `builtins`
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
        return _arrived, (own, {name: _sent(self[name]) for name in _NAMES if name in self})

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)


def _sent(value: Any) -> bytes | str:
    """A value in bytes of its own, so that it takes nothing with it if it fails; or why it does."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _arrived(own: dict[str, Any], sent: dict[str, bytes | str]) -> dict[str, Any]:
    """The attributes of an exception that was pickled; None, and a note, for what was not sent."""
    arrived, notes = dict(own), list(own.get("__notes__", ()))
    for name, value in sent.items():
        reason = value if isinstance(value, str) else None
        arrived[name] = None
        try:
            if isinstance(value, bytes):
                arrived[name] = pickle.loads(value)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            notes.append(
                f"`.{name}` stayed in the process where this was raised, since it can't be pickled "
                f"({reason}): save it there, in a callback's `on_exception`."
            )
    return {**arrived, "__notes__": notes} if notes else arrived
