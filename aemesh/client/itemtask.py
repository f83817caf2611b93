"""What runs on a worker for a map: a batch of items, one after the other.

In a durable run it asks first which of them are kept already, and computes no such
item, also when the engine runs the batch once more because a worker was lost.  What is
finished is kept soon: an item that takes long at once, quick ones a few at a time.
It is loaded on every worker, so it imports the standard library only.
"""

from __future__ import annotations

import functools
import pickle
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.client.agent import this_agent
from aemesh.client.item import Item, working_on
from aemesh.errors import RunFullError

if TYPE_CHECKING:
    from collections.abc import Callable

# Quick items are kept each time so much has come together: what a worker that is killed
# takes with it is no more than this.
_KEEP_AFTER = 0.1
_KEEP_BYTES = 4 * 1024 * 1024
# Functions that are unpickled once for all their batches; a worker serves a few maps.
_FUNCTIONS = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that raised: the exception as it is, if it can travel, and its words."""

    error: bytes
    told: str
    worker: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Items to be computed; in a durable run with their ids."""

    items: tuple[bytes, ...]
    ids: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    run: str = ""
    life: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of a batch: per item a value, a failure, or None for what is kept."""

    results: list[bytes | Failure | None]
    after: float  # seconds that the computed ones took, and keeping them
    computed: int


def run_on_dask(batch: Batch, function: bytes) -> Outcome:
    """Compute a batch in a Dask worker; a large function is a task's result."""
    worker: Any = sys.modules["distributed.worker"]
    return run_batch(batch, function, str(worker.get_worker().name))


def run_batch(batch: Batch, function: bytes, worker: str = "") -> Outcome:
    """Compute a batch; what an item raises is its result."""
    call = _function(function)
    keeper = _Keeper(batch) if batch.run else None
    known = keeper.known() if keeper is not None else set()
    results: list[bytes | Failure | None] = []
    began, computed = time.monotonic(), 0
    for number, item in enumerate(batch.items):
        if keeper is not None and batch.ids[number] in known:
            results.append(None)
            continue
        computed += 1
        result = _compute(call, item, batch, number, worker)
        if keeper is not None and isinstance(result, bytes):
            keeper.add(number, result)
            results.append(None)
        else:
            results.append(result)
    if keeper is not None:
        keeper.keep()
    return Outcome(results, time.monotonic() - began, computed)


def dumps(value: object) -> bytes:
    """Return a pickle, also of what was defined in a script."""
    with suppress(Exception):  # pickle raises what it likes
        data = pickle.dumps(value, protocol=5)
        if b"__main__" not in data:  # of which the other side has another one
            return data
    # Dask brings it along.
    pickled: bytes = import_module("cloudpickle").dumps(value, protocol=5)
    return pickled


def loads(data: bytes) -> Any:  # noqa: ANN401 - whatever it was
    """Return what was pickled, by a member of our own group or by its client."""
    return pickle.loads(data)  # noqa: S301


@functools.lru_cache(maxsize=_FUNCTIONS)
def _function(data: bytes) -> Callable[[Any], object]:
    function: Callable[[Any], object] = loads(data)
    return function


def _compute(
    function: Callable[[Any], object],
    item: bytes,
    batch: Batch,
    number: int,
    worker: str,
) -> bytes | Failure:
    try:
        if not batch.run:
            return dumps(function(loads(item)))
        with working_on(Item(batch.run, batch.life, batch.ids[number])):
            value = dumps(function(loads(item)))
        if len(value) > limits.RUN_VALUE_BYTES:
            what = f"a value of {len(value)} bytes is not kept"
            hint = "write it to a file, and return the name of that"
            why = f"at most {limits.RUN_VALUE_BYTES} bytes"
            raise RunFullError(what, why=why, hint=hint)  # noqa: TRY301 - the item's
        return value  # noqa: TRY300
    # Also what calls `sys.exit` means itself, and would end the worker.
    except BaseException as error:  # noqa: BLE001 - the item's; its client raises it
        told = "".join(traceback.format_exception(error)[1:])
        return Failure(_travelling(error), told, worker)


def _travelling(error: BaseException) -> bytes:
    """Return the pickle of an exception that comes out of it as it was, or of words."""
    if isinstance(error, Exception):  # raised at the client the other would end that
        with suppress(Exception):  # many exceptions cannot be made anew
            data = dumps(error)
            loads(data)
            return data
    return dumps(RuntimeError(f"{type(error).__name__}: {error}"))


@dataclass(slots=True)
class _Keeper:
    """Has the master keep what is finished of a batch."""

    batch: Batch
    _heads: list[dict[str, object]] = field(default_factory=list)
    _values: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _kept_at: float = field(default_factory=time.monotonic)

    def known(self) -> set[str]:
        """Return the ids of items that are kept already."""
        told, _ = this_agent().ask(self._asked("known") | {"items": self.batch.ids})
        return set(told["items"])

    def add(self, number: int, value: bytes) -> None:
        """Take a finished item; it is kept now, or with the next few."""
        if self._values and self._bytes + len(value) > _KEEP_BYTES:
            self.keep()
        head: dict[str, object] = {"id": self.batch.ids[number], "size": len(value)}
        self._heads.append(head | {"title": self.batch.titles[number]})
        self._values.append(value)
        self._bytes += len(value)
        if time.monotonic() - self._kept_at >= _KEEP_AFTER:
            self.keep()

    def keep(self) -> None:
        """Return once all that was taken is on the master's disk."""
        if self._heads:
            question = self._asked("commit") | {"items": self._heads}
            this_agent().ask(question, *self._values)
        self._heads, self._values, self._bytes = [], [], 0
        self._kept_at = time.monotonic()

    def _asked(self, what: str) -> dict[str, object]:
        return {"t": what, "run": self.batch.run, "life": self.batch.life}
