"""Datasets of examples: cut, shuffled, split and positioned like arrays."""

from typing import Any

import numpy as np
import pytest
from helpers import CROSS_ENTROPY, data as arrays, learner, library, linear, same

import eqxtrain as et
from eqxtrain import _data as data

X, Y = arrays(21)


class Examples:
    """A dataset as anyone writes it."""

    def __init__(self, n: int = 21) -> None:
        self.n = n
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return X[i], int(Y[i])


class Bulk(Examples):
    """One that is asked for many examples at once, as torch's may be."""

    def __getitems__(self, indices: list[int]) -> Any:
        return [Examples.__getitem__(self, i) for i in indices]

    def __getitem__(self, i: int) -> Any:
        assert i == 0, "asked one by one"
        return super().__getitem__(i)


def of_torch() -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))


def of_huggingface() -> Any:
    datasets = library("datasets")
    return datasets.Dataset.from_dict({"x": X.tolist(), "y_true": Y.tolist()})


MAKES = [Examples, Bulk, of_torch, of_huggingface]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "remainder"),
    [(make, "keep") for make in MAKES] + [(Examples, "pad"), (of_huggingface, "drop")],
)
def test_fitting_a_dataset_is_fitting_its_arrays_to_the_bit(make: Any, remainder: Any) -> None:
    made = learner().init()
    options: dict[str, Any] = {
        "batch_size": 4, "steps": 7, "verbose": 0, "remainder": remainder,
        "validation_split": 0.1,
    }  # fmt: skip
    expected, history = made.fit(X, Y, **options)
    fitted, seen = made.fit(make(), **options)
    assert same(fitted, expected) and dict(seen) == dict(history)
    assert seen.position == history.position
    more, _ = fitted.fit(make(), position=seen.position, **options)
    assert same(more, expected.fit(X, Y, position=history.position, **options)[0])
    assert made.evaluate(make(), batch_size=4) == made.evaluate(X, Y, batch_size=4)


def test_a_position_is_found_without_reading_what_is_before_it() -> None:
    dataset = Examples()
    with data.as_source(dataset).open_reader(data.Batching(4)) as reader:
        reader.seek({"examples": 16, "of": 21, "order": None})
        dataset.read.clear()
        stacks = list(reader.stacks(lambda batch: 4))
    assert sorted(dataset.read) == [16, 17, 18, 19, 20] and len(stacks) == 2


def test_a_dataset_with_a_format_keeps_it_and_one_with_texts_is_refused() -> None:
    datasets = library("datasets")
    whole = of_huggingface()
    for kind in ("numpy", "jax", None):
        source = data.as_source(whole.with_format(kind))
        batch = source.take(np.array([4, 2])) if isinstance(source, data.RowSource) else None
        assert batch is not None and np.array_equal(batch["x"], X[[4, 2]])
    texts = datasets.Dataset.from_dict({"x": X.tolist(), "name": ["u"] * 21})
    with pytest.raises(TypeError, match=r"`batch\['name'\]` has dtype <U1"):
        learner().predict(texts)
    with pytest.raises(TypeError, match=r"`x\['train'\]` is a `Dataset`, which is not an array"):
        learner().predict(datasets.DatasetDict({"train": whole}))


def test_columns_are_asked_for_by_name() -> None:
    datasets = library("datasets")
    dataset = datasets.Dataset.from_dict({"image": X.tolist(), "label": Y.tolist()})

    class Named(et.Learner[Any]):
        def test_step(self, model: Any, state: Any, image: Any, label: Any) -> Any:
            loss, logs = self.measure(y_pred=image @ model.weight.T, y_true=label)
            return loss, logs, state

    named = Named(linear(), None, loss=CROSS_ENTROPY)
    result = named.evaluate(dataset, batch_size=8)
    assert result == named.evaluate({"image": X, "label": Y}, batch_size=8)


class Lists:
    """A dataset that is a list of whatever it is given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


@pytest.mark.parametrize(
    ("items", "is_one"),
    [
        ([(X[0], 1)] * 3, True),  # a scalar
        ([{"x": 1.0}] * 3, True),
        ([3.0] * 3, True),
        ([(X[0], np.ones(7))] * 3, True),  # of two lengths
        ([(X[:2], Y[:2])] * 3, False),
        ([X[0]] * 3, False),  # a batch of four numbers, as far as one can tell
    ],
)
def test_the_first_item_tells_examples_from_batches(items: list[Any], is_one: bool) -> None:
    source = data.as_source(Lists(*items))
    assert isinstance(source, data.ExampleSource if is_one else data.IterableSource)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        (
            [(X[0], 1), (X[0][:2], 1)],
            r"`example\[0\]` has shape \(4,\) in example 0 and \(2,\)",
        ),
        ([(X[0], 1), {"x": X[0]}], r"Example 1 is .*, but example 0 is"),
        ([(X[0], "u"), (X[0], "v")], r"`batch\[1\]` has dtype <U1"),
    ],
)
def test_examples_that_make_no_batch_get_a_sentence(items: list[Any], match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        learner().fit(Lists(*items), verbose=0)


def test_a_dataset_of_nothing_or_of_no_length_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="yielded no batch"):
        learner().fit(Lists(), verbose=0)
    with pytest.raises(ValueError, match="0 examples"):
        data.as_source(torch.utils.data.TensorDataset(torch.zeros(0, 4)))

    class Endless(torch.utils.data.Dataset):
        def __getitem__(self, i: int) -> Any:
            return X[0], 1

    with pytest.raises(TypeError, match="`__getitem__` but without `__len__`"):
        data.as_source(Endless())


def test_labels_beside_a_dataset_are_refused() -> None:
    with pytest.raises(
        TypeError, match="`x` is a dataset of examples, so `y` can't be passed beside"
    ):
        learner().fit(Examples(), Y, verbose=0)
