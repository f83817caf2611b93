"""A `concurrent.futures.Executor` on a group of Dask.

distributed has one, too: it takes some of a call's keywords for its own, does not wait
for what `map` began, and of a result that cannot travel its future never learns.
"""
# distributed is typed as far as it came to be.
# mypy: disable-error-code="no-untyped-call, union-attr"
# What is computed, and what goes to Dask, is the user's.
# ruff: noqa: ANN401

from __future__ import annotations

import atexit
import functools
import os
import threading
import weakref
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from functools import partial
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import distributed

_T = TypeVar("_T")
_CACHED = type(functools.cache(len))

_OPTIONS = frozenset({"allow_other_workers", "pure", "resources", "retries", "workers"})
_OPEN: weakref.WeakSet[GroupExecutor] = weakref.WeakSet()


class GroupExecutor(Executor):
    """An executor with a client of its own, which is closed when all is done.

    Nobody here sees when a call begins to run.  So one that runs can be cancelled: what
    it computes is thrown away.
    """

    def __init__(self, client: distributed.Client, **options: Any) -> None:
        check_options(options)
        self._client = client
        # Each call is one of its own, as with any executor: Dask alone would take two
        # with the same arguments for one.
        self._options = {"pure": False, **options}
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._is_shut = False
        # Of what is not done; None: it does not know yet.
        self._tasks: dict[Future[Any], distributed.Future[Any] | None] = {}
        _OPEN.add(self)

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Have ``fn(*args, **kwargs)`` computed: all keywords are the function's.

        What cannot be pickled is told by the future.
        """
        future: Future[_T] = Future()
        with self._lock:
            if self._is_shut:
                msg = "cannot schedule new futures after shutdown"
                raise RuntimeError(msg)
            self._tasks[future] = None
        try:
            _check_travels(fn)
            call = partial(fn, *args, **kwargs)
            task = self._client.submit(call, **self._options)
        except BaseException as error:
            self._tasks.pop(future)
            if not isinstance(error, Exception):
                raise
            future.set_exception(error)
            return future
        self._tasks[future] = task
        future.add_done_callback(self._cancel)
        self._client.loop.add_callback(self._follow, task, future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; once all that was taken is done, close the client.

        Without `wait` that happens behind this call, at the latest when the interpreter
        exits, which waits for it.  `cancel_futures` cancels all that does not run.
        """
        with self._lock:
            self._is_shut = True
        if cancel_futures:
            self._cancel_waiting()
        if wait:
            self._close()
        else:
            threading.Thread(
                target=self._close, name="aemesh executor", daemon=True
            ).start()

    def __repr__(self) -> str:
        state = "shut" if self._is_shut else "open"
        return f"<GroupExecutor {state}, {len(self._tasks)} calls are not done>"

    async def _follow(self, task: distributed.Future[Any], future: Future[Any]) -> None:
        """Settle a future with what comes of its task; on the client's loop."""
        try:
            try:
                if (raised := await task.exception()) is not None:
                    raised = raised.with_traceback(await task.traceback())
                    settle = partial(future.set_exception, raised)
                else:
                    settle = partial(future.set_result, await task.result())
            except BaseException as error:  # noqa: BLE001 - told: it cannot be made here
                settle = partial(future.set_exception, error)
            if task.cancelled():
                future.cancel()
            if future.set_running_or_notify_cancel():
                settle()
        finally:
            self._tasks.pop(future)

    def _cancel(self, future: Future[Any]) -> None:
        """Let Dask drop the task of a future that was cancelled."""
        task = self._tasks.get(future)
        if task is not None and future.cancelled():
            cancel = self._client.cancel
            self._client.loop.add_callback(cancel, [task], asynchronous=True)

    def _cancel_waiting(self) -> None:
        tasks = {future: task for future, task in list(self._tasks.items()) if task}
        if not tasks:
            return
        running = set[str]()
        with suppress(Exception):  # of a scheduler that is lost Dask says many things
            for stacks in self._client.call_stack().values():
                running.update(stacks)
        for future, task in tasks.items():
            if task.key not in running:
                future.cancel()

    def _close(self) -> None:
        wait(list(self._tasks))
        with self._closing:
            self._client.close()
        _OPEN.discard(self)


def check_options(options: dict[str, Any]) -> None:
    """Raise `TypeError` for what is no option of an executor."""
    if unknown := sorted(options.keys() - _OPTIONS):
        msg = f"unknown options of an executor: {', '.join(unknown)}"
        raise TypeError(msg)


def _check_travels(function: Callable[..., object]) -> None:
    """Raise `PicklingError` for what Dask would send by a name that nobody has."""
    if isinstance(function, _CACHED) and function.__module__ == "__main__":
        msg = (
            f"{function.__name__} cannot be sent: what functools.cache makes goes by "
            "its name, and workers do not have this script; move it to a module that "
            "they have, or send a function that is not cached"
        )
        raise PicklingError(msg)


@atexit.register
def _close_all() -> None:
    """Wait for what an interpreter leaves behind, as other executors do."""
    for executor in list(_OPEN):
        with suppress(Exception):
            executor.shutdown()


# The threads of a fork's parent are not there.
os.register_at_fork(after_in_child=_OPEN.clear)
