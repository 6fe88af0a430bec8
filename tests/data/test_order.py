"""The order of a pass is a function of the key and the step, and of nothing else."""

import subprocess
import sys

import numpy as np
import pytest

from eqxtrain import _data as data

KEY = (1, 2)


def test_it_is_a_permutation_that_depends_on_key_and_step() -> None:
    first = data.Order(KEY, 0).permutation(50)
    assert sorted(first) == list(range(50))
    assert np.array_equal(first, data.Order(KEY, 0).permutation(50))
    assert not np.array_equal(first, data.Order(KEY, 1).permutation(50))
    assert not np.array_equal(first, data.Order(KEY[::-1], 0).permutation(50))


@pytest.mark.slow
def test_another_process_sees_the_same_order() -> None:
    code = (
        "import numpy as np; from eqxtrain import _data as data;"
        "print(list(map(int, data.Order((1, 2), 7).permutation(20))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(list(map(int, data.Order(KEY, 7).permutation(20))))
