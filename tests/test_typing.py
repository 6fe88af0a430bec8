"""What type checkers say of a user's file: nothing where it is right, something where it is not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RIGHT = """
from typing import Any

import equinox as eqx
import eqxtrain as et
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Net(eqx.Module):
    layer: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        self.layer = eqx.nn.Linear(4, 3, key=key)

    def __call__(self, x: Float[Array, "4"]) -> Float[Array, "3"]:
        return self.layer(x)


class MyState(et.LearnerState):
    other: Any = None


class Classifier(et.Learner[Net]):
    smoothing: float = 0.0
    name: str = "c"

    def pred_step(self, model: Net, state: MyState, x: Float[Array, "b 4"]):
        return jax.vmap(model)(x), state

    def test_step(self, model: Net, state: MyState, x: Array, y_true: Int[Array, "b"]):
        y_pred, state = self.pred_step(model=model, state=state, x=x)
        loss, logs = self.measure(y_pred=y_pred, y_true=y_true)
        return loss + self.smoothing, logs | {"other": jnp.mean(state.other)}, state

    def train_step(self, model: Net, state: MyState, x: Array, y_true: Array):
        _, logs, state, grads = self.grad_step(model=model, state=state, x=x, y_true=y_true)
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        return logs, eqx.apply_updates(model, updates), state.update(opt_state=opt_state)

    def states_step(self, model: Net, key: PRNGKeyArray) -> MyState:
        return MyState.from_state(super().states_step(model=model, key=key), other=jnp.zeros(()))


class Progress(et.Callback):
    def on_epoch_end(self, run: et.Run) -> None:
        run.stop(str(run.logs["loss"]))


learner = Classifier(
    Net(jr.key(0)), optax.adam(1e-3), loss=optax.l2_loss, metrics=[et.metrics.Mean()], smoothing=0.1
)
x = jnp.ones((3, 4))
fitted, history = learner.fit(x, jnp.zeros(3), epochs=2, callbacks=[Progress()])
net: Net = fitted.model
rate: float = fitted.replace(smoothing=0.2).smoothing
kind: Classifier = fitted
losses: list[float] = history["loss"]
et.Learner(Net(jr.key(0)), None, trainable=et.freeze(lambda m: m.layer))
et.Learner(Net(jr.key(0)), optax.MultiSteps(optax.sgd(0.1), 2), loss={"a": optax.l2_loss})
"""

STRICT = """
# pyright: strict
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import eqxtrain as et
import jax
import jax.random as jr
import numpy as np
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, PRNGKeyArray


class Net(eqx.Module):
    layer: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        self.layer = eqx.nn.Linear(4, 3, key=key)

    def __call__(self, x: Array) -> Array:
        return self.layer(x)


class MyState(et.LearnerState):
    other: Any = None


class Mine(et.Learner[Net]):
    beta: float = 1.0
    teacher: Net | None = None

    def pred_step(self, model: Net, state: MyState, x: Array) -> tuple[Array, MyState]:
        return jax.vmap(model)(x), state

    def test_step(
        self, model: Net, state: MyState, x: Array, y_true: Array, mask: Array | None
    ) -> tuple[Array, dict[str, Any], MyState]:
        y_pred, state = self.pred_step(model=model, state=state, x=x)
        loss, logs = self.measure(y_pred=y_pred, y_true=y_true, mask=mask)
        return loss * self.beta, logs | {"m": et.metrics.Mean.of(loss)}, state

    def grad_step(self, **available: Any) -> tuple[Array, dict[str, Any], Any, Any]:
        loss, logs, state, grads = super().grad_step(**available)
        return loss, logs, state, grads

    @eqx.filter_jit
    def train_step(self, model: Net, **available: Any) -> tuple[dict[str, Any], Net, Any]:
        loss, logs, state, grads = self.grad_step(model=model, **available)
        new, model, state = self.apply_gradients(model=model, state=state, grads=grads, loss=loss)
        return logs | new, model, state.update(other=state.other)

    def states_step(self, model: Net, key: PRNGKeyArray) -> MyState:
        state = MyState.from_state(super().states_step(model=model, key=key), other=1)
        return state.update(step=state.step, other=None)

    def colder(self) -> "Mine":
        return self.replace(beta=self.beta / 2, teacher=self.model, optimizer=optax.sgd(0.1))


class Bare(et.Learner[Any]):
    needed: float

    def __init__(self, model: Net) -> None:
        super().__init__(model, optax.sgd(0.1))
        self.needed = 2.0

    def train_step(self, *args: Any, **available: Any) -> tuple[dict[str, Any], Any, Any]:
        logs, model, state = super().train_step(*args, **available)
        return logs, model, state


class Watch(et.Callback):
    reads = "logs"
    every = et.Every(steps=2)

    def on_epoch_end(self, run: et.Run) -> None:
        loss = run.logs["loss"]
        learner: Mine = run.learner
        run.replace(learner.replace(beta=2.0))
        print(run.epoch, run.step, run.history["loss"], run.params, run.position, run.state, loss)
        if run.exception is None:
            run.stop("good")

    def state_dict(self) -> dict[str, Any]:
        return {}


class Total(et.metrics.Metric):
    total: Any = None

    def update(self, y_pred: Array) -> "Total":
        return self.replace(total=y_pred.sum())

    def merge(self, other: "Total") -> "Total":
        return self.replace(total=self.total + other.total)

    def compute(self) -> Any:
        return self.total


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield np.ones((3, 4)), np.ones(3)


learner = Mine(
    Net(jr.key(0)),
    optax.adam(1e-3),
    loss=[et.Loss(optax.l2_loss, weight=2.0), et.L2(1e-4)],
    metrics={"a": [et.metrics.Accuracy(), et.metrics.F1(average="macro")], "t": Total()},
    trainable=et.freeze(lambda model: model.layer.bias),
    beta=3.0,
)
x, y = np.ones((3, 4)), np.zeros(3)
learner = learner.init(x, y, key=jr.key(0))
fitted = learner.fit(
    x, y, epochs=2, validation_data=(x, y), callbacks=[Watch(), et.callbacks.Progress()]
)
learner, history = fitted
learner, history = fitted.learner.fit(batches, steps=3, on_interrupt="return")
for name, column in history.items():
    print(name, column[0], history.stopped, history.validations, history.position, history.epochs)
seconds = history.timing.epochs[0] + history.timing.compilations[0].seconds
last = history["loss"][-1]
result = learner.evaluate(x, y, remainder="pad")
score = result["loss"]
predicted = learner.predict(x)
print(predicted.shape, score, seconds)
learner, logs = learner.train_on_batch(x, y)
print(logs["loss"], learner.test_on_batch(x, y)["loss"], learner.predict_on_batch(x))
print(learner.forecast(x, y).peak, learner.summary(x).totals, learner.summary().rows[0].status)
beta = learner.replace(beta=2.0, trainable=None, loss=optax.l2_loss).beta
net = learner.colder().model
plain = et.Learner(Net(jr.key(0)), None)
y_pred, state = plain.pred_step(model=plain.model, state=plain.state, x=x)
state = learner.init().state
assert state is not None
state = state.begin({"loss": score}).advance({"loss": score}, weight=3)
state = state.update(step=state.step, opt_state=state.opt_state)
mean = et.metrics.Mean.of(jr.normal(jr.key(0)), 3.0).merge(et.metrics.Mean()).compute()
weighted = et.metrics.Weighted(et.metrics.Accuracy())
with et.max_compiles(2):
    et.clear_caches()
et.cache_on_disk("folder")
"""

WRONG = """
import equinox as eqx
import eqxtrain as et
import jax.numpy as jnp
import optax


class Bad(et.Learner[eqx.nn.Linear]):
    beta: float = 1.0

    def test_step(self, model, state, x) -> tuple[jnp.ndarray, dict]:  # WRONG [override]
        super().pred_step(model, state, x)  # WRONG [call-arg]
        return jnp.zeros(()), {}


class BadState(et.LearnerState):
    other: float = 1.0


def f(model: eqx.nn.Linear, state: BadState) -> None:
    Bad(model, optax.sgd(0.1), betta=2.0)  # WRONG [call-arg]
    Bad(model, "adam")  # WRONG
    learner = et.Learner(model, optax.sgd(0.1))
    learner.fit(jnp.ones(3), epoch=2)  # WRONG [call-arg]
    learner.fitt(jnp.ones(3))  # WRONG [attr-defined]
    name: str = learner.model  # WRONG [assignment]
    learner.train_step(model, state)  # WRONG [call-arg]
    learner.replace(optimiser=None)  # NEW [call-arg]
    learner.replace(model="name")  # NEW [arg-type]
    Bad(model, None).replace(betta=1.0)  # NEW [call-arg]
    state.update(step=0, others=1.0)  # WRONG [call-arg]
    et.metrics.Mean().replace(totals=1)  # NEW [call-arg]
"""
"""The lines marked NEW are flagged by checkers that target Python 3.13 or later."""

FILES = {
    "right": RIGHT,
    "right_strict": f"# pyright: strict\n{RIGHT}",
    "strict": STRICT,
    "wrong": WRONG,
}


def marked(*marks: str) -> list[int]:
    """The numbers, from 1, of the lines of `WRONG` with these marks."""
    lines = enumerate(WRONG.splitlines(), 1)
    return [i for i, line in lines if any(f"# {mark}" in line for mark in marks)]


@pytest.fixture(scope="module", params=["3.11", "3.13"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pyright(version: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What pyright says of each file, for one version of Python, as `line rule message`."""
    if shutil.which("pyright") is None:
        pytest.skip("pyright is in the `lint` extra")
    folder = tmp_path_factory.mktemp("pyright")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    options = ["--outputjson", "--pythonpath", sys.executable, "--pythonversion", version]
    command = ["pyright", *options, *(f"{name}.py" for name in FILES)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    found: dict[str, list[str]] = {name: [] for name in FILES}
    for d in json.loads(run.stdout)["generalDiagnostics"]:
        line = f"{d['range']['start']['line'] + 1} {d.get('rule')} {d['message']}"
        found[Path(d["file"]).stem].append(line)
    return found


@pytest.mark.slow
def test_a_typed_subclass_passes_without_noise(pyright: dict[str, list[str]]) -> None:
    assert pyright["right"] == []
    # of their own libraries and of steps without annotations, strict users know these
    known = ("reportUnknown", "reportMissingParameterType", "reportMissingTypeStubs")
    assert [e for e in pyright["right_strict"] if not e.split()[1].startswith(known)] == []


@pytest.mark.slow
def test_nothing_public_is_partially_unknown(pyright: dict[str, list[str]]) -> None:
    assert pyright["strict"] == []


@pytest.mark.slow
def test_what_is_wrong_is_flagged(pyright: dict[str, list[str]], version: str) -> None:
    found = sorted({int(error.split()[0]) for error in pyright["wrong"]})
    assert found == marked("WRONG", *["NEW"] * (version == "3.13"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is in the `lint` extra")
def test_every_public_type_is_declared() -> None:
    command = ["pyright", "--outputjson", "--verifytypes", "eqxtrain", "--ignoreexternal"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    symbols = json.loads(run.stdout)["typeCompleteness"]["symbols"]
    public = ("eqxtrain.metrics.", "eqxtrain.callbacks.")
    loose = [
        symbol["name"]
        for symbol in symbols
        if symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"]
        if symbol["name"].startswith(public)
    ]
    assert len(symbols) > 100 and loose == []


def mypy_lines(folder: Path) -> Iterator[str]:
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    options = ["--ignore-missing-imports", "--no-error-summary", "--hide-error-context"]
    options += ["--python-version", "3.13"]
    files = [f"{name}.py" for name in ("right", "strict", "wrong")]
    command = [sys.executable, "-m", "mypy", *options, *files]
    out = subprocess.run(command, capture_output=True, text=True, cwd=folder).stdout
    yield from (line for line in out.splitlines() if ": error:" in line)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mypy") is None, reason="mypy is in the `lint` extra")
def test_mypy_agrees(tmp_path: Path) -> None:
    found = list(mypy_lines(tmp_path))
    assert [line for line in found if not line.startswith("wrong.py")] == []
    lines = WRONG.splitlines()
    # mypy takes no converter of a field into account, so a name for the optimizer is right to it
    wanted = [f"{i} {lines[i - 1].split()[-1]}" for i in marked("WRONG [", "NEW [")]
    assert sorted({f"{line.split(':')[1]} {line.split()[-1]}" for line in found}) == sorted(wanted)
