"""What people give as data, told apart."""

import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from helpers import library
from jaxtyping import Array

from eqxtrain import _data as data

ONES = np.ones((3, 2), np.float32)


class Held(eqx.Module):
    """A module as data: a container of arrays, though it can be called."""

    a: Array

    def __call__(self) -> Array:
        return self.a


class Makes:
    """An object that is called for each pass."""

    def __call__(self) -> Iterator[Any]:
        yield (ONES,)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (ONES, data.ArraySource),
        ([ONES, ONES], data.ArraySource),
        ((ONES, {"a": ONES}), data.ArraySource),
        ({"a": ONES}, data.ArraySource),
        (sp.csr_array(ONES), data.ArraySource),
        (Held(jnp.ones(3)), data.ArraySource),
        ([(ONES,), (ONES,)], data.IterableSource),
        ([{"a": ONES}], data.IterableSource),
        (iter([ONES]), data.IterableSource),
        (map(np.asarray, [ONES]), data.IterableSource),
        (lambda: iter([ONES]), data.IterableSource),
        (functools.partial(iter, [ONES]), data.IterableSource),
        (Makes(), data.IterableSource),
        ({1: ONES}.values(), data.IterableSource),
    ],
)
def test_each_kind_of_data_is_known(given: Any, kind: type) -> None:
    assert isinstance(data.as_source(given), kind)


def test_loaders_of_grain_give_batches() -> None:
    batches = library("grain").MapDataset.source([(row, 1) for row in ONES]).batch(2)
    for given in (batches, batches.to_iter_dataset()):
        assert isinstance(data.as_source(given), data.IterableSource)


def test_a_loader_of_torch_gives_batches() -> None:
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3)))
    assert isinstance(data.as_source(loader), data.IterableSource)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (Makes, "`x` is the class `Makes`: pass an instance"),
        (lambda: None, r"returned a `NoneType`: it is called at the start of each pass"),
        (lambda n: n, r"takes arguments, \(n\), but is called without any"),
        (3, "a Python `int`"),
        (object(), "is a `object`, which is not an array"),
    ],
)
def test_what_is_none_of_them_gets_a_sentence(given: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        data.as_source(given).open_reader(data.Batching(2)).peek()


@pytest.mark.parametrize("given", [[(ONES[0], 1)], iter([(ONES[0], np.float32(1))])])
def test_examples_where_batches_are_due_get_the_remedy(given: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=r"single examples, batch them: `\.batch\(32\)"
    ):
        data.as_source(given).open_reader(data.Batching(2)).peek()


def test_lengths_that_others_tell() -> None:
    grain = library("grain")
    cut, mapped = data.Batching(2), grain.MapDataset.source([ONES]).batch(1)
    assert data.as_source([(ONES,), (ONES,)]).num_batches(cut) == 2
    assert data.as_source(mapped).num_batches(cut) == 1
    assert data.as_source(mapped.repeat()).num_batches(cut) == float("inf")
    assert data.as_source(mapped.to_iter_dataset()).num_batches(cut) is None

    class Cardinal:
        """As `tf.data.Dataset` tells: -1 for no end, -2 where it is not known."""

        def __init__(self, n: int) -> None:
            self.n = n

        def cardinality(self) -> np.ndarray:
            return np.asarray(self.n, np.int64)

        def __len__(self) -> int:
            if self.n < 0:
                raise TypeError("The dataset length is unknown.")
            return self.n

        def __iter__(self) -> Iterator[Any]:
            return iter([(ONES, ONES)])

    assert [data.as_source(Cardinal(n)).num_batches(cut) for n in (5, -1, -2)] == [
        5,
        float("inf"),
        None,
    ]
