"""Which callbacks hear of a hook, and when."""

from typing import Any

import pytest
from helpers import Tape, data, learner

import eqxtrain as et


@pytest.mark.slow
def test_the_order_of_hooks_is_that_of_keras() -> None:
    tape = Tape()
    x, y = data(10)
    learner().fit(x, y, batch_size=8, callbacks=[tape], validation_data=(x[:4], y[:4]), verbose=0)
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    test = ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"]
    assert tape.hooks == [
        "on_train_begin", "on_epoch_begin", *batch, *batch, *test, "on_epoch_end", "on_train_end",
    ]  # fmt: skip


@pytest.mark.slow
def test_evaluate_and_predict_tell_their_own_hooks() -> None:
    x, y = data(10)
    for name, call in (
        ("test", lambda tape: learner().evaluate(x, y, callbacks=tape)),
        ("predict", lambda tape: learner().predict(x, callbacks=tape)),
    ):
        tape = Tape()
        call(tape)
        moments = ("begin", "batch_begin", "batch_end", "end")
        assert tape.hooks == [f"on_{name}_{moment}" for moment in moments]


@pytest.mark.slow
def test_the_users_list_is_never_changed_and_may_be_used_again() -> None:
    told: list[et.Callback] = [Tape()]
    made = learner()
    made.fit(*data(), callbacks=told, verbose=2)
    made.fit(*data(), callbacks=told, verbose=2)
    assert len(told) == 1


@pytest.mark.usefixtures("unchecked")
def test_hooks_set_on_the_instance_are_called() -> None:
    seen: list[int] = []
    told = et.Callback()
    told.on_epoch_end = lambda run: seen.append(run.epoch)
    learner().fit(*data(), callbacks=told, verbose=0)
    assert seen == [0]


def test_what_is_declared_wrong_gets_a_sentence() -> None:
    def told(**body: Any) -> et.Callback:
        return type("Wrong", (et.Callback,), body)()

    keras = lambda self, epoch, logs: None
    optional = lambda self, epoch, logs=None: None
    alone = lambda self, logs=None: None
    for callback, message in (
        (told(reads="log"), '"state" or "logs"'),
        (told(every=3), r"`Every\(steps=\.\.\.\)`"),
        (told(on_epoch_end=keras), r"must take one argument, the run"),
        (told(on_epoch_end=optional), r"the run: .*, not \(epoch, logs=None\); `run.epoch`"),
        (told(on_train_end=alone), r"the run: .*, not \(logs=None\); `run.epoch`"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            learner().fit(*data(), callbacks=callback, verbose=0)
