"""The socket of a node: who comes when it is crowded."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from aemesh.host.control import sockets
from aemesh.host.control.sockets import connected, listening

if TYPE_CHECKING:
    import socket
    from pathlib import Path


def test_who_comes_when_it_is_crowded_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "BACKLOG", 0)
    came: list[socket.socket] = []
    with ExitStack() as stack:
        door = stack.enter_context(listening(tmp_path / "run" / "sock"))
        path = tmp_path / "run" / "sock"

        def come(timeout_after: float) -> None:
            came.append(stack.enter_context(connected(path, timeout_after)))

        come(10.0)
        with pytest.raises(TimeoutError):
            come(0.01)
        late = threading.Thread(target=come, args=(10.0,))
        late.start()
        stack.enter_context(door.accept()[0])
        late.join(10)

    assert [one.gettimeout() for one in came] == [10.0, 10.0]
