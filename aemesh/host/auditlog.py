"""The audit log: one JSON line for each verdict, for whoever asks later who came in.

Lines are only ever appended.  At `limits.AUDIT_LOG_BYTES` the file becomes
``audit.log.1`` and the one before it is gone, so strangers cannot fill the disk
(threat 89).  What strangers say is cut and escaped; nothing secret is written.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import quoted
from aemesh.host.wholefile import locked

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.trust import Peer, Verdict

logger = logging.getLogger(__name__)

_FILE = "audit.log"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class AuditLog:
    """Appends to ``audit.log`` in a folder; several processes may, at the same time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE

    def write(self, peer: Peer, verdict: Verdict, *, now: float) -> None:
        """Write down what was decided about a peer; `now` is seconds since 1970.

        A full disk is told in the program's log: it stops nobody's work, and lets
        nobody in who would not come in otherwise.
        """
        entry = {
            "time": dt.datetime.fromtimestamp(now, dt.UTC).isoformat("T", "seconds"),
            "key": str(peer.key_id),
            "role": peer.role.value,
            "name": _plain(peer.name),
            "mode": peer.mode.value,
            "verdict": verdict.decision.value,
            "reason": verdict.reason.value,
            "detail": _plain(verdict.detail),
            "address": _plain(peer.address),
        }
        try:
            self._append(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path, error.strerror)

    def _append(self, line: bytes) -> None:
        with locked(self.path.with_name(f".{_FILE}.lock")):
            fd = os.open(self.path, _FLAGS, 0o600)
            try:
                if os.fstat(fd).st_size + len(line) > limits.AUDIT_LOG_BYTES:
                    fd = self._rotate(fd)
                os.write(fd, line)
            finally:
                os.close(fd)

    def _rotate(self, fd: int) -> int:
        self.path.replace(self.path.with_name(f"{_FILE}.1"))
        fresh = os.open(self.path, _FLAGS, 0o600)
        os.dup2(fresh, fd, inheritable=False)
        os.close(fresh)
        return fd

    def __repr__(self) -> str:
        return f"AuditLog({self.path})"


def _plain(text: str) -> str:
    return quoted(text)[1:-1]
