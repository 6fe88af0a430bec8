"""A forecast is what the program then costs."""

import io
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import CROSS_ENTROPY, arrays, data, forget_programs, learner, normed

import eqxtrain as et


def wide(width: int = 64, **fields: Any) -> et.Learner[Any]:
    return learner(eqx.nn.MLP(4, 3, width, 2, key=jr.key(0)), **fields)


@pytest.mark.slow
def test_fit_takes_the_program_of_a_forecast() -> None:
    forget_programs()
    x, y = data(64)
    made = wide()
    with et.max_compiles(1):
        made.forecast(x, y, batch_size=8)
    with et.max_compiles(0):
        made.forecast(x, y, batch_size=8)
        made.fit(x, y, batch_size=8, verbose=0)


@pytest.mark.slow
def test_its_numbers_are_those_of_the_model() -> None:
    x, y = data(64)
    made = wide().init()
    found = made.forecast(x, y, batch_size=8)
    weights = (4 * 64 + 64 * 64 + 64 * 3) + (64 + 64 + 3)
    assert (found.batch_size, found.parameters) == (8, weights)
    assert found.parameter_bytes == 4 * weights
    assert found.optimizer_bytes == 8 * weights + 4
    products = 2 * 8 * (2 * (4 * 64) + 3 * (64 * 64) + 3 * (64 * 3))
    assert products < found.flops < 1.6 * products
    assert found.compile_seconds > 0 and found.bytes_moved > found.parameter_bytes
    carried = found.parameter_bytes + found.optimizer_bytes
    assert carried < found.arguments < carried + 2 * found.stack + 10_000
    assert found.peak == found.arguments + found.outputs + found.temporaries
    assert found.stack == 256 * 8 * (4 * 4 + 4) and found.example == 20
    given = made.forecast(x, y, batch_size=8, donate=True)
    assert found.beside - given.beside == found.parameter_bytes + found.optimizer_bytes + 12


def test_the_steps_of_a_call_do_not_count_as_operations_of_a_step() -> None:
    x, y = data(64)
    flops = {wide().forecast(x, y, batch_size=8, steps_per_call=k).flops for k in (1, 2, "auto")}
    assert len(flops) == 1
    moved = [wide().forecast(x, y, batch_size=8, steps_per_call=k).bytes_moved for k in (2, 8)]
    assert moved[1] < 1.5 * moved[0]


@pytest.mark.slow
@pytest.mark.parametrize("make", [wide, normed])
def test_the_size_of_a_checkpoint_is_that_of_the_file_but_for_its_headers(make: Any) -> None:
    made = make().init()
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, made)
    headers = len(file.getvalue()) - made.forecast(*data(16)).checkpoint_bytes
    assert 128 * len(arrays(made)) <= headers <= 136 * len(jax.tree.leaves(made))


def test_shapes_do_for_data() -> None:
    x, y = data(64)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, y)]
    made = wide()
    from_shapes = made.forecast(*shapes, batch_size=8)
    with et.max_compiles(0):
        from_arrays = made.forecast(x, y, batch_size=8)
    assert from_shapes == from_arrays


@pytest.mark.slow
def test_the_largest_batch_fits_and_a_larger_one_does_not() -> None:
    shapes = [
        jax.ShapeDtypeStruct((100_000, 4), np.float32),
        jax.ShapeDtypeStruct((100_000,), np.int32),
    ]
    made = wide(256)
    memory = 60 * 2**20
    found = made.forecast(*shapes, batch_size=(256, 2048), memory=memory)
    assert found.second is not None and found.second.batch_size == 2048
    assert found.largest_batch is not None and found.largest_batch > 2048
    there = made.forecast(*shapes, batch_size=found.largest_batch)
    assert 0.6 * memory < there.peak + there.beside <= 1.05 * memory
    assert "The largest batch that fits 60.0 MiB" in str(found)
    assert made.forecast(*shapes, batch_size=(256, 2048), memory=10).largest_batch == 0
    with pytest.raises(ValueError, match="`memory` must be a whole number"):
        made.forecast(*shapes, batch_size=(256, 2048), memory=-5)


def test_it_is_shown_as_a_table() -> None:
    x, y = data(64)
    found = wide().forecast(x, y, batch_size=8)
    text, page = str(found), found._repr_html_()
    for part in ("FLOPs per step", "Peak memory", "temporaries", "Optimizer state", "Checkpoint"):
        assert part in text and part in page
    assert repr(found) == text and f"{found.parameters:,}" in text


@pytest.mark.slow
def test_what_cannot_be_forecast_gets_a_sentence() -> None:
    class Plain(et.Learner[Any]):
        def jit_step(self, fn: Any) -> Any:
            return fn

    x, y = data(16)
    plain = Plain(wide().model, optax.sgd(0.1), loss=CROSS_ENTROPY)
    with pytest.raises(ValueError, match=r"`Plain\.jit_step` compiles nothing ahead of time"):
        plain.forecast(x, y)
    with pytest.raises(ValueError, match="two different sizes"):
        wide().forecast(x, y, batch_size=(32, 64))
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        wide().forecast(x, y, batch_size=0)
    with pytest.raises(TypeError, match="no optimizer"):
        et.Learner(wide().model, None, loss=CROSS_ENTROPY).forecast(x, y)
