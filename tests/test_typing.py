"""What type checkers say of a user's file: nothing where it is right, something where it is not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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

WRONG = """
import equinox as eqx
import eqxtrain as et
import jax.numpy as jnp
import optax


class Bad(et.Learner[eqx.nn.Linear]):
    beta: float = 1.0

    def test_step(self, model, state, x) -> tuple[jnp.ndarray, dict]:
        return jnp.zeros(()), {}


def f(model: eqx.nn.Linear) -> None:
    Bad(model, optax.sgd(0.1), betta=2.0)
    Bad(model, "adam")
    learner = et.Learner(model, optax.sgd(0.1))
    learner.fit(jnp.ones(3), epoch=2)
    learner.fitt(jnp.ones(3))
    name: str = learner.model
"""


def errors(path: Path, text: str) -> list[str]:
    """What pyright says of a file, as `line rule`."""
    path.write_text(text)
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    found = json.loads(run.stdout)["generalDiagnostics"]
    return [f"{d['range']['start']['line']} {d.get('rule')} {d['message']}" for d in found]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is in the `lint` extra")
@pytest.mark.parametrize("mode", ["standard", "strict"])
def test_a_typed_subclass_passes_without_noise(tmp_path: Path, mode: str) -> None:
    text = RIGHT if mode == "standard" else f"# pyright: strict\n{RIGHT}"
    found = errors(tmp_path / "right.py", text)
    if mode == "strict":  # of their own libraries, strict users know these
        known = ("reportUnknown", "reportMissingParameterType", "reportMissingTypeStubs")
        found = [e for e in found if not e.split()[1].startswith(known)]
    assert found == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mypy") is None, reason="mypy is in the `lint` extra")
def test_mypy_agrees(tmp_path: Path) -> None:
    for name, text in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(text)
    options = ["--ignore-missing-imports", "--no-error-summary", "--hide-error-context"]
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    found = [line for line in out.splitlines() if ": error:" in line]
    assert not [line for line in found if line.startswith("right.py")]
    assert {"[override]", "[call-arg]", "[attr-defined]", "[assignment]"} == {
        line.rsplit(" ", 1)[-1] for line in found
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is in the `lint` extra")
def test_wrong_constructors_arity_and_names_are_flagged(tmp_path: Path) -> None:
    lines = sorted({int(e.split()[0]) for e in errors(tmp_path / "wrong.py", WRONG)})
    marks = ("def test_step", "betta", '"adam"', "epoch=2", "fitt", "name: str")
    wanted = [i for i, line in enumerate(WRONG.splitlines()) if any(m in line for m in marks)]
    assert lines == wanted
