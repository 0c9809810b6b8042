"""How streams end: what reads ahead of a reader stops as soon as the reader has left."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Callable, Deque, Generic, Iterator, List, Optional, TypeVar

import grpc

from .errors import RhoError

T = TypeVar("T")

# A generator may be collected, and so closed, in any thread at any moment: in one that is about to wait as well. What waits
# looks again after this many seconds.
_LOOK_SECONDS = 1.0


class Stopped(RhoError):
    """The client was closed, or whoever read a stream has left it."""


class Stop:
    """Ends the calls and waits of one stream, from any thread."""

    def __init__(self) -> None:
        # Re-entrant, for the same reason as above.
        self.changed = threading.Condition(threading.RLock())
        self._calls: List[grpc.Future] = []
        self.is_set = False

    def set(self) -> None:
        with self.changed:
            self.is_set = True
            calls = list(self._calls)
            self.changed.notify_all()
        for call in calls:
            call.cancel()

    def check(self) -> None:
        if self.is_set:
            raise Stopped("the client is closed")

    def sleep(self, seconds: float) -> None:
        """Raises Stopped once the stop is set."""
        end = time.monotonic() + seconds
        with self.changed:
            while not self.is_set and (left := end - time.monotonic()) > 0:
                self.changed.wait(min(left, _LOOK_SECONDS))
        self.check()

    @contextmanager
    def cancelling(self, call: T) -> Iterator[T]:
        """Cancels a call that is under way when the stop is set."""
        with self.changed:
            self._calls.append(call)  # type: ignore[arg-type]
        try:
            if self.is_set:
                call.cancel()  # type: ignore[attr-defined]
            yield call
        finally:
            with self.changed:
                self._calls.remove(call)  # type: ignore[arg-type]


class _Ahead(Generic[T]):
    """Items on their way from a thread to a reader."""

    def __init__(self, size: int, stop: Stop):
        self._size = size
        self._stop = stop
        self._items: Deque[T] = deque()
        self._ended = False
        self._failure: Optional[BaseException] = None

    def run(self, make: "Callable[[], Iterator[T]]") -> None:
        iterator = make()
        failure: Optional[BaseException] = None
        try:
            for item in iterator:
                self._put(item)
        except BaseException as error:  # whatever it is, the reader sees it
            failure = error
        finally:
            iterator.close()  # type: ignore[attr-defined]
            with self._stop.changed:
                self._ended, self._failure = True, failure
                self._stop.changed.notify_all()

    def _put(self, item: T) -> None:
        changed = self._stop.changed
        with changed:
            while len(self._items) >= self._size and not self._stop.is_set:
                changed.wait(_LOOK_SECONDS)
            self._stop.check()
            self._items.append(item)
            changed.notify_all()

    def take(self) -> "List[T]":
        """The next item; none at the end."""
        changed = self._stop.changed
        with changed:
            while not self._items and not self._ended:
                changed.wait(_LOOK_SECONDS)
            if self._items:
                item = self._items.popleft()
                changed.notify_all()
                return [item]
        if self._failure is not None:
            raise self._failure
        return []


def prefetched(make: "Callable[[], Iterator[T]]", size: int, stop: Stop) -> "Iterator[T]":
    """Runs an iterator in a thread, `size` items ahead of the reader, until the reader leaves."""
    ahead: "_Ahead[T]" = _Ahead(size, stop)
    thread = threading.Thread(target=ahead.run, args=(make,), name="rho-prefetch", daemon=True)

    def read() -> "Iterator[T]":
        thread.start()
        try:
            while item := ahead.take():
                yield item[0]
        finally:
            stop.set()

    return read()


class Silence(Exception):
    """Nothing came from a call for too long."""


def watched(call: "Iterator[T]", timeout: float) -> "Iterator[T]":
    """The call's messages; when none comes for `timeout` seconds, the call is cancelled and Silence raised."""
    last = [time.monotonic()]
    stalled = threading.Event()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, timeout / 4)):
            if time.monotonic() - last[0] > timeout:
                stalled.set()
                call.cancel()  # type: ignore[attr-defined]
                return

    watcher = threading.Thread(target=watch, name="rho-watch", daemon=True)
    watcher.start()
    try:
        while True:
            last[0] = time.monotonic()
            try:
                message = next(call)
            except StopIteration:
                return
            except grpc.RpcError as error:
                if stalled.is_set():
                    raise Silence(f"nothing came for {timeout:.0f} s") from error
                raise
            last[0] = float("inf")  # what the reader does with a message is no silence of the scorer
            yield message
    finally:
        over.set()
