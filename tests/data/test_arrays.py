"""Arrays in memory as a source of batches, and the sentences for what is none."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.sparse import csr_matrix

from eqxtrain import _data as data


def batches_of(
    source: data.Source, cut: data.Batching, order: Any = None, capacity: int = 3
) -> Any:
    """The batches of one pass, with how many of their rows are real."""
    with source.open_reader(cut) as reader:
        for stack in reader.stacks(lambda batch: capacity, None, order):
            for i in range(stack.num_batches):
                yield jax.tree.map(lambda leaf, i=i: np.array(leaf[i]), stack.batches)
            reader.consume(stack.num_batches)


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 9) | st.none(),
    remainder=st.sampled_from(["keep", "pad", "drop"]),
    sparse=st.booleans(),
)
def test_every_example_comes_once_in_order(
    length: int, batch_size: int, seed: int | None, remainder: Any, sparse: bool
) -> None:
    y = np.arange(length)[:, None] * 2
    source = data.array_source(np.arange(length), {"y": csr_matrix(y) if sparse else y})
    order = None if seed is None else data.Order((seed, 0), 3)
    expected = np.arange(length) if order is None else order.permutation(length)
    cut = data.Batching(batch_size, remainder)
    if remainder == "drop" and length < batch_size:
        with pytest.raises(ValueError, match=f"no batch: there are {length} examples, fewer than"):
            source.num_batches(cut)
        return
    batches = list(batches_of(source, cut, order))
    assert len(batches) == source.num_batches(cut)
    if remainder == "pad":
        assert all(data.num_rows(batch) == min(batch_size, length) for batch in batches)
        masks = [batch.mask for batch in batches]
        assert np.concatenate(masks).sum() == length and all(mask.all() for mask in masks[:-1])
        batches = [jax.tree.map(lambda leaf, b=b: leaf[b.mask], b.batch) for b in batches]
    else:
        assert all(data.num_rows(batch) == batch_size for batch in batches[:-1])
    kept = length if remainder != "drop" else length // batch_size * batch_size
    assert np.array_equal(np.concatenate([x for x, _ in batches]), expected[:kept])
    assert all(np.array_equal(2 * x[:, None], y["y"]) for x, y in batches)


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    cuts=st.lists(st.integers(1, 5), max_size=8),
    remainder=st.sampled_from(["keep", "pad"]),
)
def test_a_pass_goes_on_where_it_stopped_also_in_another_reader(
    length: int, batch_size: int, cuts: list[int], remainder: Any
) -> None:
    source = data.array_source(np.arange(length))
    cut, order = data.Batching(batch_size, remainder), data.Order((1, 2), 3)
    whole = [np.asarray(data.strip_mask(batch)[0]) for batch in batches_of(source, cut, order)]
    seen: list[np.ndarray] = []
    position: Any = None
    for most in cuts:
        with source.open_reader(cut) as reader:
            if position is not None:
                reader.seek(position)
            left = reader.remaining
            before = len(seen)
            for stack in reader.stacks(lambda batch: 2, most, order):
                x = data.strip_mask(stack.batches)[0]
                seen += [np.array(x[i]) for i in range(stack.num_batches)]
                reader.consume(stack.num_batches)
            assert len(seen) - before == min(most, left or 0)
            position = reader.position
    for i, batch in enumerate(seen):
        assert np.array_equal(batch, whole[i % len(whole)])


def test_a_position_where_no_batch_begins_is_refused() -> None:
    reader = data.array_source(np.arange(20)).open_reader(data.Batching(6))
    at = lambda examples, of=20, order=None: {"examples": examples, "of": of, "order": order}
    for position in (at(8), at(24), at(6, of=21)):
        with pytest.raises(ValueError, match="where no batch begins: there are 20 examples, and"):
            reader.seek(position)
    for position in ({"batches": 3, "state": None}, at(-6), at(True)):
        with pytest.raises(ValueError, match=r"dict of examples, of, order; got \{"):
            reader.seek(position)
    for order in ("abc", [1], [1, 2, -3]):
        with pytest.raises(
            ValueError, match="The `order` of a `position` must be a list of numbers"
        ):
            reader.seek(at(6, order=order))


class HasArray:
    """Like a torch tensor or a data frame: no array, but gives one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.arange(3, dtype=np.float64)


def test_anything_that_gives_an_array_is_one_and_doubles_become_floats() -> None:
    source = data.array_source((np.ones(3), jnp.ones(3), HasArray()), np.arange(3))
    x, y = source.tree
    assert [leaf.dtype for leaf in x] == [np.float32] * 3 and y.dtype == np.int32
    assert data.array_source(np.ones(3, np.uint8)).tree[0].dtype == np.uint8
    assert data.array_source(jnp.ones(3, jnp.bfloat16)).tree[0].dtype == jnp.bfloat16


@pytest.mark.slow
def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    assert data.array_source(torch.ones(3, 2)).tree[0].shape == (3, 2)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((np.ones(5), np.ones(4)), ValueError, r"`x` has 5, `y` has 4"),
        (({"a": np.ones(5), "b": np.ones(3)},), ValueError, r"`x\['a'\]` has 5, `x\['b'\]` has 3"),
        ((np.ones((0, 3)), np.ones(0)), ValueError, r"`x` has 0 examples"),
        (((),), ValueError, r"`x` holds no arrays"),
        ((None,), TypeError, r"`x` is None"),
        ((np.ones(2), None, np.ones(3)), ValueError, r"`sample_weight` has 3"),
        ((np.array(["a", "b"]),), TypeError, r"np.unique"),
        ((np.array([{}, {}]),), TypeError, r"`x` has dtype object"),
        ((np.array(["2020-01-01"], "datetime64[D]"),), TypeError, r"datetime64"),
        (([1.0, 2.0],), TypeError, r"`x\[0\]` is 1.0, a Python `float`"),
        (("text",), TypeError, r"a Python `str`"),
        ((np.float32(3),), ValueError, r"`x` is a scalar"),
        ((jr.split(jr.key(0), 3),), TypeError, r"`x` holds random keys.*key_data"),
        (({"a": iter([1])},), TypeError, r"`x\['a'\]` is a `list_iterator`, which is not an array"),
    ],
)
def test_what_is_no_data_gets_a_sentence(
    given: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        data.array_source(*given)


def test_the_split_keeps_order_and_refuses_an_empty_side() -> None:
    source = data.array_source(np.arange(10))
    first, last = source.split(0.25)
    assert list(first.tree[0]) == list(range(7)) and list(last.tree[0]) == [7, 8, 9]
    with pytest.raises(ValueError, match="leaves one side empty"):
        data.array_source(np.arange(3)).split(0.99)
    with pytest.raises(ValueError, match="a fraction between 0 and 1"):
        source.split(1.5)


def test_named_sets_and_plain_ones_have_their_prefixes() -> None:
    x = np.ones((3, 2))
    assert list(data.named_sets((x, x))) == ["val_"]
    assert list(data.named_sets(x)) == ["val_"]
    assert list(data.named_sets({"a": (x,), "b": (x, x)})) == ["val_a_", "val_b_"]
    wrapped = data.named_sets(({"image": x},))["val_"]
    assert isinstance(wrapped, data.ArraySource) and set(wrapped.tree) == {"image"}


def test_errors_in_validation_data_say_where() -> None:
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"In `validation_data`: .*`y` has 2"):
        data.named_sets((x, np.ones(2)))
    with pytest.raises(ValueError, match="empty dict"):
        data.named_sets({})
    with pytest.raises(ValueError, match="got 4 parts"):
        data.named_sets((x, x, x, x))
    with pytest.raises(TypeError, match=r"In `validation_data\['image'\]`.*wrap it"):
        data.named_sets({"image": "path"})
