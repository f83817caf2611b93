"""A running worker of this machine, and its departure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.client.transport import Transport, in_line
from aemesh.errors import NoWorkerError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.statedir import state_root
from aemesh.model.view import DepartureView
from aemesh.worker.control_wire import Agree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TARGET = "/v1/departure"


class LocalWorker:
    """The worker of one state directory; making it asks nothing."""

    def __init__(self, state: str | Path | None = None) -> None:
        folder = state_root(state) / "worker"
        self._transport = Transport(folder / SOCKET_FILE, absent=NoWorkerError)

    def departure(self) -> DepartureView:
        """Return how its departure stands."""
        return self._transport.ask("GET", _TARGET, answer=DepartureView)

    def leave(self, end: float = 0.0, haste: str = "soon") -> Iterator[DepartureView]:
        """Have it leave at `end` (seconds since 1970; 0.0: soon); yield how it goes.

        The last one has the receipt.
        """
        wish = Agree(end=end, haste=haste)
        for line in self._transport.lines("POST", _TARGET, body=wish):
            yield in_line(line, DepartureView, whose="worker")

    def stay(self) -> DepartureView:
        """Have it stay after all."""
        return self._transport.ask("DELETE", _TARGET, answer=DepartureView)
