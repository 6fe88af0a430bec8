"""When functions and other leaves make the same program: never where a change would be missed."""

import functools
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import CROSS_ENTROPY, data, linear

import eqxtrain as et
from eqxtrain._identity import Frozen

SCALE = 1.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: optax.adam(1e-3).update,
        lambda: optax.chain(optax.clip(1.0), optax.lamb(1e-3)).update,
        lambda: optax.adam(optax.cosine_decay_schedule(1e-3, 10)).update,
        lambda: lambda m: m.layers[0],
        lambda: lambda p, y: SCALE * CROSS_ENTROPY(p, y),
        lambda: functools.partial(optax.huber_loss, delta=2.0),
        lambda: (1, 2.0, "a", None),
    ],
)
def test_what_is_built_again_of_the_same_parts_is_the_same(build: Any) -> None:
    assert Frozen(build()) == Frozen(build()) and hash(Frozen(build())) == hash(Frozen(build()))


def test_what_is_built_of_other_parts_is_another() -> None:
    def power(n: Any) -> Any:
        return lambda x: x**n

    for a, b in ((1, 2), (1, 1.0), (1.0, True), (0.0, -0.0)):
        assert Frozen(power(a)) != Frozen(power(b))
        assert Frozen(functools.partial(max, a)) != Frozen(functools.partial(max, b))
    assert Frozen(power(float("nan"))) == Frozen(power(float("nan")))
    assert Frozen(optax.adam(1e-3).update) != Frozen(optax.adam(1e-4).update)


def test_what_may_change_behind_our_back_is_compared_by_identity() -> None:
    config = SimpleNamespace(scale=1.0)
    settings = {"scale": 1.0}
    array = jnp.ones(3)
    for held in (config, settings, array):
        build = lambda held=held: lambda x: (x, held)
        assert Frozen(build()) != Frozen(build())
        assert Frozen(functools.partial(max, held)) != Frozen(functools.partial(max, held))
        kept = build()
        assert Frozen(kept) == Frozen(kept)


def test_functions_that_call_themselves_have_an_end() -> None:
    def build() -> Any:
        def count(n: int) -> int:
            return 0 if n == 0 else count(n - 1)

        return count

    first = build()
    assert Frozen(first) == Frozen(first) and Frozen(first) != Frozen(build())


def test_a_global_that_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    build = lambda: et.Learner(linear(), None, loss=lambda p, t: SCALE * CROSS_ENTROPY(p, t))
    before = build().evaluate(x, y)["loss"]
    monkeypatch.setitem(globals(), "SCALE", 10.0)
    assert build().evaluate(x, y)["loss"] == pytest.approx(10 * before, rel=1e-5)


def test_one_code_in_two_namespaces_is_two_functions() -> None:
    code = compile("def f(p, t): return factor * (p - t) ** 2", "<cell>", "exec")
    made = []
    for factor in (1.0, 2.0):
        space: dict[str, Any] = {"factor": factor}
        exec(code, space)
        made.append(space["f"])
    assert Frozen(made[0]) != Frozen(made[1])


def test_a_hyperparameter_whose_change_would_not_be_seen_is_refused_by_path() -> None:
    class Configured(et.Learner[Any]):
        config: Any = None

    made = Configured(linear(), None, loss=CROSS_ENTROPY, config=SimpleNamespace(scale=1.0))
    with pytest.raises(TypeError, match=r"`learner\.config` can't be hashed.*frozen dataclass"):
        made.evaluate(*data())
    made.evaluate(*data(), eager=True)


def test_a_step_put_on_the_class_later_is_seen() -> None:
    class Patched(et.Learner[Any]):
        pass

    made = Patched(linear(), None, loss=CROSS_ENTROPY)
    made.evaluate(*data())
    patched: Any = lambda self, state, **rest: (jnp.asarray(7.0), {}, state)
    Patched.test_step = patched
    assert made.evaluate(*data())["loss"] == 7.0


def test_settings_that_change_numbers_are_seen() -> None:
    class Draws(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, key: Any) -> Any:
            return jax.random.normal(key, ()), {}, state

    made = Draws(linear(), None)
    x, _ = data()
    with jax.threefry_partitionable(True):
        first = made.evaluate(x)["loss"]
    with jax.threefry_partitionable(False):
        second = made.evaluate(x)["loss"]
        assert second == pytest.approx(made.evaluate(x, eager=True)["loss"])
    assert first != second


@pytest.mark.slow
def test_disable_jit_runs_plain_python() -> None:
    x, y = data()
    made = et.Learner(linear(), optax.sgd(0.1), loss=CROSS_ENTROPY)
    compiled, _ = made.fit(x, y, batch_size=7, verbose=0)
    with jax.disable_jit():
        plain, _ = made.fit(x, y, batch_size=7, verbose=0)
    assert eqx.tree_equal(plain.model, compiled.model, rtol=1e-5, atol=1e-6)


def test_a_helper_that_was_defined_again_is_seen_by_steps_and_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, _ = data()
    for kind, model in ((Helped, linear()), (et.Learner, HelpedModel())):
        before = kind(model, None).predict(x)
        monkeypatch.setitem(globals(), "helper", lambda value: 10 * value)
        assert kind(model, None).predict(x) == pytest.approx(10 * before, rel=1e-5)
        monkeypatch.undo()
        assert kind(model, None).predict(x) == pytest.approx(before, rel=1e-6)


def helper(value: Any) -> Any:
    return value


def middle(value: Any) -> Any:
    return helper(value)


class Helped(et.Learner[Any]):
    """A learner whose step calls a helper of a helper."""

    def pred_step(self, model: Any, state: Any, x: Any) -> Any:
        return middle(jax.vmap(model)(x)), state


class HelpedModel(eqx.Module):
    """A model that calls a helper."""

    def __call__(self, x: Any) -> Any:
        return helper(jnp.sum(x))


def test_a_global_that_shares_its_name_with_an_attribute_costs_no_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = data()
    made = et.Learner(linear(), optax.sgd(0.1), loss=lambda p, t: CROSS_ENTROPY(p, t))
    read = lambda model: model.weight
    before = Frozen(read)
    monkeypatch.setitem(globals(), "weight", 1.0)
    assert Frozen(read) == before
    made.fit(x, y, verbose=0)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert made.fit(x, y, verbose=0).history.timing.compilations == []
