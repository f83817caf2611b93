"""A group that keeps its size while somebody here needs it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import msgspec

from aemesh.client.transport import error_in
from aemesh.errors import UnreachableError
from aemesh.model.view import HoldView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from aemesh.client.transport import Transport
    from aemesh.model.view import HeldMember


class Hold:
    """A group's members, held; a context manager that lets them go.

    Nobody joins and nobody is moved or given back while it is open; a member may still
    leave, or be lost.  It ends with this process, too.
    """

    def __init__(self, transport: Transport, group: str) -> None:
        """Hold it; raises `UnknownNameError`."""
        self._lines = transport.lines(
            "POST", f"/v1/groups/{quote(group, safe='')}/hold"
        )
        try:
            self.first = self._next()
        except BaseException:
            self.close()
            raise

    @property
    def members(self) -> tuple[HeldMember, ...]:
        """Who was in the group when it began."""
        return self.first.members

    def changes(self) -> Iterator[HoldView]:
        """Yield the members each time they change; waits for that.

        Raises `EngineError` when the group ends, `UnreachableError` with the master.
        """
        while True:
            yield self._next()

    def close(self) -> None:
        """Let the members go; not while another thread waits in `changes`."""
        self._lines.close()

    def _next(self) -> HoldView:
        line = next(self._lines, None)
        if line is None:
            msg = "the master does not hold the group any more"
            raise UnreachableError(msg)
        try:
            return msgspec.json.decode(line, type=HoldView)
        except msgspec.MsgspecError:
            told = error_in(line)
            raise told or UnreachableError(
                "the master's answer cannot be read"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
