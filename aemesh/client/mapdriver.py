"""The thread that has a map's items computed by Dask.

Another client is made each time the engine's head was lost, and a master is waited for:
what was handed out then waits again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from aemesh.client.itemtask import Batch, Failure, dumps, run_on_dask
from aemesh.client.patience import Patience
from aemesh.errors import (
    EngineError,
    GroupIncompleteError,
    SettingsError,
    UnreachableError,
)
from aemesh.policy.batching import Batching, in_flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from aemesh.client.mapwork import Work
    from aemesh.client.runs import Run

_log = logging.getLogger(__name__)
_dask_log = logging.getLogger("distributed.client")
# How often it is asked how many processes there are.
_LOOK_AFTER = 1.0
# A head that was killed is up again in a second; the client then finds it.
_UP_AFTER = 10.0
# A first worker of a group that follows the load comes within seconds.
_DRY_AFTER = 10.0
# A function with data in it goes to each worker once, not with each batch.
_LARGE_FUNCTION = 64 * 1024
# Items with data in them: a batch that is sent for a second is no small one.
_BATCH_BYTES = 4 * 1024 * 1024


def _without_advice() -> AbstractContextManager[object]:
    """Keep Dask from telling who maps to load large data with Dask instead."""
    # It is loaded: there is a client.
    settings = import_module("dask.config")
    quiet: AbstractContextManager[object] = settings.set(
        {"distributed.admin.large-graph-warning-threshold": sys.maxsize}
    )
    return quiet


@contextmanager
def _leaving(client: Any) -> Iterator[None]:  # noqa: ANN401 - distributed is untyped
    """Close a client at the end, without the traceback of what it then gives up.

    Of a scheduler that is lost, that is Dask's connecting to it again.
    """
    try:
        yield
    finally:
        _dask_log.addFilter(_is_no_giving_up)
        try:
            client.close()
        finally:
            _dask_log.removeFilter(_is_no_giving_up)


def _is_no_giving_up(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != CancelledError.__name__


class DaskGroup(Protocol):
    """A group whose engine is Dask, as long as its credentials are there."""

    def client(self, **options: Any) -> Any:  # noqa: ANN401 - distributed is untyped
        """Return a `distributed.Client` of the group."""

    def close(self) -> None:
        """Remove the credentials."""


class Orders:
    """Makes batches of items."""

    def __init__(self, items: list[bytes], ids: list[str], titles: list[str]) -> None:
        self.run: Run | None = None
        self._items = items
        self._ids = ids
        self._titles = titles

    def batch(self, numbers: list[int]) -> Batch:
        """Return a batch of these items."""
        items = tuple(self._items[n] for n in numbers)
        if self.run is None:
            return Batch(items)
        return Batch(
            items,
            tuple(self._ids[n] for n in numbers),
            tuple(self._titles[n] for n in numbers),
            self.run.key,
            self.run.life,
        )

    def fitting(self, numbers: list[int]) -> int:
        """Return how many of these items a batch may have for their size."""
        size = 0
        for count, number in enumerate(numbers):
            size += len(self._items[number])
            if size > _BATCH_BYTES and count:
                return count
        return len(numbers)

    def __repr__(self) -> str:
        return f"<Orders of {len(self._items)} items>"


class Driver:
    """Hands batches out to Dask and takes in what comes of them, in its own thread."""

    def __init__(
        self,
        connect: Callable[[], DaskGroup],
        work: Work,
        orders: Orders,
        function: bytes,
    ) -> None:
        self._connect = connect
        self._work = work
        self._orders = orders
        self._function = function
        self._batching = Batching()
        self._flying: dict[Any, list[int]] = {}
        self._slots = 0
        self._looked_at = 0.0
        self._dry_since: float | None = None  # no worker since then
        self._thread: threading.Thread | None = None
        self._has_ended = False
        self._has_no_client = threading.Event()

    def start(self, stop: threading.Event) -> None:
        """Run in a thread of its own."""
        self._thread = threading.Thread(
            target=self.run, args=(stop,), name="aemesh map", daemon=True
        )
        self._thread.start()

    def wait_ended(self) -> None:
        """Wait until nothing is handed out any more; call it after `stop` is set.

        A thread that waits for the group or for its scheduler, which may be half a
        minute, is not waited for: it ends when that is over.
        """
        self._has_no_client.wait()
        if self._thread is not None and self._has_ended:
            self._thread.join()

    def run(self, stop: threading.Event) -> None:
        """Work until all is done or `stop` is set."""
        patience = Patience(stop)
        try:
            while not stop.is_set() and not self._work.is_over:
                # Another client each time the engine's head was lost.
                self._has_no_client.set()
                group, client = patience.ask(self._connected)
                self._has_no_client.clear()
                with closing(group), _leaving(client):
                    self._serve(client, stop)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            self._work.fail(error)
        finally:
            self._has_ended = True
            self._has_no_client.set()

    def _connected(self) -> tuple[DaskGroup, Any]:
        """Return the group with its engine up, and a client; both are waited for."""
        try:
            group = self._connect()
            try:
                return group, group.client(set_as_default=False, timeout=_UP_AFTER)
            except BaseException:
                group.close()
                raise
        except (EngineError, GroupIncompleteError, OSError) as error:
            msg = "the group is not ready"
            raise UnreachableError(msg, why=str(error)) from error

    def _serve(self, client: Any, stop: threading.Event) -> None:  # noqa: ANN401 - distributed is untyped
        """Work with one client, as long as its scheduler lives."""
        function: Any = self._function
        if len(self._function) > _LARGE_FUNCTION:
            with _without_advice():
                function = client.submit(bytes, self._function, pure=False)
        self._looked_at = 0.0
        try:
            while not stop.is_set() and not self._work.is_over:
                if client.status != "running":
                    break
                self._hand_out(client, function)
                self._take_in(client, stop)
            client.cancel(list(self._flying))
        except Exception as error:
            # Of a scheduler that is lost Dask says many things.
            broken = isinstance(error, (OSError, CancelledError))
            if not broken and client.status == "running":
                raise
            _log.info("the scheduler is lost: %s", error)
        for numbers in self._flying.values():
            self._work.put_back(numbers)
        self._flying.clear()

    def _hand_out(self, client: Any, function: Any) -> None:  # noqa: ANN401 - distributed is untyped
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AFTER:
            self._looked_at = now
            self._slots = sum(client.nthreads().values())
            self._tell_of_drought(now)
        while self._work.left and len(self._flying) < in_flight(self._slots):
            size = self._batching.size(left=self._work.left, slots=self._slots)
            numbers = self._work.take(size)
            fitting = self._orders.fitting(numbers)
            self._work.put_back(numbers[fitting:])
            batch = self._orders.batch(numbers[:fitting])
            # One item may be larger than a batch is to be.
            large = sum(map(len, batch.items)) > _BATCH_BYTES
            with _without_advice() if large else nullcontext():
                future = client.submit(run_on_dask, batch, function, pure=False)
            self._flying[future] = numbers[:fitting]

    def _tell_of_drought(self, now: float) -> None:
        """Say once that there is no worker: what is handed out calls for some."""
        if self._slots:
            self._dry_since = None
        elif self._dry_since is None:
            self._dry_since = now
        elif self._dry_since and now - self._dry_since >= _DRY_AFTER:
            self._dry_since = 0.0  # it is said
            _log.warning("the group has no worker; the map waits until one comes")

    def _take_in(self, client: Any, stop: threading.Event) -> None:  # noqa: ANN401 - distributed is untyped
        """Settle what has landed; wait a little if nothing has."""
        # Looked at, for Dask's callbacks break when the interpreter is ending.
        landed = [future for future in self._flying if future.done()]
        if not landed:
            stop.wait(self._batching.look_after)
            return
        whole = [future for future in landed if future.status == "finished"]
        outcomes = client.gather(whole, errors="skip") if whole else []
        if len(outcomes) < len(whole):  # a worker went just now, with its result
            return
        for future, outcome in zip(whole, outcomes, strict=True):
            self._batching.took(outcome.computed, outcome.after)
            self._work.settle(self._flying.pop(future), outcome.results)
        for future in landed:
            numbers = self._flying.pop(future, None)
            if numbers is not None:
                self._lost(future, numbers)

    def _lost(self, future: Any, numbers: list[int]) -> None:  # noqa: ANN401 - distributed is untyped
        """Take in a batch that did not come back."""
        if future.status != "error":  # with its scheduler
            self._work.put_back(numbers)
            return
        error = future.exception()
        if isinstance(error, SettingsError):
            raise error  # the run is full, or is not there any more
        if self._work.broke(numbers, Failure(dumps(error), str(error), "")):
            words = "items %s were on a process that died again and again; each is"
            _log.warning(f"{words} tried alone when the others are done", numbers)

    def __repr__(self) -> str:
        return f"<Driver of {self._work!r}, {len(self._flying)} batches out>"
