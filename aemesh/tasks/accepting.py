"""Accepting connections, also when files run out: nobody may end us by dialling."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.socket import SocketType

_log = logging.getLogger(__name__)

# When file descriptors run out, accepting goes on after a breath (as trio does).
_BREATH_AFTER = 0.1
_OUT_OF_SOMETHING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


async def accept(listener: SocketType) -> SocketType:
    """Return the next connection, however often the kernel has none to give."""
    paused = False
    while True:
        try:
            sock, _ = await listener.accept()
        except OSError as exc:
            if exc.errno in _OUT_OF_SOMETHING:
                if not paused:  # told once, not ten times a second
                    _log.warning("accepting pauses: %s", exc.strerror)
                paused = True
                await trio.sleep(_BREATH_AFTER)
        else:
            return sock
