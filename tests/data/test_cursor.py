"""Where iterators stand: what they tell of it, how they are put there, what is made again."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from helpers import library

from eqxtrain import _data as data

ROWS, SIZE = 22, 4
X = np.arange(ROWS, dtype=np.float32)[:, None]
EXAMPLES = [{"i": i, "x": row} for i, row in enumerate(X)]


def some(reader: data.Reader, most: int | None) -> list[list[int]]:
    """The next batches, as the numbers of their examples."""
    seen: list[list[int]] = []
    for stack in reader.stacks(lambda batch: 3, most):
        for i in range(stack.num_batches):
            numbers = jax.tree.leaves(stack.batches)[-1][i]
            seen.append([int(n) for n in numbers.ravel()])
            reader.consume(1)
    return seen


def at(batches: Any) -> dict[str, Any]:
    """A position in data that tell none."""
    return {"batches": batches, "state": None, "state_at": 0, "rows": SIZE}


def check(make: Callable[[], Any], *, replays: bool = False, ordered: bool = True) -> None:
    """Go on after each number of batches in a new process, so to say: all is made anew."""
    source = lambda: data.as_source(make())
    with source().open_reader(data.Batching(SIZE)) as reader:
        whole, second = some(reader, None), some(reader, None)
    assert sorted(n for batch in whole for n in batch) == list(range(ROWS)) and len(whole) > 3
    for k in range(len(whole) + 1):
        with source().open_reader(data.Batching(SIZE)) as reader:
            first = some(reader, k) if k else []
            position = reader.position
        assert first == whole[:k]
        with (
            warnings.catch_warnings(record=True) as told,
            source().open_reader(data.Batching(SIZE)) as reader,
        ):
            warnings.simplefilter("always", UserWarning)
            reader.seek(copy.deepcopy(position))
            rest = some(reader, None)
            assert reader.position["batches"] == 0 or not rest
            after = some(reader, None)
        told = [warning for warning in told if "position" in str(warning.message)]
        assert len(told) == int(replays and k > 0), (k, told)
        if k < len(whole):
            assert rest == whole[k:] and (after == second or not ordered)
        else:  # the pass was over: a new one begins
            assert rest == second or not ordered
    same = make()  # and now with one object, as in one process
    for k in (1, len(whole)):
        with data.as_source(same).open_reader(data.Batching(SIZE)) as reader:
            first, position = some(reader, k), reader.position
        again = data.as_source(same)
        with warnings.catch_warnings(), again.open_reader(data.Batching(SIZE)) as reader:
            warnings.simplefilter("ignore", UserWarning)
            reader.seek(position)
            seen = [*first, *some(reader, None), *some(reader, None)][: 2 * len(whole)]
        again = [*whole, *second] if k == 1 else [*whole, *second, *second]
        assert seen == again[: len(seen)] or not ordered


class Stateful:
    """Batches with a position of their own, in torchdata's spelling or Grain's."""

    def __init__(self, names: tuple[str, str], *, on_iterator: bool) -> None:
        self.start, self.names, self.on_iterator = 0, names, on_iterator
        if not on_iterator:
            setattr(self, names[0], lambda: {"next": self.iterator.next})
            setattr(self, names[1], lambda state: setattr(self, "start", state["next"]))

    def __iter__(self) -> Any:
        self.iterator = Walk(self.start)
        self.start = 0
        if self.on_iterator:
            get = lambda: {"next": walk.next}
            walk = self.iterator
            setattr(walk, self.names[0], get)
            setattr(walk, self.names[1], lambda state: setattr(walk, "next", state["next"]))
        return self.iterator


class Walk(Iterator[Any]):
    def __init__(self, start: int) -> None:
        self.next = start

    def __next__(self) -> Any:
        if self.next * SIZE >= ROWS:
            raise StopIteration
        self.next += 1
        return (X[(self.next - 1) * SIZE : self.next * SIZE],)


@pytest.mark.parametrize("on_iterator", [True, False])
@pytest.mark.parametrize(
    "names", [("get_state", "set_state"), ("state_dict", "load_state_dict")], ids="-".join
)
def test_what_tells_its_position_is_put_there_without_a_replay(
    names: tuple[str, str], on_iterator: bool
) -> None:
    check(lambda: Stateful(names, on_iterator=on_iterator))


def batches() -> Iterator[Any]:
    for start in range(0, ROWS, SIZE):
        yield (X[start : start + SIZE],)


def test_a_generator_is_replayed_with_a_warning() -> None:
    check(lambda: batches, replays=True)


def test_a_list_and_what_is_indexed_begin_where_they_should() -> None:
    check(lambda: list(batches()))
    read: list[int] = []

    class Indexed:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> Any:
            read.append(i)
            return list(batches())[i]

    check(Indexed)
    with data.as_source(Indexed()).open_reader(data.Batching(1)) as reader:
        reader.seek(at(4))
        read.clear()
        assert len(some(reader, None)) == 2 and read == [4, 5]


def test_a_position_past_the_end_or_of_another_kind_is_refused() -> None:
    for position, match in [
        (at(9), "have 6 batches, but `position` is after batch 9"),
        (
            at("a"),
            "`position` must be what .* a dict of batches, sta",
        ),
        ({"batches": 3}, "`position` must be what"),
    ]:
        reader = data.as_source(list(batches())).open_reader(data.Batching(1))
        with pytest.raises(ValueError, match=match), reader:
            reader.seek(position)
            some(reader, None)
    with data.as_source(batches).open_reader(data.Batching(1)) as reader:
        reader.seek(at(9))
        with (
            pytest.warns(UserWarning, match="the 9 batches before the position are produced again"),
            pytest.raises(ValueError, match="have 6 batches, but `position` is after batch 9"),
        ):
            some(reader, None)


@pytest.mark.slow
def test_grain_map_dataset() -> None:
    grain = library("grain")
    make = lambda: grain.MapDataset.source(EXAMPLES).shuffle(seed=3).batch(SIZE)
    check(make)
    with data.as_source(make()).open_reader(data.Batching(1)) as reader:
        some(reader, 2)
        assert json.loads(json.dumps(reader.position)) == {
            "batches": 2,
            "state": {"next_index": 2},
            "state_at": 2,
            "rows": 4,
        }


@pytest.mark.slow
def test_grain_iter_dataset() -> None:
    grain = library("grain")
    check(lambda: grain.MapDataset.source(EXAMPLES).shuffle(seed=3).to_iter_dataset().batch(SIZE))


def test_grain_data_loader() -> None:
    grain = library("grain.python")

    def make() -> Any:
        sampler = grain.IndexSampler(ROWS, grain.NoSharding(), shuffle=True, num_epochs=1, seed=5)
        return grain.DataLoader(
            data_source=EXAMPLES, sampler=sampler, operations=[grain.Batch(SIZE)], worker_count=0
        )

    check(make)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_torchdata_stateful_data_loader() -> None:
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    dataset = torch.utils.data.TensorDataset(torch.tensor(X))
    check(lambda: loaders.StatefulDataLoader(dataset, batch_size=SIZE))

    def shuffled() -> Any:
        generator = torch.Generator().manual_seed(4)
        return loaders.StatefulDataLoader(dataset, SIZE, shuffle=True, generator=generator)

    check(shuffled, ordered=False)  # what its generator does next is its own affair


def test_torch_data_loader() -> None:
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.tensor(X))
    check(lambda: torch.utils.data.DataLoader(dataset, batch_size=SIZE), replays=True)


def test_huggingface_iterable_dataset() -> None:
    datasets = library("datasets")

    def make() -> Any:
        whole = datasets.Dataset.from_dict({"x": X.tolist(), "i": list(range(ROWS))})
        return whole.to_iterable_dataset(num_shards=2).with_format("numpy").batch(SIZE)

    check(make)
