"""The next key of a node, beside its present one, and who has taken it.

::

    id_ed25519.next          the key, as `keystore` has the present one
    id_ed25519.next.taken    fingerprints of the peers that have written it down
    id_ed25519.old           after the change: the key before
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.errors import BadMessage, KeyFileError, UnknownNameError
from aemesh.host.keys.keystore import KEY_FILE, Identity, load_key, make_key
from aemesh.host.wholefile import sync_folder, write_whole
from aemesh.model.key import KeyId

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.key import PublicKey

NEXT_FILE = f"{KEY_FILE}.next"
_TAKEN_FILE = f"{NEXT_FILE}.taken"
_OLD_FILE = f"{KEY_FILE}.old"
_PUBLIC_SUFFIXES = (".pub", ".crt")


class NextKey:
    """The key that a node will have; serves `aemesh.net.rotation.NextKey`."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity

    def __repr__(self) -> str:
        return f"NextKey({self.public.key_id}, taken by {len(self.taken)})"

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return self._identity.public

    @property
    def taken(self) -> frozenset[KeyId]:
        """The peers that have written it down."""
        try:
            text = (self._folder / _TAKEN_FILE).read_text("ascii", errors="replace")
        except FileNotFoundError:
            return frozenset()
        found = set()
        for line in text.splitlines():
            try:
                found.add(KeyId.parse_untrusted(line))
            except BadMessage:
                continue
        return frozenset(found)

    def sign(self, message: bytes) -> bytes:
        """Return its signature of `message`."""
        return self._identity.sign(message)

    def is_taken_by(self, peer: KeyId) -> bool:
        """Whether this peer has written it down."""
        return peer in self.taken

    def taken_by(self, peer: KeyId) -> None:
        """Note that this peer has written it down."""
        lines = sorted(map(str, self.taken | {peer}))
        text = "".join(f"{line}\n" for line in lines)
        try:
            write_whole(self._folder / _TAKEN_FILE, text.encode())
        except OSError as error:
            what = f"{self._folder / _TAKEN_FILE} cannot be written"
            raise KeyFileError(what, why=error.strerror) from error


def make_next(folder: Path, name: str) -> NextKey:
    """Return the next key of a node, made if there is none yet."""
    make_key(folder / NEXT_FILE)
    found = read_next(folder, name)
    assert found is not None, "it was made"
    return found


def read_next(folder: Path, name: str) -> NextKey | None:
    """Return the next key of a node; None if there is none."""
    key = load_key(folder / NEXT_FILE)
    return None if key is None else NextKey(folder, Identity(name, key))


def has_next(folder: Path) -> bool:
    """Whether there is a next key; costs a `stat`."""
    return (folder / NEXT_FILE).exists()


def put_in_place(folder: Path) -> None:
    """Make the next key the present one; the one before stays as ``id_ed25519.old``.

    Only while no agent holds the folder.  Raises `UnknownNameError` without a next key.
    """
    if load_key(folder / NEXT_FILE) is None:
        kind = "next key"
        raise UnknownNameError(kind, str(folder / NEXT_FILE), [])
    (folder / KEY_FILE).replace(folder / _OLD_FILE)
    (folder / NEXT_FILE).replace(folder / KEY_FILE)
    # They are of the key before; the next start makes them anew.
    for suffix in _PUBLIC_SUFFIXES:
        (folder / f"{KEY_FILE}{suffix}").unlink(missing_ok=True)
    (folder / _TAKEN_FILE).unlink(missing_ok=True)
    sync_folder(folder)
