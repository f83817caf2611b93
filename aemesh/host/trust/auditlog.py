"""The audit log: who came in, who did not, and who changed what is trusted.

One JSON line for each verdict, and for each change that a person made by a command.

Lines are only ever appended.  At `limits.AUDIT_LOG_BYTES` the file becomes
``audit.log.1`` and the one before it is gone, so strangers cannot fill the disk
(threat 89).  What strangers say is cut and escaped; nothing secret is written.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import SettingsError, quoted
from aemesh.host.wholefile import locked
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.trust import Peer, Verdict

logger = logging.getLogger(__name__)

_FILE = "audit.log"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Change:
    """What a person did to the trust in one key."""

    action: str  # accept, revoke, forget, import, verify
    role: Role  # of the node whose key it is
    name: str
    key: str  # its fingerprint
    detail: str = ""


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
            "time": _time(now),
            "key": str(peer.key_id),
            "role": peer.role.value,
            "name": _plain(peer.name),
            "mode": peer.mode.value,
            "verdict": verdict.decision.value,
            "reason": verdict.reason.value,
            "detail": _plain(verdict.detail),
            "address": _plain(peer.address),
        }
        self._write(entry)

    def write_change(self, change: Change, *, by: str, now: float) -> None:
        """Write down what the local user `by` did, at `now`, in seconds since 1970."""
        entry = {
            "time": _time(now),
            "key": change.key,
            "role": change.role.value,
            "name": _plain(change.name),
            "change": change.action,
            "by": _plain(by),
            "detail": _plain(change.detail),
        }
        self._write(entry)

    def read(self, *, last: int) -> list[dict[str, str]]:
        """Return the last entries, the oldest first; what is no entry is left out."""
        lines: list[bytes] = []
        for path in (self.path.with_name(f"{_FILE}.1"), self.path):
            try:
                lines += path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                msg = f"{path} cannot be read"
                raise SettingsError(msg, why=error.strerror) from error
        found = [entry for line in lines if (entry := _entry(line)) is not None]
        return found[-last:] if last else []

    def _write(self, entry: dict[str, str]) -> None:
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


def local_user() -> str:
    """Return the name of the user whose process this is; its number if it has none."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _entry(line: bytes) -> dict[str, str] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "time" not in found:
        return None
    return {str(name): str(value) for name, value in found.items()}


def _time(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).isoformat("T", "seconds")


def _plain(text: str) -> str:
    return quoted(text)[1:-1]
