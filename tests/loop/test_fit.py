"""`fit`: its laws, its numbers against loops by hand, interruption and failure."""

import contextlib
import functools
import gc
import itertools
import threading
import time
import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, Dropped, data, learner, library, linear, normed, same
from hypothesis import assume, given, settings, strategies as st
from jax.core import Tracer
from jaxtyping import Array

import eqxtrain as et
from eqxtrain import _data as data_


def dropped(**fields: Any) -> et.Learner[Any]:
    return learner(Dropped(jr.key(0)), **fields)


@pytest.mark.slow
@pytest.mark.parametrize("make", [dropped, normed])
def test_fitting_twice_for_two_epochs_equals_fitting_once_for_four(make: Any) -> None:
    x, y = data(21)
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0}
    whole, history = make().fit(x, y, epochs=4, **options)
    half, first = make().fit(x, y, epochs=2, **options)
    again, second = half.fit(x, y, epochs=2, **options)
    assert same(whole, again)
    for name in history:
        assert history[name] == first[name] + second[name]


@pytest.mark.slow
def test_a_second_fit_sees_a_new_order_and_a_rerun_the_same() -> None:
    class Orders(et.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_end(self, run: et.Run) -> None:
            self.seen.append(run.logs["first"])

    class Reports(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array) -> Any:
            return jnp.sum(model.bias), {"first": et.metrics.Last.of(x[0, 0])}, state

    x = np.arange(40, dtype=np.float32).reshape(10, 4)

    def orders(key: int, fits: int) -> list[float]:
        told = Orders()
        made = Reports(linear(), optax.sgd(0.0)).init(key=jr.key(key))
        for _ in range(fits):
            made, _ = made.fit(x, batch_size=1, verbose=0, callbacks=told)
        return told.seen

    twice = orders(0, fits=2)
    assert sorted(twice[:10]) == sorted(x[:, 0]) == sorted(twice[10:])
    assert twice[:10] != twice[10:]
    assert orders(0, fits=1) == twice[:10] != orders(1, fits=1)


@pytest.mark.slow
def test_the_numbers_are_those_of_a_loop_by_hand() -> None:
    x, y = data(21)
    fitted, history = learner(optimizer=optax.sgd(0.1)).fit(
        x, y, epochs=2, batch_size=8, shuffle=False, verbose=0
    )
    weight, bias = np.asarray(linear().weight, np.float64), np.asarray(linear().bias, np.float64)
    for epoch in range(2):
        total, right = 0.0, 0
        for start in range(0, 21, 8):
            a, b = x[start : start + 8], y[start : start + 8]
            logits = a @ weight.T + bias
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total += -np.log(p[np.arange(len(b)), b]).sum()
            right += (logits.argmax(1) == b).sum()
            grad = (p - np.eye(3)[b]) / len(b)
            weight, bias = weight - 0.1 * grad.T @ a, bias - 0.1 * grad.sum(0)
        assert history["loss"][epoch] == pytest.approx(total / 21, rel=1e-5)
        assert history["accuracy"][epoch] == pytest.approx(right / 21, rel=1e-6)
    assert np.asarray(fitted.model.weight) == pytest.approx(weight, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 8, 21, 100])
def test_no_split_into_batches_changes_what_is_evaluated(batch_size: int) -> None:
    x, y = data(21)
    whole = learner().evaluate(x, y, batch_size=21)
    assert learner().evaluate(x, y, batch_size=batch_size) == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_weights_count_in_the_loss_and_not_in_the_metrics() -> None:
    x, y = data(21)
    w = np.linspace(0, 2, 21).astype(np.float32)
    result = learner().evaluate(x, y, sample_weight=w, batch_size=8)
    losses = CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y))
    assert result["loss"] == pytest.approx(float(np.mean(np.asarray(losses) * w)), rel=1e-5)
    assert result["accuracy"] == learner().evaluate(x, y)["accuracy"]


@pytest.mark.slow
def test_class_weights_count_in_training_and_not_in_validation() -> None:
    x, y = data(21)
    weights = {0: 5.0, 2: 0.5}
    table = np.asarray([5.0, 1.0, 0.5])[y]
    losses = np.asarray(CROSS_ENTROPY(jax.vmap(linear())(jnp.asarray(x)), jnp.asarray(y)))
    made = learner(optimizer=optax.sgd(0.0))
    for weight in (weights, [5.0, 1.0, 0.5]):
        _, history = made.fit(x, y, class_weight=weight, validation_data=(x, y), verbose=0)
        assert history["loss"][0] == pytest.approx(np.mean(table * losses), rel=1e-5)
        assert history["val_loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    weighted = made.evaluate(x, y, class_weight=weights)
    assert weighted["loss"] == pytest.approx(np.mean(table * losses), rel=1e-5)


@pytest.mark.slow
def test_validation_is_what_evaluate_gives() -> None:
    x, y = data(21)
    fitted, history = dropped().fit(x, y, validation_data=(x[:5], y[:5]), verbose=0)
    expected = fitted.evaluate(x[:5], y[:5])
    assert {name: history[f"val_{name}"][0] for name in expected} == expected


@pytest.mark.slow
def test_the_split_takes_the_last_fraction_before_shuffling() -> None:
    x, y = data(21)
    by_split, split = learner().fit(x, y, validation_split=0.3, verbose=0)
    by_hand, hand = learner().fit(x[:14], y[:14], validation_data=(x[14:], y[14:]), verbose=0)
    assert same(by_split, by_hand) and dict(split) == dict(hand)


@pytest.mark.slow
def test_named_validation_sets_have_their_own_names() -> None:
    x, y = data(21)
    sets = {"near": (x, y), "far": (x[:4], y[:4], np.ones(4, np.float32))}
    _, history = learner().fit(x, y, validation_data=sets, verbose=0)
    assert {"val_near_loss", "val_far_accuracy"} <= set(history)


def test_history_has_nan_where_nothing_was_measured() -> None:
    class Once(et.Callback):
        def on_epoch_end(self, run: et.Run) -> None:
            if run.epoch == 1:
                run.logs["extra"] = 3.0

    _, history = learner().fit(*data(), epochs=3, callbacks=Once(), verbose=0)
    assert np.isnan(history["extra"][0]) and history["extra"][1] == 3.0
    assert np.isnan(history["extra"][2])


def test_nan_in_the_inputs_is_not_an_error() -> None:
    x, y = data()
    with (
        pytest.warns(UserWarning, match="The loss of epoch 1 is nan. Look for nan in the data"),
        pytest.warns(UserWarning, match="`accuracy` is nan: .* a score that is nan"),
    ):
        _, history = learner().fit(np.full_like(x, np.nan), y, verbose=0)
    assert np.isnan(history["loss"][0]) and np.isnan(history["accuracy"][0])


@pytest.mark.slow
def test_a_loss_that_becomes_nan_is_told_of_once() -> None:
    def loss(y_pred: Array, y_true: Array, x: Array) -> Array:
        return CROSS_ENTROPY(y_pred, y_true) + jnp.log(x[:, 0])  # of rows that are left out first

    x, y = data(8)
    x[:, 0] = [*range(1, 5), *[-1.0] * 4]
    made = learner(loss=loss, metrics=None)
    options: dict[str, Any] = {"batch_size": 4, "steps_per_epoch": 1, "shuffle": False}
    with pytest.warns(UserWarning) as said:
        _, history = made.fit(x, y, epochs=4, verbose=0, **options)
    assert [np.isnan(v) for v in history["loss"]] == [False, True, False, True]
    assert ["epoch 2 is nan" in str(w.message) for w in said] == [True]


@pytest.mark.slow
def test_eager_runs_plain_python_with_the_same_numbers() -> None:
    values: list[Any] = []

    class Looks(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, x: Array, y_true: Array) -> Any:
            loss = CROSS_ENTROPY(jax.vmap(model)(x), y_true).mean()
            if not isinstance(x, Tracer):
                values.append(float(x[0, 0]))
            return loss, {"rows": et.metrics.Gather.of(x[:, 0])}, state

    x, y = data()
    made = Looks(linear(), optax.sgd(0.1))
    options: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}
    compiled, history = made.fit(x, y, **options)
    assert not values
    eager, other = made.fit(x, y, eager=True, **options)
    assert values == [float(x[0, 0]), float(x[8, 0]), float(x[16, 0])]
    assert other["loss"] == pytest.approx(history["loss"], rel=1e-5)
    assert np.array_equal(other["rows"][0], history["rows"][0])
    assert eqx.tree_equal(eager.model, compiled.model, rtol=1e-5)
    assert made.evaluate(x, y, eager=True)["loss"] == pytest.approx(made.evaluate(x, y)["loss"])
    assert np.allclose(made.predict(x, eager=True), made.predict(x), rtol=1e-5)


@pytest.mark.slow
def test_what_is_gathered_comes_in_order_and_once() -> None:
    x, y = data()
    made = learner(metrics=[et.metrics.Gather(), et.metrics.Accuracy()])
    result = made.evaluate(x, y, batch_size=4)
    predicted = made.predict(x, batch_size=4)  # by another program
    np.testing.assert_allclose(result["gather"], predicted, rtol=1e-5, atol=1e-6)
    assert isinstance(result["accuracy"], float)
    _, history = made.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert [column.shape for column in history["gather"]] == [(21, 3), (21, 3)]


def test_zero_epochs_change_nothing() -> None:
    made = learner().init()
    fitted, history = made.fit(*data(), epochs=0, verbose=0)
    assert same(fitted, made) and history.epochs == 0
    with pytest.raises(ValueError, match="`epochs`"):
        made.fit(*data(), epochs=-1)


@pytest.mark.usefixtures("unchecked")
def test_verbose_that_is_none_of_the_known_gets_a_sentence() -> None:
    wrong: Any = 7
    with pytest.raises(ValueError, match='0, 1, 2, "auto" or "plot"'):
        learner().fit(*data(), verbose=wrong)


# The shape of a run.


class Tracks(et.Learner[Any]):
    """One number, drawn to the mean of what it sees; it tells what that was."""

    def test_step(self, model: Any, state: Any, x: Array, mask: Any = None) -> Any:
        real = jnp.ones(len(x)) if mask is None else mask.astype(jnp.float32)
        loss = jnp.sum(real * (model["w"] - x) ** 2) / jnp.sum(real)
        return loss, {"seen": et.metrics.Gather.of(x)}, state


def by_hand(
    train: np.ndarray, held_out: np.ndarray, key: Any, size: int, epochs: int | None,
    steps: int | None, steps_per_epoch: int | None, remainder: str,
) -> tuple[float, list[Any]]:  # fmt: skip
    """The same in NumPy: the number, and of each epoch what was seen, the loss and val_loss."""
    w, taken, rest, history = 0.0, 0, [], []
    while (epochs is None or len(history) < epochs) and (steps is None or taken < steps):
        seen, losses = [], []
        if not rest:
            order = np.arange(len(train)) if key is None else key(taken, len(train))
            rest = [train[order[i : i + size]] for i in range(0, len(train), size)]
            rest = [b for b in rest if remainder != "drop" or len(b) == size]
        most = min(steps_per_epoch or 99, 99 if steps is None else steps - taken)
        for batch in rest[:most]:
            seen, losses = [*seen, *batch], [*losses, *(w - batch) ** 2]
            w, taken = w - 0.1 * 2 * np.mean(w - batch), taken + 1
        rest = rest[most:]
        history.append((seen, np.mean(losses), np.mean((w - held_out) ** 2)))
    return float(w), history


class Rows:
    """A dataset of single numbers."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.x[i]


def cut(x: np.ndarray, size: int) -> Any:
    return lambda: (x[i : i + size] for i in range(0, len(x), size))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 13),
    size=st.sampled_from([1, 3, 4, 20]),
    epochs=st.integers(1, 3) | st.none(),
    steps=st.integers(1, 9) | st.none(),
    steps_per_epoch=st.integers(1, 4) | st.none(),
    fraction=st.sampled_from([0.0, 0.2, 0.5]),
    remainder=st.sampled_from(["keep", "pad", "drop"]),
    kind=st.sampled_from(["arrays", "unshuffled", "rows", "function", "list"]),
)
@pytest.mark.filterwarnings("ignore:The data ran out")
def test_a_run_of_any_shape_is_the_loop_by_hand(
    n: int, size: int, epochs: int | None, steps: int | None, steps_per_epoch: int | None,
    fraction: float, remainder: Any, kind: str,
) -> None:  # fmt: skip
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    here = int(np.floor(n * (1 - fraction)))
    train, held_out = x[:here], x[here:] if fraction else x
    assume(here not in (0, n) or fraction == 0)
    by_rows = kind in ("arrays", "unshuffled", "rows")
    assume(remainder != "drop" or len(train) >= size)
    assume(by_rows or len(train) >= size or remainder == "keep")  # their first batch is the norm
    made = Tracks({"w": jnp.zeros(())}, optax.sgd(0.1)).init(key=jr.key(n))
    assert made.state is not None
    words = tuple(int(word) for word in made.state.key)
    key = (lambda step, n: data_.Order(words, step).permutation(n)) if by_rows else None
    key = None if kind == "unshuffled" else key
    options: dict[str, Any] = {
        "epochs": epochs, "steps": steps, "steps_per_epoch": steps_per_epoch, "verbose": 0,
        "batch_size": size, "remainder": remainder,
    }  # fmt: skip
    by_split = by_rows and fraction > 0
    given = x if by_split else train
    options |= {"validation_split": fraction} if by_split else {"validation_data": (held_out,)}
    source = {"rows": Rows(given), "function": cut(given, size), "list": None}.get(kind, given)
    source = [(batch,) for batch in cut(given, size)()] if kind == "list" else source
    fitted, history = made.fit(source, shuffle=kind != "unshuffled", **options)
    limits = (1 if epochs is None and steps is None else epochs, steps, steps_per_epoch)
    w, expected = by_hand(train, held_out, key, size, *limits, remainder)
    assert history.epochs == len(expected)
    for i, (seen, loss, val_loss) in enumerate(expected):
        assert list(history["seen"][i]) == seen
        assert history["loss"][i] == pytest.approx(loss, rel=1e-4)
        assert history["val_loss"][i] == pytest.approx(val_loss, rel=1e-4)
        assert list(history["val_seen"][i]) == list(held_out)
    assert float(fitted.model["w"]) == pytest.approx(w, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "cuts"), [(dropped, (5, 2, 6)), (normed, (1, 8))])
def test_a_run_in_pieces_is_the_run_in_one(make: Any, cuts: tuple[int, ...]) -> None:
    x, y = data(21)

    def batches() -> Any:
        return ((x[i : i + 4], y[i : i + 4]) for i in range(0, 21, 4))

    by_rows = [((x, y), {"batch_size": 4, "remainder": "drop"}), ((x, y), {"batch_size": 4})]
    by_batches = [((list(batches()),), {"remainder": r}) for r in ("keep", "drop")]
    for source, options in [*by_rows, *by_batches]:
        options: dict[str, Any] = {"verbose": 0, **options}
        whole, history = make().fit(*source, steps=sum(cuts), **options)
        part, at = make(), None
        for steps in cuts:
            part, piece = part.fit(*source, steps=steps, position=at, **options)
            at = piece.position
        assert same(part, whole) and at == history.position
    with pytest.warns(UserWarning, match="the 5 batches before the position are produced"):
        part, piece = make().fit(batches, steps=5, verbose=0)
        part, piece = part.fit(batches, steps=4, position=piece.position, verbose=0)
    assert same(part, make().fit(batches, steps=9, verbose=0)[0])


@pytest.mark.slow
def test_a_position_is_told_in_each_hook_and_on_the_way_out() -> None:
    x, y = data(21)

    class Tells(et.Callback):
        def __init__(self, fails: int = 99) -> None:
            self.seen: list[int] = []
            self.fails = fails

        def on_train_batch_end(self, run: et.Run) -> None:
            assert run.position is not None
            self.seen.append(run.position["batches"])
            if run.step == self.fails:
                raise OSError

    batches = [(x[i : i + 4], y[i : i + 4]) for i in range(0, 21, 4)]
    told = Tells()
    learner().fit(batches, steps_per_epoch=3, callbacks=told, verbose=0, steps=7)
    assert told.seen == [1, 2, 3, 4, 5, 6, 1]
    with pytest.raises(OSError) as raised:
        learner().fit(lambda: iter(batches), callbacks=Tells(3), verbose=0)
    assert vars(raised.value)["history"].position["batches"] == 3
    for wrong in ({"examples": 3}, {"batches": 3}):
        with pytest.raises(ValueError, match=r"`position` must be what `run\.position` or"):
            learner().fit(x, y, position=wrong, verbose=0)


@pytest.mark.slow
def test_a_stream_is_trained_on_piece_by_piece_and_nothing_is_lost() -> None:
    x = np.arange(40, dtype=np.float32)
    made = Tracks({"w": jnp.zeros(())}, optax.sgd(0.0))

    class Stops(et.Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_end(self, run: et.Run) -> None:
            if run.step == self.step:
                run.stop("enough")

    hows: list[Any] = [{"steps": 3}, {"callbacks": Stops(3)}, {"steps_per_epoch": 3, "epochs": 1}]
    for how, builtin in itertools.product(hows, (True, False)):
        stream = (x[i : i + 2] for i in range(0, 40, 2))
        stream = iter(list(stream)) if builtin else stream
        fitted, first = made.fit(stream, verbose=0, remainder="pad", **how)
        _, rest = fitted.fit(stream, verbose=0)
        seen = [*first["seen"][0], *rest["seen"][0]]
        assert len(first["seen"][0]) == 6 and seen == list(x)
    stream = (x[i : i + 2] for i in range(0, 40, 2))
    fitted, first = made.fit(stream, verbose=0, steps=3)
    _, rest = fitted.fit(stream, verbose=0, steps=2, position=first.position)
    assert list(rest["seen"][0]) == list(x[6:10])  # it stands there already
    assert rest.position is not None and rest.position["batches"] == 5
    with pytest.raises(
        ValueError, match="after batch 3, but 5 batches were already taken from this iterator"
    ):
        fitted.fit(stream, verbose=0, position=first.position)
    stream = iter([x[i : i + 2] for i in range(0, 40, 2)])
    made.fit(stream, steps=3, verbose=0)
    assert next(stream)[0] == 6  # never asked for more than it may need
    stream = (x[i : i + 2] for i in range(0, 40, 2))
    nothings: list[Any] = [{"steps": 0}, {"epochs": 0}]
    for nothing in nothings:
        _, history = made.fit(stream, verbose=0, **nothing)
        assert history.epochs == 0
    assert list(made.fit(stream, verbose=0)[1]["seen"][0]) == list(x)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"])
@pytest.mark.parametrize("reads", ["state", "logs"])
def test_hooks_pair_up_wherever_a_run_is_stopped(hook: str, reads: Any) -> None:
    x, y = data(21)
    told: list[str] = []

    class Stops(et.Callback):
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("on_"):
                return object.__getattribute__(self, name)

            def tell(run: et.Run) -> None:
                told.append(name)
                if name == hook and run.epoch == 1:
                    run.stop("now")

            return tell

    for name in ("on_epoch_end", "on_train_begin", "on_train_end", "on_test_begin", "on_test_end"):
        setattr(Stops, name, lambda self, run: None)
    for name in ("on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"):
        setattr(Stops, name, lambda self, run: None)
    Stops.reads = reads
    fitted, history = learner().fit(
        x, y, epochs=4, batch_size=4, callbacks=Stops(), verbose=0, validation_data=(x, y)
    )
    for what in ("train", "epoch", "test", "train_batch"):
        assert told.count(f"on_{what}_begin") == told.count(f"on_{what}_end") > 0
    assert history.stopped == "now" and fitted.state is not None
    steps = int(fitted.state.step)
    if hook == "on_epoch_begin":
        assert steps == 6 and history.epochs == 1
    else:
        assert steps == (7 if reads == "state" else 11)  # the end of its call, of five
        assert history.epochs == 2
        assert np.isfinite(history["val_loss"]).all()


def test_data_that_run_out_end_the_epoch_with_a_warning() -> None:
    x, y = data(20)

    class Told:
        def __init__(self, n: int) -> None:
            self.n = n

        def __len__(self) -> int:
            return self.n

        def __iter__(self) -> Any:
            return ((x[i : i + 4], y[i : i + 4]) for i in range(0, 20, 4))

    with pytest.warns(UserWarning, match="ran out after 5 of the 9 steps of epoch 1"):
        fitted, _ = learner().fit(Told(9), verbose=0)
    assert fitted.state is not None and int(fitted.state.step) == 5
    with pytest.warns(UserWarning, match="ran out after 2 of the 3 steps of epoch 2"):
        fitted, history = learner().fit(x, y, batch_size=4, steps_per_epoch=3, epochs=3, verbose=0)
    assert fitted.state is not None and int(fitted.state.step) == 8 and history.epochs == 3


@pytest.mark.slow
def test_what_is_known_of_a_run_is_in_its_params() -> None:
    x, y = data(20)
    seen: list[Any] = []

    class Looks(et.Callback):
        def on_train_begin(self, run: et.Run) -> None:
            seen.append([run.params[name] for name in ("epochs", "steps", "batch_size")])

    fit = lambda *given, **options: learner().fit(*given, callbacks=Looks(), verbose=0, **options)
    fit(x, y, batch_size=4, epochs=2)
    fit(x, y, batch_size=4, steps=7)
    fit(lambda: iter([(x, y)]), steps=2)
    fit(lambda: iter([(x, y)]))
    assert seen == [[2, 5, 4], [2, 5, 4], [None, 2, None], [1, None, None]]


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict"])
def test_data_are_let_go_of_when_a_run_is_over(run: str) -> None:
    x, y = data(20)

    class Loader:
        def __init__(self, labels: bool) -> None:
            self.labels = labels

        def __iter__(self) -> Any:
            pairs = ((x[i : i + 4], y[i : i + 4]) for i in range(0, 20, 4))
            return pairs if self.labels else (a for a, _ in pairs)

    def fail(self: Any, run: et.Run) -> None:
        raise OSError

    hook = {"fit": "train", "evaluate": "test", "predict": "predict"}[run]
    loader = Loader(labels=run != "predict")
    gone = weakref.ref(loader)
    options: dict[str, Any] = {"validation_data": Loader(True), "epochs": 2} if run == "fit" else {}
    gc.collect()
    gc.disable()  # a loader's workers end with it, and it must not end in the midst of a collection
    try:
        getattr(learner(), run)(loader, callbacks=et.Callback(), **options)
        del loader
        assert gone() is None
        loader = Loader(labels=run != "predict")
        gone = weakref.ref(loader)
        failing = type("Fails", (et.Callback,), {f"on_{hook}_batch_end": fail})()
        with contextlib.suppress(OSError):
            getattr(learner(), run)(loader, callbacks=failing, **options)
        del loader
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_learner_put_in_place_in_validation_is_gone_on_from() -> None:
    x, y = data(20)

    class Replaces(et.Callback):
        reads = "logs"
        done = False

        def on_test_end(self, run: et.Run) -> None:
            if not self.done:
                self.done = True
                run.replace(run.learner.replace(optimizer=optax.sgd(0.0)))

    fitted, _ = learner(optimizer=optax.sgd(0.1)).fit(
        x, y, batch_size=4, steps=8, validation_data=(x, y),
        validation_freq=et.Every(steps=2), callbacks=Replaces(), verbose=0,
    )  # fmt: skip
    two, _ = learner(optimizer=optax.sgd(0.1)).fit(x, y, batch_size=4, steps=2, verbose=0)
    assert fitted.state is not None and int(fitted.state.step) == 8
    assert same(fitted.model, two.model)


@pytest.mark.slow
def test_the_order_is_a_function_of_the_key_as_a_step_left_it() -> None:
    class Splits(et.Learner[Any]):
        def train_step(self, model: Any, state: Any, x: Array, **rest: Any) -> Any:
            logs, model, state = super().train_step(model=model, state=state, x=x, **rest)
            key = jr.key_data(jr.split(jr.wrap_key_data(state.key))[0])
            return logs | {"seen": et.metrics.Gather.of(x[:, 0])}, model, state.update(key=key)

    x, y = data(12)
    made = Splits(linear(), optax.sgd(0.0), loss=CROSS_ENTROPY).init()
    _, history = made.fit(x, y, epochs=2, batch_size=4, verbose=0)
    first, one = made.fit(x, y, batch_size=4, verbose=0)
    _, two = first.fit(x, y, batch_size=4, verbose=0)
    assert np.array_equal(history["seen"], [*one["seen"], *two["seen"]])


def test_an_error_that_was_met_ahead_comes_when_its_turn_does() -> None:
    x, y = data(8)

    class Stops(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            time.sleep(0.05)  # until all is read
            run.stop("enough")

    def breaks() -> Any:
        for _ in range(4):
            yield x, y
        raise OSError("the disk is gone")

    stream = breaks()
    fitted, _ = learner().fit(stream, verbose=0, callbacks=Stops())
    with pytest.raises(OSError, match="the disk is gone") as raised:
        fitted.fit(stream, verbose=0)
    assert int(vars(raised.value)["learner"].state.step) == 4


def test_a_stream_in_several_pieces_loses_nothing() -> None:
    x = np.arange(40, dtype=np.float32)
    fitted = Tracks({"w": jnp.zeros(())}, optax.sgd(0.0))
    stream, seen = (x[i : i + 1] for i in range(40)), []

    class Stops(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            time.sleep(0.01)
            if run.step % 3 == 0:
                run.stop("enough")

    hows: list[Any] = [{"callbacks": Stops()}, {"steps": 2}, {"steps": 1}, {"callbacks": Stops()}]
    for how in [*hows, {}]:
        fitted, history = fitted.fit(stream, verbose=0, **how)
        seen += [n for epoch in history["seen"] for n in epoch]
    assert seen == list(x)


def test_a_thread_that_was_left_behind_gives_its_batch_to_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eqxtrain._data.prefetch._MAX_CLOSE_WAIT", 0.05)
    x = np.arange(12, dtype=np.float32)

    failed = threading.Event()

    def slow() -> Any:
        for i in range(0, 12, 2):
            if i == 2:
                failed.wait(60)
            yield x[i : i + 2]

    class Fails(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            raise OSError

    made, stream = Tracks({"w": jnp.zeros(())}, optax.sgd(0.0)), slow()
    with pytest.warns(UserWarning, match="left behind"), pytest.raises(OSError):
        made.fit(stream, callbacks=Fails(), verbose=0)
    failed.set()
    _, history = made.fit(stream, verbose=0)
    assert list(history["seen"][0]) == list(x[2:])


def test_an_iterator_of_grain_is_the_users_own() -> None:
    grain = library("grain")
    x = np.arange(40, dtype=np.float32)
    for make in (
        lambda: iter(grain.MapDataset.source(x).batch(2)),
        lambda: iter(grain.MapDataset.source(x).to_iter_dataset().batch(2)),
    ):
        made, stream, seen = Tracks({"w": jnp.zeros(())}, optax.sgd(0.0)), make(), []
        at = None
        for steps in (3, 2, 4):
            made, history = made.fit(stream, steps=steps, position=at, verbose=0)
            seen += list(history["seen"][0])
            at = history.position if steps == 2 else None
        assert seen == list(x[:18])


def test_batches_have_the_precision_of_who_trains() -> None:
    with jax.enable_x64(True):
        made = Tracks({"w": jnp.zeros((), jnp.float64)}, optax.sgd(0.1))
        _, history = made.fit(iter([np.arange(3.0)]), verbose=0)
        assert history["seen"][0].dtype == np.float64


class Own:
    """An iterator as people write one."""

    def __init__(self, items: Any) -> None:
        self.items, self.closed = iter(items), False

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.items)

    def close(self) -> None:
        self.closed = True


class Ends(et.Callback):
    """Ends a run after so many of its steps, one way or another."""

    def __init__(self, way: str, after: int) -> None:
        self.way, self.left = way, after

    def on_train_batch_end(self, run: et.Run) -> None:
        self.left -= 1
        if self.left == 0 and self.way == "stop":
            run.stop("enough")
        if self.left == 0 and self.way == "raise":
            raise OSError


STREAMS: dict[str, Any] = {
    "generator": lambda items: (item for item in items),
    "list": iter,
    "map": lambda items: map(np.asarray, items),
    "own": Own,
}


class Reports(Tracks):
    """Logs the first row of each batch."""

    def test_step(self, model: Any, state: Any, x: Array, mask: Any = None) -> Any:
        loss, _, state = super().test_step(model=model, state=state, x=x, mask=mask)
        return loss, {"first": et.metrics.Last.of(x[0])}, state


@functools.cache
def reports() -> et.Learner[Any]:
    """One learner for all examples of a test, so that they share its programs."""
    return Reports({"w": jnp.zeros(())}, optax.sgd(0.0))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(STREAMS)),
    pieces=st.lists(
        st.tuples(st.sampled_from(["steps", "stop", "raise"]), st.integers(1, 9), st.booleans()),
        max_size=5,
    ),
)
def test_no_batch_of_a_stream_is_lost_repeated_or_moved(kind: str, pieces: Any) -> None:
    x = np.arange(80, dtype=np.float32)
    stream = STREAMS[kind]([x[i : i + 2] for i in range(0, 80, 2)])
    seen: list[float] = []

    class Sees(et.Callback):
        def on_train_batch_end(self, run: et.Run) -> None:
            seen.append(run.logs["first"])

    made: Any = reports().init()
    position: Any = None
    for way, count, told in pieces:
        options: dict[str, Any] = {"steps": count} if way == "steps" else {}
        callbacks = [Sees(), Ends(way, count)]
        try:
            made, history = made.fit(
                stream, callbacks=callbacks, position=position, verbose=0, **options
            )
        except OSError as error:
            made, history = vars(error)["learner"], vars(error)["history"]
        except ValueError as error:
            assert "yielded no batch" in str(error) or "second pass" in str(error)
            break
        position = history.position if told else None
    with contextlib.suppress(ValueError):  # where all was seen
        made.fit(stream, callbacks=Sees(), verbose=0)
    assert seen == list(x[::2])


def test_the_history_knows_which_values_are_best_from_its_first_epoch_on() -> None:
    x, y = data(8)
    seen: list[dict[str, Any]] = []
    look = et.callbacks.Lambda(on_epoch_end=lambda run: seen.append(run.history.directions))
    _, history = learner().fit(x, y, validation_data=(x, y), verbose=0, callbacks=look)
    known = {"accuracy": "max", "val_accuracy": "max"}
    assert {n: d for n, d in seen[0].items() if d} == known and history.directions == seen[0]
