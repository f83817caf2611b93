"""Dask's dashboard on the master: its bytes travel in lines of the head's.

The other end is `dask_page.py`.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING

from aemesh.errors import EngineError

if TYPE_CHECKING:
    from aemesh.engines.dask.talk import Talk

# What of a page goes into one line; see `dask_page.py`.
_PAGE_BYTES = 32 * 1024


class DaskPage:
    """A connection to the dashboard, piece by piece over the lines of the head.

    Implements `aemesh.plugin.Page`.
    """

    def __init__(self, head: Talk, number: int) -> None:
        self._head = head
        self._number = number

    def __repr__(self) -> str:
        return f"<DaskPage {self._number} of {self._head.name}>"

    async def send(self, data: bytes) -> None:
        """Say something; returns when it was taken."""
        for at in range(0, len(data), _PAGE_BYTES):
            piece = base64.b64encode(data[at : at + _PAGE_BYTES]).decode()
            await self._head.ask("page-write", page=self._number, data=piece)

    async def receive(self) -> bytes:
        """Return what comes next; empty at the end."""
        said = await self._head.ask("page-read", page=self._number)
        try:
            return base64.b64decode(said.get("data", ""), validate=True)
        except ValueError as error:
            msg = f"{self._head.name} sends no page"
            raise EngineError(msg, why=str(error)) from error

    async def aclose(self) -> None:
        """Close it; a head that has ended has closed it."""
        with suppress(EngineError):
            await self._head.ask("page-close", page=self._number)
