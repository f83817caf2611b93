"""`Group.map`: a function over many items, and what is finished is never lost.

Items go to the engine in batches (`aemesh.policy.batching`).  In a durable run each
finished item is kept by the master before it counts; a value is read from there when it
is its turn, so a client holds none.  Whatever is killed, the same call goes on: with
the engine's head another client is made, and a master is waited for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from aemesh import limits
from aemesh.client.fingerprint import function_fingerprint, function_title, item_ids
from aemesh.client.homecoming import read_value
from aemesh.client.itemtask import Failure, dumps
from aemesh.client.mapdriver import Driver, Orders
from aemesh.client.mapwork import Kept, Work
from aemesh.client.patience import Patience
from aemesh.errors import UnknownRunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aemesh.client.mapdriver import DaskGroup
    from aemesh.client.runs import Run, Runs

_T = TypeVar("_T")

# How an item is called in lists: so much of its `repr`, which is ASCII.
_TITLE_LENGTH = 80


class Results(Generic[_T]):
    """The results of a map, in the order of its items; made by `Group.map`.

    An item that raised raises here when it is its turn; the next call goes on behind
    it.  `close`, the end of a ``with`` block, or forgetting it ends what still runs.
    """

    def __init__(self, work: Work, run: Run | None, ids: list[str]) -> None:
        self._work = work
        self._run = run
        self._ids = ids
        self._turn = threading.Lock()  # of who reads the next one
        self._next = 0
        self._values: Iterator[bytes | None] = iter(())
        self._ahead: list[int] = []  # items whose values come from there
        self._stop = threading.Event()
        self._patience = Patience(self._stop)
        self._driver: Driver | None = None

    def start(self, driver: Driver) -> None:
        """Have the items computed, in a thread beside."""
        if not self._work.is_over:
            self._driver = driver
            driver.start(self._stop)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        with self._turn:
            return self._read_next()

    def _read_next(self) -> _T:
        if self._next >= self._work.count:
            self.close()
            raise StopIteration
        number = self._next
        result = self._work.wait(number)
        if isinstance(result, Kept):
            result = self._kept(number)
        self._next += 1
        if isinstance(result, Failure):
            raise _told(result, number)
        self._work.drop(number)
        value: _T = read_value(result)
        return value

    def close(self) -> None:
        """End what still runs; what is kept stays.

        A result that is not there yet raises `UsageError` from then on.
        """
        self._stop.set()
        if self._driver is not None:
            self._driver.wait_ended()
        if not self._work.is_over:
            msg = "this result will not come"
            self._work.fail(UsageError(msg, why="the map was closed"))

    def _kept(self, number: int) -> bytes:
        """Return a value from the master's ledger; many come with one request."""
        run = self._run
        assert run is not None

        def read() -> bytes | None:
            if not self._ahead:
                self._ahead = self._work.kept_from(number, most=limits.RUN_BATCH_ITEMS)
                self._values = run.values([self._ids[n] for n in self._ahead])
            try:
                value = next(self._values)
            except BaseException:
                self._ahead = []
                raise
            self._ahead.pop(0)
            return value

        value = self._patience.ask(read)
        if value is None:
            raise UnknownRunError(run.view.group, run.key)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._stop.set()

    def __len__(self) -> int:
        return self._work.count

    def __repr__(self) -> str:
        return f"<Results: {self._work!r}, {self._next} were read>"


def start_map(  # noqa: PLR0913 - what a map is, by name
    group: str,
    function: Callable[[Any], _T],
    items: Iterable[Any],
    *,
    connect: Callable[[], DaskGroup],
    runs: Runs,
    key: str | None,
    retries: int,
    fresh: bool,
) -> Results[_T]:
    """Begin to compute; see `Group.map`.  Raises `UsageError` for a wrong word."""
    _check(key, retries)
    every = list(items)
    data = [dumps(item) for item in every]
    done, ids, titles, run = set[int](), list[str](), list[str](), None
    if key is not None:
        titles = [_title(item) for item in every]
        ids = list(item_ids(every))
        run = runs.open(
            group,
            key,
            fingerprint=function_fingerprint(function),
            title=function_title(function),
            total=len(every),
            fresh=fresh,
        )
        kept = {item.id for item in run.items()}
        done = {number for number, item in enumerate(ids) if item in kept}
    work = Work(len(every), done=done, retries=retries)
    results: Results[_T] = Results(work, run, ids)
    orders = Orders(data, ids, titles)
    orders.run = run
    results.start(Driver(connect, work, orders, dumps(function)))
    return results


def _check(key: object, retries: object) -> None:
    if not isinstance(key, str | None):
        msg = f"key {key!r}: expected a text, got {type(key).__name__}"
        raise UsageError(msg)
    if not isinstance(retries, int) or retries < 0:
        msg = f"retries {retries!r}: expected a whole number from 0"
        raise UsageError(msg)


def _title(item: object) -> str:
    try:
        return ascii(item)[:_TITLE_LENGTH]
    except Exception:  # noqa: BLE001 - a class's own `repr` may raise what it likes
        return f"<{type(item).__qualname__}>"


def _told(failure: Failure, number: int) -> BaseException:
    """Return the exception of an item, with words of where it came from."""
    error: BaseException
    try:
        error = read_value(failure.error)
    except Exception:  # noqa: BLE001 - what cannot be made here has its words
        error = RuntimeError(failure.told)
    if isinstance(error, StopIteration | StopAsyncIteration):  # it would end the loop
        cause, error = error, RuntimeError(f"item {number} raised {error!r}")
        error.__cause__ = cause
    at = f" on {failure.worker}" if failure.worker else ""
    error.add_note(f"item {number} of the map raised this{at}:\n{failure.told}")
    return error
