"""The thread that produces ahead: bounded, in order, and gone when it is not wanted."""

import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from eqxtrain._data import prefetch as _prefetch
from eqxtrain._data.prefetch import PrefetchIterator


def prefetched(make: Any, ahead: int = 1, wanted: Any = lambda: True) -> PrefetchIterator[Any]:
    return PrefetchIterator(make, ahead=ahead, keep_waiting=wanted, name="test-data")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "test-data"]


def test_items_come_in_order_and_the_thread_ends_with_them() -> None:
    with prefetched(lambda: iter(range(100)), ahead=3) as items:
        assert list(items) == list(range(100))
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_than_so_many_are_produced_ahead(ahead: int) -> None:
    made: list[int] = []

    def produce() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with prefetched(produce, ahead=ahead) as items:
        for taken in range(1, 6):
            assert items.take(wait=True) == taken - 1
            deadline = time.monotonic() + 5
            while len(made) < taken + ahead and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert len(made) == taken + ahead
    assert threads() == []


def test_an_exception_comes_with_its_own_traceback_after_what_was_made_before() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("in the source")

    taken: list[int] = []
    with (
        pytest.raises(ZeroDivisionError, match="in the source") as raised,
        prefetched(produce, ahead=5) as items,
    ):
        taken.extend(items)
    assert taken == [1]
    assert any(frame.name == "produce" for frame in traceback.extract_tb(raised.tb))
    assert threads() == []


def test_a_generator_that_is_left_early_is_closed() -> None:
    closed: list[str] = []

    def produce() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(threading.current_thread().name)

    with prefetched(produce) as items:
        assert items.take(wait=True) == 0
    assert closed == ["test-data"] and threads() == []


def test_what_is_not_ready_is_not_waited_for() -> None:
    go = threading.Event()

    def produce() -> Iterator[int]:
        yield 0
        go.wait(10)
        yield 1

    with prefetched(produce, ahead=2) as items:
        assert items.take(wait=True) == 0
        assert items.take(wait=False) is None
        go.set()
        assert items.take(wait=True) == 1
        assert items.take(wait=True) is None


def test_what_does_not_fit_stays_for_later() -> None:
    with prefetched(lambda: iter([1, 2]), ahead=2) as items:
        assert items.take(wait=True, fits=lambda item: item == 1) == 1
        assert items.take(wait=True, fits=lambda item: item == 1) is None
        assert items.take(wait=True) == 2


def test_one_that_waits_forever_is_given_up_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prefetch, "_MAX_CLOSE_WAIT", 0.3)
    forever, wanted = threading.Event(), [True]

    def produce() -> Iterator[int]:
        yield 0
        forever.wait()
        yield 1

    with (
        pytest.warns(UserWarning, match=r"so the thread `test-data` is left behind"),
        prefetched(produce, wanted=lambda: wanted[0]) as items,
    ):
        assert items.take(wait=True) == 0
        threading.Timer(0.1, lambda: wanted.__setitem__(0, False)).start()
        assert items.take(wait=True) is None  # asked while waiting
    (left,) = [thread for thread in threading.enumerate() if thread.name == "test-data"]
    assert left.daemon
    forever.set()
    left.join(5)
    assert not left.is_alive()


def test_waiting_for_items_ends_with_enough_items_with_the_last_one_or_with_its_time() -> None:
    go_on = threading.Event()

    def produce() -> Iterator[int]:
        yield from range(5)
        go_on.wait(10)
        yield 5

    with prefetched(produce, ahead=9) as items:
        assert items.take(wait=True) == 0
        items.wait_for_items(3, 10.0)  # of which there are enough
        assert [items.take(wait=False) for _ in range(3)] == [1, 2, 3]
        began = time.monotonic()
        items.wait_for_items(3, 0.05)
        assert 0.04 < time.monotonic() - began < 5
        go_on.set()
        items.wait_for_items(9, 10.0)  # there will be no more
        assert [items.take(wait=False) for _ in range(3)] == [4, 5, None]
        assert time.monotonic() - began < 9
