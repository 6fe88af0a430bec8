"""When functions and other leaves make the same program: never where a change would be missed."""

import abc
import collections
import contextvars
import enum
import functools
import os
import random
import sys
import types
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, data, forget_programs, linear, same

import eqxtrain as et
from eqxtrain._identity.static_leaf import StaticLeaf
from eqxtrain._identity.survey import Survey

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
    assert StaticLeaf(build()) == StaticLeaf(build()) and hash(StaticLeaf(build())) == hash(
        StaticLeaf(build())
    )


def test_what_is_built_of_other_parts_is_another() -> None:
    def power(n: Any) -> Any:
        return lambda x: x**n

    for a, b in ((1, 2), (1, 1.0), (1.0, True), (0.0, -0.0)):
        assert StaticLeaf(power(a)) != StaticLeaf(power(b))
        assert StaticLeaf(functools.partial(max, a)) != StaticLeaf(functools.partial(max, b))
    assert StaticLeaf(power(float("nan"))) == StaticLeaf(power(float("nan")))
    assert StaticLeaf(optax.adam(1e-3).update) != StaticLeaf(optax.adam(1e-4).update)


def test_what_may_change_is_compared_by_what_it_holds_now() -> None:
    for build in (lambda: SimpleNamespace(scale=1.0), lambda: {"scale": 1.0}, lambda: np.ones(3)):
        held: Any = build()
        other = build()
        read = lambda: held  # noqa: B023
        before = StaticLeaf(read)
        assert before == StaticLeaf(read)
        if isinstance(held, SimpleNamespace):
            held.scale = 2.0
        else:
            held["scale" if isinstance(held, dict) else 0] = 2.0
        assert before != StaticLeaf(read)
        held = other
        assert before == StaticLeaf(read)


def test_functions_that_call_themselves_have_an_end() -> None:
    def build(n: int) -> Any:
        def count() -> int:
            return n if n == 0 else count()

        return count

    assert StaticLeaf(build(1)) == StaticLeaf(build(1)) != StaticLeaf(build(2))


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
    assert StaticLeaf(made[0]) != StaticLeaf(made[1])


def test_a_hyperparameter_that_cannot_be_hashed_is_seen_through() -> None:
    class Configured(et.Learner[Any]):
        config: Any = None

        def test_step(self, model: Any, state: Any) -> Any:
            return self.config.scale * jnp.sum(model.bias), {}, state

    config = SimpleNamespace(scale=1.0)
    made = Configured(linear(), None, config=config)
    before = made.evaluate(data()[0])["loss"]
    config.scale = 10.0
    assert made.evaluate(data()[0])["loss"] == pytest.approx(10 * before)


def test_a_step_put_on_the_class_later_is_seen() -> None:
    class Patched(et.Learner[Any]):
        pass

    made = Patched(linear(), None, loss=CROSS_ENTROPY)
    made.evaluate(*data())
    patched: Any = lambda self, state, **rest: (jnp.asarray(7.0), {}, state)
    Patched.test_step = patched
    assert made.evaluate(*data())["loss"] == 7.0


@pytest.mark.slow
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
    before = StaticLeaf(read)
    monkeypatch.setitem(globals(), "weight", 1.0)
    assert StaticLeaf(read) == before
    made.fit(x, y, verbose=0)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert made.fit(x, y, verbose=0).history.timing.compilations == []


def rescaled(p: Any, t: Any) -> Any:
    return helper(CROSS_ENTROPY(p, t))


class Config:
    """Read through an attribute."""

    alpha = 1.0


class Scale:
    """An object that is called as a loss, and one with a method that is."""

    def __call__(self, p: Any, t: Any) -> Any:
        return helper(CROSS_ENTROPY(p, t))

    def method(self, p: Any, t: Any) -> Any:
        return helper(CROSS_ENTROPY(p, t))


class Teacher(eqx.Module):
    """A module that is held as a hyperparameter."""

    def __call__(self, x: Any) -> Any:
        return helper(x)


class Taught(et.Learner[Any]):
    teacher: Teacher = eqx.field(default_factory=Teacher, kw_only=True)

    def test_step(self, model: Any, state: Any, x: Any) -> Any:
        return self.teacher(jnp.mean(jax.vmap(model)(x))), {}, state


class Static(et.Learner[Any]):
    @staticmethod
    def scaled(value: Any) -> Any:
        return helper(value)

    def test_step(self, model: Any, state: Any, x: Any) -> Any:
        return self.scaled(jnp.mean(jax.vmap(model)(x))), {}, state


class Applies(eqx.Module):
    """A model with a function in a static field, and a class variable."""

    linear: eqx.nn.Linear
    last: Any = eqx.field(static=True)
    factor = 1.0

    def __call__(self, x: Any) -> Any:
        return self.factor * self.last(self.linear(x))


class Helpful(et.metrics.Metric):
    """A metric whose `update` and `compute` call a helper."""

    mean: et.metrics.Mean = eqx.field(default_factory=et.metrics.Mean)

    def update(self, y_pred: Any) -> Any:
        return self.replace(mean=self.mean.merge(et.metrics.Mean.of(helper(y_pred))))

    def compute(self) -> Any:
        return helper(self.mean.compute())


TABLE: dict[str, Any] = {"loss": rescaled}
SETTINGS = SimpleNamespace(alpha=1.0)


def changes_helper(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "helper", lambda value: 10 * value)


def of(loss: Any, model: Any = None, **fields: Any) -> et.Learner[Any]:
    return et.Learner(model or linear(), None, loss=loss, **fields)


READERS: dict[str, tuple[Any, Any]] = {
    "bound method": (lambda: of(Scale().method), changes_helper),
    "callable object": (lambda: of(Scale()), changes_helper),
    "function in a static field": (
        lambda: of(CROSS_ENTROPY, Applies(linear(), lambda x: helper(x))),
        changes_helper,
    ),
    "class variable of the model": (
        lambda: of(CROSS_ENTROPY, Applies(linear(), jnp.tanh)),
        lambda patch: patch.setattr(Applies, "factor", 10.0),
    ),
    "module as a hyperparameter": (lambda: Taught(linear(), None), changes_helper),
    "static method": (lambda: Static(linear(), None), changes_helper),
    "function in a dict": (
        lambda: of(lambda p, t: TABLE["loss"](p, t)),
        lambda patch: patch.setitem(TABLE, "loss", lambda p, t: 10 * rescaled(p, t)),
    ),
    "what a function in a dict calls": (
        lambda: of(lambda p, t: TABLE["loss"](p, t)),
        changes_helper,
    ),
    "update and compute": (lambda: of(CROSS_ENTROPY, metrics=Helpful()), changes_helper),
    "attribute of a class": (
        lambda: of(lambda p, t: Config.alpha * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setattr(Config, "alpha", 10.0),
    ),
    "attribute of an object": (
        lambda: of(lambda p, t: SETTINGS.alpha * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setattr(SETTINGS, "alpha", 10.0),
    ),
    "attribute of a module": (
        lambda: of(lambda p, t: configuration.alpha * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setattr(configuration, "alpha", 10.0),
    ),
    "getattr of a module": (
        lambda: of(lambda p, t: getattr(configuration, "al" + "pha") * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setattr(configuration, "alpha", 10.0),
    ),
    "module imported where it is read": (
        lambda: of(imports),
        lambda patch: patch.setattr(configuration, "alpha", 10.0),
    ),
    "array": (
        lambda: of(lambda p, t: FACTORS[0] * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setitem(globals(), "FACTORS", np.full(3, 10, np.float32)),
    ),
    "environment": (
        lambda: of(lambda p, t: float(os.environ.get("ALPHA", "1")) * CROSS_ENTROPY(p, t)),
        lambda patch: patch.setenv("ALPHA", "10"),
    ),
}

FACTORS: Any = np.ones(3, np.float32)
configuration: Any = types.ModuleType("configuration")
configuration.alpha = 1.0
sys.modules["configuration"] = configuration


def imports(p: Any, t: Any) -> Any:
    from configuration import alpha  # pyright: ignore[reportMissingImports]

    return alpha * CROSS_ENTROPY(p, t)


@pytest.mark.parametrize("build,change", READERS.values(), ids=READERS.keys())
def test_what_tracing_would_read_now_is_what_is_run(
    build: Any, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data(8)
    kept = build().init()
    before = kept.evaluate(x, y)
    change(monkeypatch)
    expected = kept.evaluate(x, y, eager=True)
    assert expected != pytest.approx(before)
    for one in (kept, build().init()):
        assert one.evaluate(x, y) == pytest.approx(expected, rel=1e-5)
    monkeypatch.undo()
    assert kept.evaluate(x, y) == pytest.approx(before, rel=1e-6)


def test_a_predicate_of_what_is_trained_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(8)
    made = et.Learner(
        linear(), optax.sgd(0.1), loss=CROSS_ENTROPY, trainable=lambda leaf: leaf.ndim == RANK
    )
    fitted, _ = made.train_on_batch(x, y)
    assert same(fitted.model.bias, made.model.bias)
    monkeypatch.setitem(globals(), "RANK", 1)
    fitted, _ = made.train_on_batch(x, y)
    assert same(fitted.model.weight, made.model.weight)
    assert not same(fitted.model.bias, made.model.bias)


RANK = 2


@pytest.mark.parametrize("values", [(1, True), (2, 2.0), (0, -0.0)])
def test_equal_static_fields_of_other_types_are_other_programs(values: Any) -> None:
    class Typed(eqx.Module):
        number: Any = eqx.field(static=True)

        def __call__(self, x: Any) -> Any:
            return jnp.asarray(self.number)

    x, _ = data(4)
    for number in values:
        assert et.Learner(Typed(number), None).predict(x).dtype == jnp.asarray(number).dtype


def test_what_cannot_be_seen_through_costs_a_trace_and_no_compile() -> None:
    traces: list[int] = []

    class Unclear(eqx.Module):
        number: Any = eqx.field(static=True)
        iterator: Any = eqx.field(static=True)

        def __call__(self, x: Any) -> Any:
            traces.append(1)
            return jnp.sum(x) * (0 if self.number != self.number else 1)

    x, _ = data(4)
    et.Learner(Unclear(float("nan"), iter("ab")), None).predict(x)
    with et.max_compiles(0):
        for _ in range(3):
            et.Learner(Unclear(float("nan"), iter("ab")), None).predict(x)
    assert len(traces) == 4


def test_methods_that_no_step_calls_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[int] = []

    class Saves(et.Learner[Any]):
        def save(self, path: str) -> None:
            with open(path, "w") as file:
                file.write(helper("text"))

        def test_step(self, model: Any, state: Any, x: Any) -> Any:
            traces.append(1)
            return jnp.mean(jax.vmap(model)(x)), {}, state

    x, _ = data(8)
    made = Saves(linear(), None).init()
    made.evaluate(x)
    monkeypatch.setitem(globals(), "helper", lambda value: value)
    made.evaluate(x)
    assert len(traces) == 1


@pytest.mark.slow
def test_only_what_is_new_is_compiled() -> None:
    x, y = data(8)
    forget_programs()
    first = et.Learner(linear(), optax.adam(1e-2), loss=CROSS_ENTROPY)
    with et.max_compiles(2) as seen:
        first.evaluate(x, y)
        first.predict(x)
        for change in (
            {"optimizer": optax.sgd(0.1, momentum=0.9)},
            {"trainable": et.freeze(lambda m: m.bias)},
        ):
            first.replace(**change).evaluate(x, y)
        first.init().replace(optimizer=optax.lion(0.1)).evaluate(x, y)
        for change in ({"metrics": et.metrics.Accuracy()}, {"loss": rescaled}):
            first.replace(**change).predict(x)
    assert [c.step for c in seen] == ["test_step", "pred_step"]


@pytest.mark.slow
def test_a_sweep_over_a_rate_that_is_an_input_compiles_once() -> None:
    x, y = data(20)
    forget_programs()
    with et.max_compiles(2) as seen:  # a whole batch, and a short one
        for rate in np.logspace(-4, -1, 5):
            optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=float(rate))
            et.Learner(linear(), optimizer, loss=CROSS_ENTROPY).fit(x, y, batch_size=8, verbose=0)
    assert len(seen) == 2


@pytest.mark.slow
def test_the_reason_for_a_compile_names_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(8)
    forget_programs()

    def reason(rate: float = 1e-3, loss: Any = None) -> str:
        made = et.Learner(linear(), optax.adam(rate), loss=loss or rescaled)
        return made.fit(x, y, verbose=0).history.timing.compilations[0].reason

    assert reason() == "first"
    assert reason(1e-2) == "`step_size` -0.001 → -0.01 in `learner.optimizer.update`"
    changes_helper(monkeypatch)
    assert reason() == "`helper` was redefined in `learner.loss`"


class Pair(eqx.Module):
    """Two hyperparameters, either of which may be an array."""

    a: Any
    b: Any


def custom_rule(factor: float) -> Any:
    @jax.custom_vjp
    def identity(x: Any) -> Any:
        return x

    identity.defvjp(lambda x: (x, None), lambda _, grad: (factor * grad,))
    return identity


def difference(a: Any, b: Any) -> Any:
    return a - b


class Attributes(dict[str, Any]):
    """A dict with attributes beside its items."""


def attributes(**held: Any) -> Any:
    made = Attributes()
    vars(made).update(held)
    return made


class Color(enum.Enum):
    RED = 1
    BLUE = 2


PAIRS: dict[str, tuple[Any, Any]] = {
    "options of vmap": (jax.vmap(difference, in_axes=0), jax.vmap(difference, in_axes=1)),
    "options of grad": (jax.grad(difference, argnums=0), jax.grad(difference, argnums=1)),
    "rule of custom_vjp": (custom_rule(1.0), custom_rule(2.0)),
    "which is an array": (Pair(3.0, jnp.ones(())), Pair(jnp.ones(()), 3.0)),
    "names of attributes": (SimpleNamespace(a=1, b=2), SimpleNamespace(b=1, a=2)),
    "order of a dict": (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    "what a dict holds beside": (attributes(a=1), attributes(a=2)),
    "counts": (collections.Counter("ab"), collections.Counter("abb")),
    "members of an enum": (Color.RED, Color.BLUE),
    "random numbers": (random.Random(0), random.Random(0)),
    "context": (contextvars.ContextVar("a"), contextvars.ContextVar("a")),
    "iterators": (iter("ab"), iter("ab")),
}


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS.keys())
def test_what_is_read_differently_has_another_key(first: Any, second: Any) -> None:
    assert Survey(loss=first).key != Survey(loss=second).key


class Hostile:
    """An object that does not like to be looked at."""

    __slots__ = ("data",)

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def test_what_does_not_like_to_be_looked_at_costs_a_trace() -> None:
    x, y = data(8)
    for held in (Hostile(), memoryview(bytearray(4))):
        loss: Any = lambda p, t, held=held: CROSS_ENTROPY(p, t)
        assert np.isfinite(et.Learner(linear(), None, loss=loss).evaluate(x, y)["loss"])


SCALES = {"now": 1.0}


def test_what_a_metaclass_reads_and_what_is_registered_is_seen() -> None:
    class Meta(type):
        @property
        def scale(cls) -> float:
            return SCALES["now"]

    class Scaled(metaclass=Meta): ...

    class Marked(abc.ABC):  # noqa: B024
        """Classes are registered with it."""

    class Held: ...

    held = Held()
    for read, change in (
        (lambda p: Scaled.scale * p, lambda: SCALES.update(now=3.0)),
        (lambda p: (2 if isinstance(held, Marked) else 1) * p, lambda: Marked.register(Held)),
    ):
        before = StaticLeaf(read)
        assert before == StaticLeaf(read)
        change()
        assert before != StaticLeaf(read)
