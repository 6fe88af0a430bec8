"""A thread that produces what will be wanted next, a bounded number of items ahead."""

import collections
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from .._warn import warn

T = TypeVar("T")

_POLL = 0.1
"""Seconds after which a thread that waits looks whether it still should."""

_PATIENCE = 5.0
"""Seconds for which a producer may finish its last item after nobody wants it."""


class PrefetchIterator(Generic[T]):
    """The items of an iterator, produced in a thread while this one does something else.

    The thread begins with the first item that is asked for. A context manager: its end is the end
    of the thread, and of the iterator.

    **Arguments:**

    - `make`: gives the iterator; called in the thread.
    - `ahead`: how many items may be ready and not taken. It may be changed at any time.
    - `keep_waiting`: whether to go on waiting for the next item.
    - `name`: of the thread.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[T]],
        *,
        ahead: int,
        keep_waiting: Callable[[], bool],
        name: str,
    ) -> None:
        self.ahead = ahead
        self._keep_waiting = keep_waiting
        self._ready: collections.deque[T] = collections.deque()
        self.error: BaseException | None = None  # of the iterator, not raised here yet
        self._ended = self._closed = False
        self._awaited = 1
        self._changed = threading.Condition()
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._produce, make), name=name, daemon=True
        )

    def __enter__(self) -> "PrefetchIterator[T]":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> list[T]:
        """End the thread and the iterator; gives what was ready and not taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + _PATIENCE
        while self.is_alive and time.monotonic() < deadline:
            self._thread.join(_POLL)
        if self.is_alive:
            warn(
                f"The data did not give their next batch within {_PATIENCE:.0f} s after the run "
                f"ended, so the thread `{self._thread.name}` is left behind. It is a daemon: it "
                "ends with its batch, or with the process."
            )
        left = list(self._ready)
        self._ready.clear()
        return left

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread, however long it takes."""
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while (item := self.take(wait=True)) is not None:
            yield item

    def take(self, *, wait: bool, fits: Callable[[T], bool] = lambda item: True) -> T | None:
        """The next item; None at the end, or when it is not wanted any more.

        **Arguments:**

        - `wait`: whether to wait for it. If not, None also means that it is not ready.
        - `fits`: an item for which this is false is left where it is, and None given.
        """
        if self._thread.ident is None and not self._closed:
            self._thread.start()
        with self._changed:
            while not self._ready and not self._ended:
                if not wait or not self._keep_waiting():
                    return None
                self._changed.wait(_POLL)
            if self._ready:
                if not fits(self._ready[0]):
                    return None
                item = self._ready.popleft()
                if len(self._ready) < self.ahead:
                    self._changed.notify_all()
                return item
            if self.error is not None and wait:
                error, self.error = self.error, None
                try:
                    raise error
                finally:
                    del error  # whose traceback holds this frame
            return None

    def linger(self, count: int, seconds: float) -> None:
        """Wait until so many items are ready, so long at most, or until there will be no more."""
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
                    if len(self._ready) >= self._awaited:  # to wake somebody up costs both of them
                        self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # it is raised again where the items are taken
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
        """Wait until an item may be produced; false when none is wanted any more."""
        with self._changed:
            while len(self._ready) >= self.ahead and not self._closed:
                self._changed.wait()
            return not self._closed
