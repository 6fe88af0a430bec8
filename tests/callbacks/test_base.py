"""`Callback`: its hooks, and what a callback declares."""

from typing import Any

import pytest
from helpers import Tape, data, learner

import eqxtrain as et


@pytest.mark.usefixtures("unchecked")
def test_misspelt_hooks_and_things_that_are_no_callbacks_get_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"`Typo.on_epoch_ends` is not a hook"):
        type("Typo", (et.Callback,), {"on_epoch_ends": lambda self, run: None})
    for wrong, message in ((Tape, "the class `Tape`"), (print, "built-in function print")):
        with pytest.raises(TypeError, match=message):
            learner().fit(*data(), callbacks=[wrong], verbose=0)  # pyright: ignore[reportArgumentType]
    given: Any = Tape
    with pytest.raises(TypeError, match=r"the class `Tape`; .* an instance, `Tape\(\.\.\.\)`\."):
        learner().fit(*data(), callbacks=given, verbose=0)
    given = lambda run: None
    with pytest.raises(TypeError, match=r"contains <function .*: subclass it"):
        learner().fit(*data(), callbacks=given, verbose=0)
