"""What people give as an array, of every library, and what is refused."""

import collections
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from helpers import data as arrays, learner, library, same

from eqxtrain import _data as data
from eqxtrain._data import coerce as _columns

X, Y = arrays(10)


def column(leaf: Any) -> Any:
    return data.array_source(leaf).tree[0]


@pytest.mark.slow
def test_tensors_of_torch_whatever_they_are_of() -> None:
    torch = pytest.importorskip("torch")
    assert np.array_equal(column(torch.tensor(X, requires_grad=True)), X)
    assert column(torch.arange(3)).dtype == np.int32
    half = column(torch.tensor(X).bfloat16())
    assert half.dtype == jnp.bfloat16
    assert np.array_equal(half, X.astype(jnp.bfloat16))


def test_frames_and_series_of_pandas() -> None:
    pd = library("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert np.array_equal(column(frame), X) and np.array_equal(column(frame["b"]), X[:, 1])
    mixed = pd.DataFrame({"a": [1.5, 2.0], "b": [True, False], "c": [3, 4]})
    assert np.array_equal(column(mixed), [[1.5, 1, 3], [2, 0, 4]])
    nullable = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([2, 3], "Int64")})
    assert np.array_equal(column(nullable), [[1, 2], [np.nan, 3]], equal_nan=True)
    assert column(nullable["b"]).dtype == np.int32
    assert np.array_equal(column(nullable["a"]), [1, np.nan], equal_nan=True)
    texts = pd.DataFrame({"a": [1.0, 2.0], "name": ["u", "v"]})
    with pytest.raises(TypeError, match=r"`x\['name'\]` has dtype str.*get_dummies"):
        column(texts)
    with pytest.raises(TypeError, match=r"`x` has dtype category"):
        column(pd.Series(["u", "v"], dtype="category"))
    assert data.array_source(frame, frame["a"]).length == 10


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.coo_matrix, sp.csr_array, sp.csc_array])
def test_sparse_matrices_of_scipy_are_made_dense_by_the_batch(kind: Any) -> None:
    thin = np.where(X > 1, X, 0).astype(np.float64)
    source = data.array_source(kind(thin), Y)
    assert _columns.is_sparse(source.tree[0]) and source.tree[0].dtype == np.float32
    assert np.array_equal(source.take(np.array([3, 1]))[0], thin[[3, 1]].astype(np.float32))


GIVEN: dict[str, Callable[[], tuple[Any, Any]]] = {
    "torch": lambda: tuple(map(pytest.importorskip("torch").tensor, (X, Y))),
    "pandas": lambda: (library("pandas").DataFrame(X), library("pandas").Series(Y)),
    "scipy": lambda: (sp.csr_array(X), Y),
    "jax": lambda: (jnp.asarray(X), jnp.asarray(Y)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GIVEN)
def test_training_on_any_of_them_is_training_on_the_array(kind: str) -> None:
    made, pair = learner().init(), GIVEN[kind]()
    options: dict[str, Any] = {"batch_size": 4, "verbose": 0, "validation_split": 0.2}
    expected, history = made.fit(X, Y, **options)
    fitted, seen = made.fit(*pair, **options)
    assert same(fitted, expected) and dict(seen) == dict(history)
    assert made.evaluate(*pair, batch_size=4) == made.evaluate(X, Y, batch_size=4)
    assert np.array_equal(made.predict(pair[0]), made.predict(X))
    assert made.test_on_batch(*pair) == made.test_on_batch(X, Y)


def test_a_column_of_a_huggingface_dataset() -> None:
    datasets = library("datasets")
    dataset = datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()})
    source = data.as_source(dataset["x"], dataset["y"])
    assert isinstance(source, data.ArraySource)
    assert np.array_equal(source.tree[0], X) and source.tree[1].dtype == np.int32


def test_a_mapping_that_jax_does_not_know_is_one_of_arrays() -> None:
    given = collections.UserDict(x=X, y_true=Y)  # what tokenizers give
    assert learner().evaluate(given, batch_size=4) == learner().evaluate(X, Y, batch_size=4)
    assert learner().evaluate([given]) == learner().evaluate(X, Y)


def test_arrays_that_no_device_takes_as_they_are() -> None:
    assert column(X.astype(">f4")).dtype.byteorder == "=" and column(X.astype(">f8")).dtype == "f4"
    with pytest.raises(TypeError, match="`x` is a masked array, whose mask would be lost"):
        column(np.ma.masked_array(X, X > 0))
    with pytest.raises(TypeError, match=r"dtype \[\('a', '<f4'\)\], which no device computes"):
        column(np.zeros(3, [("a", np.float32)]))


def test_an_array_that_was_deleted_is_named_by_its_path() -> None:
    x, y = arrays(6)
    gone = jnp.asarray(x)
    gone.delete()
    made, remedy = learner(), " was deleted, or its buffer was donated .* make it again"
    with pytest.raises(ValueError, match=r"`x\[1\]`" + remedy):
        made.fit((x, gone), y, verbose=0)
    with pytest.raises(ValueError, match="`y`" + remedy):
        made.evaluate(x, gone)
    with pytest.raises(ValueError, match=r"In `validation_data\['a'\]`: `x`" + remedy):
        made.fit(x, y, validation_data={"a": (gone, y)}, verbose=0)
    with pytest.raises(ValueError, match=r"`batch\[0\]`" + remedy):
        made.fit([(gone, y)], verbose=0)
