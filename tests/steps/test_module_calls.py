"""A model whose parts tell of their calls."""

from typing import Any

import equinox as eqx
import jax.random as jr
from helpers import Dropped, arrays, data, same

from eqxtrain._steps.module_calls import watch_calls, wrap_modules


def test_a_watched_model_is_the_same_model_whose_calls_are_told() -> None:
    model = eqx.nn.inference_mode(Dropped(jr.key(0)))
    twin = wrap_modules(model, "model")
    told: list[tuple[str, str]] = []

    def watcher(path: str, part: Any, call: Any, args: Any, kwargs: Any) -> Any:
        told.append((path, type(part).__name__))
        return call(*args, **kwargs)

    x = data()[0][0]
    with watch_calls(watcher):
        out = twin(x)
    assert isinstance(twin, Dropped) and same(arrays(twin), arrays(model))
    assert same(out, model(x)) and same(twin(x), out)
    parts = [("hidden", "Linear"), ("dropout", "Dropout"), ("out", "Linear")]
    assert told == [("model", "Dropped"), *((f"model.{n}", kind) for n, kind in parts)]
