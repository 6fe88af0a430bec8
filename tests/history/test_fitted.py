"""What `fit` returns."""

from typing import Any

import pytest
from helpers import data, learner

from eqxtrain import Fitted, History


def recorded() -> History:
    history = History()
    for loss in (1.0, 0.5):
        history.append({"loss": loss})
    history.stopped = "interrupted"
    return history


def test_it_shows_both_parts() -> None:
    fitted = Fitted(learner(), recorded())
    named = "Learner(Linear, 15 parameters)"
    assert repr(fitted) == (f"Fitted(learner={named}, history=<2 epochs, stopped: interrupted>)")
    html = fitted._repr_html_()
    assert html == f"<code>{named}</code>{recorded()._repr_html_()}" and "<svg" in html


def test_what_is_asked_of_both_at_once_is_told_where_it_is() -> None:
    both: Any = Fitted(learner(), recorded())
    with pytest.raises(AttributeError, match=r"unpack it, .*, then `learner\.evaluate`\."):
        both.evaluate(*data())
    with pytest.raises(AttributeError, match=r"unpack it, .*, then `history\.epochs`\."):
        _ = both.epochs
    with pytest.raises(AttributeError, match=r"has no `nothing`: unpack it, `[^`]*`\.$"):
        _ = both.nothing
    with pytest.raises(TypeError, match=r"then `history\['loss'\]`\."):
        both["loss"]
    assert not hasattr(both, "predict") and both.learner is both[0]
