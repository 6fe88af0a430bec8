"""An iterable as a source of batches."""

import functools
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
from helpers import data as arrays, learner, linear, same
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _data as data


def batches_of(x: Any, y: Any, *sizes: int) -> list[tuple[Any, Any]]:
    cuts = np.cumsum(sizes)
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


def steps_of(made: et.Learner[Any]) -> int:
    assert made.state is not None
    return int(made.state.step)


def stacks_of(batches: Any, capacity: int = 4) -> Iterator[data.Stack]:
    with data.IterableSource(batches).open_reader(data.Batching(1)) as reader:
        for stack in reader.stacks(lambda batch: capacity):
            yield stack
            reader.consume(stack.num_batches)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("eqxtrain")]


@pytest.mark.parametrize(
    "given",
    [
        [(np.ones(2),), (np.ones(3),)],
        [{"a": np.ones(2)}],
        iter([np.ones(2)]),
        lambda: iter([np.ones(2)]),
        functools.partial(iter, [np.ones(2)]),
        (np.ones(2) for _ in range(2)),
        {1: np.ones(2)}.values(),
    ],
)
def test_what_gives_batches_is_told_from_what_is_data(given: Any) -> None:
    assert isinstance(data.as_source(given), data.IterableSource)


@pytest.mark.parametrize(
    "given", [np.ones(3), [np.ones(3), np.ones(3)], (np.ones(3),), {"a": np.ones(3)}]
)
def test_what_is_data_is_told_from_what_gives_batches(given: Any) -> None:
    assert isinstance(data.as_source(given), data.ArraySource)


@pytest.mark.slow
def test_fitting_an_iterable_is_fitting_its_arrays() -> None:
    x, y = arrays(21)
    made = learner().init()
    options: dict[str, Any] = {"epochs": 2, "verbose": 0}
    whole, history = made.fit(x, y, batch_size=8, shuffle=False, **options)
    batches = batches_of(x, y, 8, 8)

    def generator() -> Iterator[Any]:
        yield from batches

    for given in (batches, generator, dict(enumerate(batches)).values()):
        fitted, seen = made.fit(given, **options)
        assert same(whole, fitted) and dict(seen) == dict(history)
    once, _ = made.fit(iter(batches), verbose=0)
    assert same(once, made.fit(x, y, batch_size=8, shuffle=False, verbose=0)[0])
    assert made.evaluate(batches) == made.evaluate(x, y, batch_size=8)
    inputs = [x[:8], x[8:16], x[16:]]
    assert np.array_equal(made.predict(lambda: iter(inputs)), made.predict(x, batch_size=8))
    assert threads() == []


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", ["auto", 1, 2])
@pytest.mark.parametrize("rows", [5, 21])
def test_one_program_serves_whatever_the_batches_come_from(rows: int, steps_per_call: Any) -> None:
    x, y = arrays(rows)
    made = learner().init()
    options: dict[str, Any] = {"steps_per_call": steps_per_call}
    batches = batches_of(x, y, 8, 8)[: -(-rows // 8)]
    examples = [(x[i], y[i]) for i in range(rows)]

    class Examples:
        def __len__(self) -> int:
            return rows

        def __getitem__(self, index: int) -> Any:
            return examples[index]

    def runs(of: Any, *labels: Any, **cut: Any) -> Any:
        fitted, _ = made.fit(of, *labels, shuffle=False, verbose=0, **cut, **options)
        return fitted, made.evaluate(of, *labels, **cut, **options)

    fitted, measured = runs(x, y, batch_size=8)
    predicted = made.predict(x, batch_size=8, **options)
    with et.max_compiles(0):  # arrays and their short last batch ran all that there is
        for given, cut in (
            (batches, {}),
            (lambda: iter(batches), {}),
            (Examples(), {"batch_size": 8}),
        ):
            other, seen = runs(given, **cut)
            assert same(fitted, other) and seen == measured
        inputs = [b[0] for b in batches]
        assert np.array_equal(predicted, made.predict(lambda: iter(inputs), **options))


def test_batches_of_any_sizes_come_in_order() -> None:
    x = np.arange(40, dtype=np.float32)[:, None]
    batches = [(b,) for b in np.split(x, [3, 6, 7, 10, 20, 30])]
    seen = [
        np.asarray(stack.batches[0])[i]
        for stack in stacks_of(batches)
        for i in range(stack.num_batches)
    ]
    assert np.array_equal(np.concatenate(seen), x)


def test_a_slow_source_is_waited_for_no_longer_than_for_one_batch() -> None:
    def slow() -> Iterator[Any]:
        for _ in range(3):
            time.sleep(0.05)
            yield (np.ones((2, 3), np.float32),)

    assert [stack.num_batches for stack in stacks_of(slow, capacity=8)] == [1, 1, 1]


def test_a_pass_too_many_over_an_iterator_is_refused_before_the_first() -> None:
    x, y = arrays(16)
    batches = iter(batches_of(x, y, 8))
    with pytest.raises(
        ValueError, match=r"its batches only once, but 2 passes.*generator function"
    ):
        learner().fit(batches, epochs=2, verbose=0)
    assert len(list(batches)) == 2
    fitted, _ = learner().fit(iter(batches_of(x, y, 8)), verbose=0)
    assert steps_of(fitted) == 2
    with pytest.raises(ValueError, match="a second pass is needed") as raised:
        learner().fit(iter(batches_of(x, y, 8)), epochs=2, steps_per_epoch=2, verbose=0)
    assert steps_of(vars(raised.value)["learner"]) == 2


@pytest.mark.parametrize(
    "given, kind, match",
    [
        ([], ValueError, "`x` holds no arrays"),
        (iter([]), ValueError, "yielded no batch"),
        (lambda: iter([]), ValueError, "yielded no batch"),
        ([(None,)], ValueError, "one has no arrays"),
        (iter([None]), TypeError, "yielded None instead of a batch"),
        ([(np.ones((3, 4)), np.ones(2))], ValueError, r"\(3, 4\), \(2,\)"),
        ([(np.ones((0, 4)),)], ValueError, "at least one"),
        ([("cat",)], TypeError, r"`batch\[0\]` is 'cat'"),
    ],
)
def test_batches_that_are_none_get_a_sentence(given: Any, kind: type, match: str) -> None:
    with pytest.raises(kind, match=match):
        learner().fit(given, verbose=0)


def test_labels_beside_an_iterable_are_refused() -> None:
    x, y = arrays(8)
    with pytest.raises(TypeError, match="iterable of batches, so `y` can't be passed beside it"):
        learner().fit([(x,)], y, verbose=0)
    with pytest.raises(ValueError, match="`validation_split` splits data by row"):
        learner().fit([(x, y)], validation_split=0.1, verbose=0)


def test_an_exception_of_the_source_carries_the_learner_and_its_own_traceback() -> None:
    x, y = arrays(24)

    def breaks() -> Iterator[Any]:
        yield x[:8], y[:8]
        yield x[8:16], y[8:16]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone") as raised:
        learner().fit(breaks, verbose=0)
    assert any(frame.name == "breaks" for frame in traceback.extract_tb(raised.tb))
    assert int(vars(raised.value)["learner"].state.step) == 2
    assert threads() == []


def test_a_generator_is_read_a_bounded_number_of_batches_ahead() -> None:
    x, y = arrays(8)
    made: list[int] = []

    def endless() -> Iterator[Any]:
        while True:
            made.append(1)
            yield x, y

    class Stops(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == 5:
                run.stop("enough")

    fitted, _ = learner().fit(endless, verbose=0, steps_per_call=4, callbacks=Stops())
    assert steps_of(fitted) == 5
    assert len(made) <= 5 + 16 + 16 + 1  # the stack in hand, what is ready, one being made
    assert threads() == []


def test_a_generator_that_was_made_for_a_pass_is_closed_and_the_users_own_is_not() -> None:
    x, y = arrays(8)
    closed: list[str] = []

    def endless() -> Iterator[Any]:
        try:
            while True:
                yield x, y
        finally:
            closed.append("closed")

    class Stops(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            run.stop("enough")

    learner().fit(endless, verbose=0, callbacks=Stops())
    assert closed == ["closed"]
    own = endless()
    learner().fit(own, verbose=0, callbacks=Stops())
    assert closed == ["closed"] and next(own) is not None


@pytest.mark.slow
def test_a_producer_may_fill_the_same_memory_again() -> None:
    x, y = arrays(48)

    def reuses() -> Iterator[Any]:
        a, b = np.empty((8, 4), np.float32), np.empty(8, np.int32)
        for i in range(0, 48, 8):
            a[:], b[:] = x[i : i + 8], y[i : i + 8]
            yield a, b

    made = learner().init()
    assert made.evaluate(reuses) == made.evaluate(x, y, batch_size=8)
    assert made.evaluate(reuses, eager=True) == made.evaluate(x, y, batch_size=8, eager=True)
    fitted, _ = made.fit(reuses, epochs=2, verbose=0)
    plain, _ = made.fit(x, y, batch_size=8, shuffle=False, epochs=2, verbose=0)
    assert same(fitted, plain)


def test_a_pass_that_gives_nothing_is_an_error_whenever_it_comes() -> None:
    x, y = arrays(16)
    pool = iter(batches_of(x, y, 8))
    with pytest.raises(ValueError, match="yielded no batch") as raised:
        learner().fit(lambda: pool, epochs=3, verbose=0)
    assert steps_of(vars(raised.value)["learner"]) == 2


def test_what_goes_wrong_before_the_first_batch_carries_the_learner_as_given() -> None:
    def breaks() -> Iterator[Any]:
        raise LookupError("no such file")
        yield

    made = learner()
    with pytest.raises(LookupError) as raised:
        made.fit(breaks, verbose=0)
    carried: Any = raised.value
    assert carried.learner is made and carried.history.epochs == 0


def test_init_sees_the_first_batch_and_training_does_not_miss_it() -> None:
    class Builds(et.Learner[Any]):
        def init_step(self, x: Array, key: Any) -> Any:
            model = linear(x.shape[0])
            return model, self.states_step(model=model, key=key)

    x, y = arrays(16)
    built = Builds(None, optax.sgd(0.1), loss=learner().loss)
    fitted, _ = built.fit(iter(batches_of(x, y, 8)), verbose=0)
    assert steps_of(fitted) == 2


def test_mappings_and_validation_may_come_one_by_one() -> None:
    x, y = arrays(16)
    mappings = [{"x": a, "y_true": b} for a, b in batches_of(x, y, 8)]
    made = learner().init()
    fitted, history = made.fit(mappings, verbose=0, validation_data=mappings)
    plain, other = made.fit(
        x, y, batch_size=8, shuffle=False, verbose=0, validation_data=batches_of(x, y, 8)
    )
    assert same(fitted, plain) and dict(history) == dict(other)
    assert jax.tree.all(jax.tree.map(lambda leaf: not leaf.is_deleted(), fitted.model))
