"""Trust on disk: who is known, who is revoked, read whole and changed under a lock.

The agent and the command line change these files at the same time.  So each change
takes the lock, reads the file again, checks against what it finds there, and puts
a whole new file in place: no line is lost, none is cut in half (threat 32).
A change waits for the lock, milliseconds; nothing here is async.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import KeyChangedError, RefusedError, TrustFileError
from aemesh.host.folders import check_folder, check_owned
from aemesh.host.trustlines import (
    RefusedLineError,
    VoidLine,
    known_line,
    line_name,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.host.wholefile import locked, write_whole
from aemesh.model.trust import KnownPeer, RevokedKey, Role, TrustBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aemesh.model.key import PublicKey

logger = logging.getLogger(__name__)

# Named after whom the lines are about: a master keeps known_workers.
FILES = {Role.WORKER: "known_workers", Role.MASTER: "known_masters"}
# What a running agent watches; the last two are other modules' files.
_WATCHED = (*FILES.values(), "authorized_masters", "pending", "id_ed25519.next")

Stamp = tuple[tuple[int, int, int] | None, ...]


def read_book(folder: Path, role_of_peers: Role) -> TrustBook:
    """Return what the trust file about peers of this role says.

    Void lines are left out and logged.  A file that others could have changed, or
    with an ``@`` line that cannot be read, raises `TrustFileError`.
    """
    path = folder / FILES[role_of_peers]
    known: list[KnownPeer] = []
    revoked: list[RevokedKey] = []
    for entry in _entries(path, _read_lines(path)):
        if isinstance(entry, KnownPeer):
            known.append(entry)
        elif isinstance(entry, RevokedKey):
            revoked.append(entry)
        else:
            logger.warning("%s:%d trusts nobody: %s", path, entry.line, entry.why)
    return TrustBook(tuple(known), tuple(revoked))


def add(folder: Path, role_of_peers: Role, peer: KnownPeer) -> bool:
    """Remember a peer; return False if it was known so already.

    Raises `KeyChangedError` if its name is known with another key, `RefusedError`
    if its key is revoked or known under another name: then nothing is written.
    """
    path = folder / FILES[role_of_peers]
    text = known_line(peer)

    def change(lines: list[str]) -> list[str] | None:
        for entry in _entries(path, lines):
            if _is_same(path, entry, peer):
                return None
        return [*lines, text]

    return _change(path, change)


def revoke(
    folder: Path, role_of_peers: Role, key: PublicKey, *, comment: str = ""
) -> bool:
    """Refuse a key under every name from now on; False if it was revoked already."""
    path = folder / FILES[role_of_peers]

    def change(lines: list[str]) -> list[str] | None:
        for entry in _entries(path, lines):
            if isinstance(entry, RevokedKey) and entry.key_id == key.key_id:
                return None
        return [*lines, revoked_line(key.openssh, comment)]

    return _change(path, change)


def forget(folder: Path, role_of_peers: Role, name_or_key: str) -> tuple[str, ...]:
    """Remove the lines of a name, or of a key ``SHA256:…``; return these lines.

    Void lines of that name go too.  A revoked key stays revoked.
    """
    path = folder / FILES[role_of_peers]
    removed: list[str] = []

    def change(lines: list[str]) -> list[str] | None:
        kept: list[str] = []
        for number, text in enumerate(lines, 1):
            entry = _entry(path, text, number)
            by_key = isinstance(entry, KnownPeer) and (
                str(entry.key.key_id) == name_or_key
            )
            gone = by_key or line_name(text) == name_or_key
            (removed if gone else kept).append(text)
        return kept if removed else None

    _change(path, change)
    return tuple(removed)


class TrustFolder:
    """Tells a running agent when somebody changed trust; asking costs four `stat`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: Stamp | None = self.stamp()

    def look_again(self) -> None:
        """Take the files for changed: they could not be read."""
        self._seen = None

    def stamp(self) -> Stamp:
        """Return what tells the present files from any later ones."""
        return tuple(_stamp(self.folder / name) for name in _WATCHED)

    def changed(self) -> bool:
        """Return whether anything changed since the last call."""
        before, self._seen = self._seen, self.stamp()
        return before != self._seen

    def __repr__(self) -> str:
        return f"TrustFolder({self.folder})"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_same(
    path: Path, entry: KnownPeer | RevokedKey | VoidLine, peer: KnownPeer
) -> bool:
    """Return whether `entry` is this peer; raise if it forbids to add the peer."""
    if isinstance(entry, VoidLine):
        return False
    where = f"{path}:{entry.line}"
    if isinstance(entry, RevokedKey):
        if entry.key_id == peer.key.key_id:
            what = f"key {peer.key.key_id} of {peer.name} is revoked"
            raise RefusedError(what, why=f"{where} says so")
        return False
    if (entry.name, entry.key) == (peer.name, peer.key):
        return True
    if entry.name == peer.name:
        what = f"{peer.name} has another key, {peer.key.key_id}"
        why = f"{where} knows it as {entry.key.key_id}"
        hint = f"if it was set up anew: aemesh trust forget {peer.name}"
        raise KeyChangedError(what, why=why, hint=hint)
    if entry.key == peer.key:
        what = f"key {peer.key.key_id} has another name, {peer.name}"
        why = f"{where} knows it as {entry.name}"
        hint = f"if it was renamed: aemesh trust forget {entry.name}"
        raise RefusedError(what, why=why, hint=hint)
    return False


def _change(path: Path, change: Callable[[list[str]], list[str] | None]) -> bool:
    """Put what `change` makes of the lines in place, under the lock."""
    check_folder(path.parent, error=TrustFileError)
    with locked(path.with_name(f".{path.name}.lock")):
        lines = change(_read_lines(path))
        if lines is None:
            return False
        text = "".join(f"{line}\n" for line in lines)
        write_whole(path, text.encode(errors="surrogateescape"))
    return True


def _entries(
    path: Path, lines: list[str]
) -> Iterator[KnownPeer | RevokedKey | VoidLine]:
    for number, text in enumerate(lines, 1):
        entry = _entry(path, text, number)
        if entry is not None:
            yield entry


def _entry(
    path: Path, text: str, number: int
) -> KnownPeer | RevokedKey | VoidLine | None:
    try:
        return parse_line_untrusted(text, number)
    except RefusedLineError as error:
        what = f"{path}:{number} cannot be read"
        hint = f"edit line {number} of {path}"
        raise TrustFileError(what, why=str(error), hint=hint) from None


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a trust file that only we could have written."""
    check_folder(path.parent, error=TrustFileError)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as file:
        check_owned(path, os.fstat(fd), error=TrustFileError)
        data = file.read(limits.TRUST_FILE_BYTES + 1)
    if len(data) > limits.TRUST_FILE_BYTES:
        what = f"{path} is too long"
        raise TrustFileError(what, why=f"expected {limits.TRUST_FILE_BYTES} bytes")
    # Split at "\n" only: what Unicode calls a line break is not one to OpenSSH.
    # Bytes that are no UTF-8 make their line void, and are written back as they were.
    lines = data.decode(errors="surrogateescape").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def touch_last(folder: Path, role_of_peers: Role, key: PublicKey, *, day: str) -> None:
    """Stub."""


def add_next_key(
    folder: Path, role_of_peers: Role, line: KnownPeer, *, present: PublicKey
) -> None:
    """Stub."""


def drop_key(folder: Path, role_of_peers: Role, key: PublicKey) -> None:
    """Stub."""
