"""A thread that produces items before they are asked for, a bounded number ahead."""

import collections
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from .._warn import warn

T = TypeVar("T")

_POLL = 0.1
"""Seconds between two looks at whether to go on waiting."""

_MAX_CLOSE_WAIT = 5.0
"""Seconds that the thread has to finish its last item when it is closed."""


class PrefetchIterator(Generic[T]):
    """The items of an iterator, produced in a thread of their own.

    The thread starts when the first item is asked for. This is a context manager; leaving it ends
    the thread and closes the iterator.

    **Arguments:**

    - `make`: makes the iterator; called in the thread.
    - `ahead`: how many items may be ready but not taken. It may be changed at any time.
    - `keep_waiting`: whether to go on waiting for the next item.
    - `name`: the name of the thread.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[T]],
        *,
        ahead: int = 1,
        keep_waiting: Callable[[], bool],
        name: str = "eqxtrain-data",
    ) -> None:
        self.ahead = ahead
        self._keep_waiting = keep_waiting
        self._ready: collections.deque[T] = collections.deque()
        self.error: BaseException | None = None  # the iterator's, until it is raised here
        self._ended = False  # the thread makes no more items
        self._closed = False  # nobody takes any more
        self._awaited = 1  # how many items the thread should make before it wakes the taker
        self._changed = threading.Condition()
        # The user's iterator should see the context variables of the thread that trains.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._produce, make), name=name, daemon=True
        )

    def __enter__(self) -> "PrefetchIterator[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> list[T]:
        """End the thread and the iterator; returns the items that were ready but not taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # `next` of a user's iterator can't be interrupted, so we can only wait, and not forever.
        deadline = time.monotonic() + _MAX_CLOSE_WAIT
        while self.is_alive and time.monotonic() < deadline:
            self._thread.join(_POLL)
        if self.is_alive:
            warn(
                f"The data did not yield the next batch within {_MAX_CLOSE_WAIT:.0f} s of the end "
                f"of the run, so the thread `{self._thread.name}` is left behind. It is a daemon "
                "thread, and ends with its batch or with the process."
            )
        left = list(self._ready)
        self._ready.clear()
        return left

    @property
    def is_alive(self) -> bool:
        """Whether the thread is still running."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread, however long it takes."""
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while (item := self.take(wait=True)) is not None:
            yield item

    def take(self, *, wait: bool, fits: Callable[[T], bool] = lambda item: True) -> T | None:
        """The next item; None at the end, or once `keep_waiting` is false.

        **Arguments:**

        - `wait`: whether to wait for it. If not, None may also mean that it is not ready.
        - `fits`: an item for which this is false is not taken, and None is returned.
        """
        if self._thread.ident is None and not self._closed:
            self._thread.start()
        with self._changed:
            while not self._ready and not self._ended:
                if not wait or not self._keep_waiting():
                    return None
                self._changed.wait(_POLL)  # not forever, or Ctrl-C would go unnoticed
            if self._ready:
                if not fits(self._ready[0]):
                    return None
                item = self._ready.popleft()
                if len(self._ready) < self.ahead:
                    self._changed.notify_all()  # the thread may be waiting for room
                return item
            if self.error is not None and wait:
                error, self.error = self.error, None
                try:
                    raise error
                finally:
                    del error  # its traceback refers to this frame: a reference cycle
            return None

    def wait_for_items(self, count: int, seconds: float) -> None:
        """Wait for `count` items, the end of the iterator, or `seconds`, whichever comes first."""
        with self._changed:
            self._awaited = min(count, self.ahead)
            self._changed.wait_for(
                lambda: len(self._ready) >= self._awaited or self._ended, timeout=seconds
            )
            self._awaited = 1

    def _produce(self, make: Callable[[], Iterator[T]]) -> None:
        items: Any = None
        try:
            items = make()
            while self._has_room():
                item = next(items)
                with self._changed:
                    self._ready.append(item)
                    # Waking the taker costs both threads, so it is done once enough is ready.
                    if len(self._ready) >= self._awaited:
                        self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # `take` raises it in the thread that trains
            self.error = error
        finally:
            if hasattr(items, "close"):
                self._close(items)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _close(self, items: Any) -> None:
        try:
            items.close()
        except BaseException as error:
            self.error = self.error or error

    def _has_room(self) -> bool:
        """Wait until there is room for another item; false once the thread should end."""
        with self._changed:
            while len(self._ready) >= self.ahead and not self._closed:
                self._changed.wait()
            return not self._closed
