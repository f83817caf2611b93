"""A group that keeps its size while somebody here needs it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from aemesh.client.targets import group_target
from aemesh.client.transport import in_line
from aemesh.errors import UnreachableError
from aemesh.model.view import HoldView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aemesh.client.transport import Transport
    from aemesh.model.view import HeldMember

_READ_BYTES = 64 * 1024


class Hold:
    """A group's members, held; a context manager that lets them go.

    Nobody joins and nobody is moved or given back while it is open; a member may still
    leave, or be lost.  It ends with this process, too.
    """

    def __init__(self, transport: Transport, group: str) -> None:
        """Hold it; raises `UnknownNameError`."""
        self._talk = transport.talk("POST", group_target(group, "hold"), b"")
        self._rest = b""
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

        Raises `EngineError` when the group ends, and `UnreachableError` when the
        master does, or `close` is called by another thread.
        """
        while True:
            yield self._next()

    def close(self) -> None:
        """Let the members go; from any thread."""
        self._talk.hang_up()

    def _next(self) -> HoldView:
        while b"\n" not in self._rest:
            data = self._talk.read(_READ_BYTES)
            if not data:
                msg = "the master does not hold the group any more"
                raise UnreachableError(msg)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return in_line(line, HoldView)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
