"""How what an exception carries crosses to another process."""

import concurrent.futures
import copy
import multiprocessing
import pickle
from typing import Any

import equinox as eqx
import jax
import optax
import pytest
from helpers import data, learner, same

import eqxtrain as et
from eqxtrain._loop.exception_payload import attach


class Numbered(Exception):
    """An exception that says by itself how it is pickled."""

    def __init__(self, text: str, *, number: int) -> None:
        super().__init__(text)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _numbered, (str(self), self.number), vars(self)


def _numbered(text: str, number: int) -> Numbered:
    return Numbered(text, number=number)


def sent(error: BaseException, protocol: int | None = None) -> Any:
    """The exception as it arrives in another process."""
    return pickle.loads(pickle.dumps(error, protocol))


def _made() -> list[BaseException]:
    return [
        ZeroDivisionError("mine"),
        KeyboardInterrupt("mine"),
        OSError(2, "mine", "file"),
        ImportError("mine", name="module", path="path"),
        AttributeError("mine", name="nothing", obj=object),
        UnicodeDecodeError("utf-8", b"mine", 0, 1, "why"),
        jax.errors.JaxRuntimeError("mine"),
        eqx.EquinoxRuntimeError("mine"),
        Numbered("mine", number=5),
        ExceptionGroup("mine", [ValueError("inner")]),
    ]


@pytest.mark.parametrize("error", _made(), ids=lambda error: type(error).__name__)
def test_an_exception_arrives_with_its_type_its_text_and_its_notes(error: BaseException) -> None:
    error.add_note("noted")
    made, history = learner().init(), et.History()
    history.append({"loss": 0.5})
    attach(error, learner=made, history=history)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        arrived = sent(error, protocol)
        assert (type(arrived), str(arrived)) == (type(error), str(error))
        assert arrived.history["loss"] == [0.5] and arrived.learner is None
        assert arrived.__notes__[0] == "noted"
        assert arrived.__notes__[1].startswith("`.learner` stayed in the process where this was")
    arrived = sent(error)
    assert getattr(arrived, "number", None) == getattr(error, "number", None)
    for copied in (copy.copy(error), copy.copy(arrived)):
        assert type(copied) is type(error) and vars(copied).keys() == vars(error).keys()
    assert vars(copy.copy(error))["learner"] is made
    assert same(vars(copy.deepcopy(error))["learner"], made)


def test_a_learner_that_can_be_sent_is_sent() -> None:
    made = et.Learner(eqx.nn.Linear(4, 3, key=jax.random.key(0)), None, loss=optax.l2_loss).init()
    error = ValueError("mine")
    attach(error, learner=made, history=et.History())
    arrived = sent(error)
    assert same(arrived.learner, made) and not hasattr(arrived, "__notes__")


def test_exceptions_that_carry_nothing_are_pickled_as_ever() -> None:
    attach(LookupError("other"), learner=learner())
    plain = LookupError("mine", 2)
    plain.add_note("noted")
    arrived = sent(plain)
    assert arrived.args == ("mine", 2) and vars(arrived) == {"__notes__": ["noted"]}


class Fails(et.Callback):
    def on_train_begin(self, run: et.Run) -> None:
        raise NotADirectoryError("mine")


def fails() -> None:
    """What a worker does: it trains, and fails."""
    learner().fit(*data(), callbacks=Fails(), verbose=0, eager=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_what_a_worker_raises_is_what_is_seen(kind: str) -> None:
    context = multiprocessing.get_context("spawn")
    with pytest.raises(NotADirectoryError, match="mine") as raised:
        if kind == "pool":
            with context.Pool(1) as pool:
                pool.apply(fails)
        else:
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                executor.submit(fails).result()
    carried: Any = raised.value
    assert carried.learner is None and carried.history.epochs == 0
