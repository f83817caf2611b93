"""What the rest of aemesh asks of a network; real TCP or one in memory.

`aemesh.net.tcp` and `aemesh.testing.memory_network` are held to the same checks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from aemesh import limits
from aemesh.model.address import Address


@dataclass(frozen=True, slots=True)
class Connection:
    """A byte stream, and both its ends; a silent peer is lost after some seconds."""

    stream: trio.abc.Stream
    local: Address
    remote: Address
    lost_after: float = limits.LOST_AFTER


Handler = Callable[[Connection], Awaitable[None]]


class Network(Protocol):
    """A way to reach and to be reached."""

    async def dial(self, address: Address) -> Connection:
        """Connect; raises `UnreachableError`."""

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """Return where a host is that a person named; raises `UnreachableError`."""

    async def serve(
        self,
        handler: Handler,
        *,
        port: int | None,
        hosts: tuple[str, ...] = (),
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until cancelled, each connection in a task of its own.

        Reports the port: 0 is the usual one if it is free, None any other.  `hosts`
        are the addresses to listen on, all of them if empty.  `handler` owns its
        connection and raises nothing.
        """
