"""Follows the load of a group of Dask: how many workers it should have by now.

What the load calls for Dask's scheduler says (`adaptive_target`), in worker processes.
More are asked for at once; fewer when it has said so several times, for a pause between
two steps of an analysis is no end.
"""
# distributed runs on asyncio, and is typed as far as it came to be.
# mypy: disable-error-code="union-attr, no-untyped-call"
# ruff: noqa: TID251

from __future__ import annotations

import asyncio
import logging
import math
import threading
from typing import TYPE_CHECKING

from tornado.ioloop import PeriodicCallback

from aemesh.errors import AemeshError

if TYPE_CHECKING:
    from collections.abc import Callable

    import distributed

_log = logging.getLogger(__name__)


class Following:
    """Asks for workers from `start` on, on the loop of a client; `close` it.

    `ask` is called, in a thread, with a number of workers, each of which runs so many
    `processes` of Dask's; `done` at the end.  Spans are in seconds.
    """

    def __init__(  # noqa: PLR0913 - what there is to say, by name
        self,
        client: distributed.Client,
        ask: Callable[[int], object],
        *,
        done: Callable[[], object],
        processes: float,
        minimum: int,
        maximum: int | None,
        every: float = 1.0,
        target_duration: float = 5.0,
        wait_count: int = 3,
    ) -> None:
        self._client = client
        self._ask = ask
        self._done = done
        self._processes = processes
        self._bounds = minimum, math.inf if maximum is None else maximum
        self._target_duration = target_duration
        self._wait_count = wait_count
        self._turn = threading.Lock()  # to ask the master
        self._closed = False
        self._asked: int | None = None
        self._fewer = 0  # times in a row that fewer would do
        self._calls = PeriodicCallback(self._look, every * 1000)

    def start(self) -> None:
        """Begin to look."""
        self._client.loop.add_callback(self._calls.start)

    def __repr__(self) -> str:
        return f"<Following {self._client!r}, {self._asked} workers asked for>"

    def close(self) -> None:
        """Follow no longer, and close the client."""
        self._client.loop.add_callback(self._calls.stop)
        self._client.close()
        with self._turn:  # whoever asks just now has the word before the last one
            self._closed = True
        self._done()

    def _ask_for(self, workers: int) -> None:
        with self._turn:
            if not self._closed:
                self._ask(workers)

    async def _look(self) -> None:
        try:
            processes = await self._client.scheduler.adaptive_target(
                target_duration=f"{self._target_duration}s"
            )
        except OSError:  # it is asked again; the client finds it, or its group ends
            return
        least, most = self._bounds
        workers = int(min(most, max(least, math.ceil(processes / self._processes))))
        if self._asked is None or workers > self._asked:
            self._fewer = 0
        elif workers < self._asked:
            self._fewer += 1
            if self._fewer < self._wait_count:
                return
            self._fewer = 0
        else:
            self._fewer = 0
            return
        try:
            await asyncio.to_thread(self._ask_for, workers)
        except AemeshError as error:  # its master is away: it is asked the next time
            _log.info("%d workers could not be asked for: %s", workers, error)
            return
        self._asked = workers
