"""Batches of one shape, stacked."""

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from eqxtrain import _data as data
from eqxtrain._data.stack import aligned_empty, stack_batches


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, np.complex64, bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (7,), (2, 0, 3)])
def test_what_the_device_takes_as_it_is_begins_at_its_boundary(dtype: Any, shape: Any) -> None:
    array = aligned_empty(shape, dtype)
    assert array.shape == shape and array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.size == 0


def test_a_stack_holds_its_batches_first() -> None:
    batches = [(np.full((2, 3), i, np.float32), {"y": np.full(2, i)}) for i in range(3)]
    stack = stack_batches(batches, 4)
    assert stack.num_batches == 3
    x, y = stack.batches
    assert x.shape == (4, 2, 3) and y["y"].shape == (4, 2)
    assert [x[i, 0, 0] for i in range(3)] == [0, 1, 2] == [y["y"][i, 0] for i in range(3)]


def test_a_batch_alone_is_a_stack_of_one() -> None:
    stack = data.stack_of_one((np.ones((5, 2)), np.ones(5)))
    assert stack.num_batches == 1
    assert [leaf.shape for leaf in stack.batches] == [(1, 5, 2), (1, 5)]
    assert stack_batches([(np.ones((5, 2)),)], 1).batches[0].shape == (1, 5, 2)
