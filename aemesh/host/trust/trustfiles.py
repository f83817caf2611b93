"""Trust on disk: who is known, who is revoked, and each change that is made to it.

How the files are read and replaced is `trustio`'s, what a line may say is that of
`trustlines` and `authorizedlines`.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aemesh.errors import KeyChangedError, RefusedError
from aemesh.host.trust.authorizedlines import (
    parse_authorized_untrusted,
    parse_principal_untrusted,
)
from aemesh.host.trust.trustio import change_lines, entries, parse_at, read_lines
from aemesh.host.trust.trustlines import (
    TrustLine,
    VoidLine,
    changed_line,
    known_line,
    line_name,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.model.key import openssh_key_id_untrusted
from aemesh.model.trust import (
    AuthorizedKey,
    KnownPeer,
    Mode,
    PinnedAuthority,
    Principal,
    RevokedKey,
    Role,
    TrustBook,
)
from aemesh.policy.rotation import is_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.names import NodeName

logger = logging.getLogger(__name__)

# Named after whom the lines are about: a master keeps known_workers.
FILES = {Role.WORKER: "known_workers", Role.MASTER: "known_masters"}
AUTHORIZED_FILE = "authorized_masters"
PRINCIPALS_FILE = "gss_principals"
# What a running agent watches; the last two are other modules'.
_WATCHED = (
    *FILES.values(),
    AUTHORIZED_FILE,
    PRINCIPALS_FILE,
    "pending",
    "id_ed25519.next",
)
VERIFIED = "verified"

Stamp = tuple[tuple[int, int, int] | None, ...]
Entry = TrustLine | AuthorizedKey | Principal | VoidLine


@functools.lru_cache(maxsize=1024)
def log_void(path: Path, entry: VoidLine) -> None:
    """Log a void line; the cache makes it once, however often the file is read."""
    logger.warning("%s:%d trusts nobody: %s", path, entry.line, entry.why)


def read_book(
    folder: Path,
    role_of_peers: Role,
    *,
    tell_void: Callable[[Path, VoidLine], None] = log_void,
) -> TrustBook:
    """Return what the trust files about peers of this role say.

    Void lines are left out and told.  A file that others could have changed, or
    with an ``@`` line that cannot be read, raises `TrustFileError`.
    """
    found = _Found()
    for path, entry in _read(folder, role_of_peers):
        if isinstance(entry, VoidLine):
            tell_void(path, entry)
            found.void += path.name != PRINCIPALS_FILE
        else:
            found.add(entry)
    return found.book


def void_lines(folder: Path, role_of_peers: Role) -> tuple[tuple[Path, VoidLine], ...]:
    """Return the lines of the trust files that trust nobody, each with its file."""
    found: list[tuple[Path, VoidLine]] = []
    read_book(folder, role_of_peers, tell_void=lambda *line: found.append(line))
    return tuple(found)


def add(folder: Path, role_of_peers: Role, peer: KnownPeer) -> bool:
    """Remember a peer; return False if it was known so already.

    Raises `KeyChangedError` if its name is known with another key, `RefusedError`
    if its key is revoked or known under another name: then nothing is written.
    """
    path = folder / FILES[role_of_peers]
    text = known_line(peer)

    def change(lines: list[str]) -> list[str] | None:
        return [*lines, text] if _is_new(path, lines, peer) else None

    return change_lines(path, change)


def can_add(folder: Path, role_of_peers: Role, peer: KnownPeer) -> bool:
    """Return, or raise, what `add` would, and change nothing."""
    path = folder / FILES[role_of_peers]
    known_line(peer)
    return _is_new(path, read_lines(path), peer)


def revoke(
    folder: Path, role_of_peers: Role, key: PublicKey, *, comment: str = ""
) -> bool:
    """Refuse a key under every name from now on; False if it was revoked already."""
    return revoke_openssh(folder, role_of_peers, key.openssh, comment=comment)


def revoke_openssh(
    folder: Path, role_of_peers: Role, openssh: str, *, comment: str = ""
) -> bool:
    """Refuse a key of any kind, ``ALGORITHM BASE64``, as `revoke` does.

    Raises `BadMessage` if it is no key.
    """
    path = folder / FILES[role_of_peers]
    algorithm, encoded, *_ = [*openssh.split(), "", ""]
    key_id = openssh_key_id_untrusted(algorithm, encoded)

    def change(lines: list[str]) -> list[str] | None:
        if _book(path, lines).is_revoked(key_id):
            return None
        return [*lines, revoked_line(f"{algorithm} {encoded}", comment)]

    return change_lines(path, change)


def forget(folder: Path, role_of_peers: Role, name_or_key: str) -> tuple[str, ...]:
    """Remove the lines of a name, or of a key ``SHA256:…``; return these lines.

    Void lines of that name go too.  A revoked key stays revoked.
    """
    path = folder / FILES[role_of_peers]
    removed: list[str] = []

    def change(lines: list[str]) -> list[str] | None:
        kept: list[str] = []
        for number, text in enumerate(lines, 1):
            entry = parse_at(path, text, number, parse_line_untrusted)
            by_key = isinstance(entry, KnownPeer) and (
                str(entry.key.key_id) == name_or_key
            )
            gone = by_key or line_name(text) == name_or_key
            (removed if gone else kept).append(text)
        return kept if removed else None

    change_lines(path, change)
    return tuple(removed)


def add_next_key(
    folder: Path, role_of_peers: Role, old: KnownPeer, new: PublicKey, *, day: str
) -> bool:
    """Remember the next key of a known peer beside its old one; False if it is there.

    The new line has what the old one says: how the peer came to be trusted, and its
    terms.  Raises `RefusedError` if this name and old key are not known, were
    written by hand, or if either key is revoked or another change of key is open.
    Only for a session that the *old* key authenticated (threat 30).
    """
    path = folder / FILES[role_of_peers]

    def change(lines: list[str]) -> list[str] | None:
        book = _book(path, lines)
        for key in (old.key, new):
            _refuse_revoked(path, book, old.name, key)
        before = _line_to_follow(path, book, old)
        keys = {peer.key for peer in book.known if peer.name == old.name}
        if new in keys:
            return None
        if len(keys) > 1:
            msg = f"{old.name} is changing its key already"
            raise RefusedError(msg, why=f"{path} has {len(keys)} keys of it")
        _refuse_other_name(path, book, old.name, new)
        return [*lines, known_line(replace(before, key=new, added=day, last=""))]

    return change_lines(path, change)


def drop_key(folder: Path, role_of_peers: Role, old: KnownPeer) -> bool:
    """Remove the old key of a peer whose next one is known.

    Returns False, and removes nothing, if it is not known or is the only one left:
    that would make the next meeting a first one.
    """
    path = folder / FILES[role_of_peers]

    def change(lines: list[str]) -> list[str] | None:
        known = [p for p in _book(path, lines).known if p.name == old.name]
        gone = {peer.line for peer in known if peer.key == old.key}
        if not gone or len(gone) == len(known):
            return None
        return [text for number, text in enumerate(lines, 1) if number not in gone]

    return change_lines(path, change)


def touch_last(
    folder: Path, role_of_peers: Role, key: PublicKey, day: str, *, mode: Mode
) -> bool:
    """Note that a peer was seen on a day, in a mode; return whether anything changed.

    Both only rise: a clock that is set back loses nothing, and a weaker mode does
    not make the peer be taken for a weaker one (T11).  So it is written once a day.
    """

    def changes(peer: KnownPeer) -> dict[str, str]:
        found = {"last": day} if day > peer.last else {}
        if mode.rank > peer.mode.rank:
            found["mode"] = mode.value
        return found

    return _edit(folder / FILES[role_of_peers], key.key_id, changes)


def verify(folder: Path, role_of_peers: Role, key_id: KeyId) -> bool:
    """Note that a person has compared a known key; False if that was noted before.

    Its line says ``via=verified`` from then on; ``verified:hand`` of one that a person
    wrote, which its peer still may not change.
    """

    def changes(peer: KnownPeer) -> dict[str, str]:
        if peer.via.partition(":")[0] == VERIFIED:
            return {}
        return {"via": f"{VERIFIED}:{peer.via}" if is_written(peer) else VERIFIED}

    return _edit(folder / FILES[role_of_peers], key_id, changes)


class TrustFolder:
    """Tells a running agent when somebody changed trust; asking costs five `stat`."""

    def __init__(self, folder: Path, *also: Path) -> None:
        self.folder = folder
        self._paths = (*(folder / name for name in _WATCHED), *also)
        self._seen: Stamp | None = self.stamp()

    def look_again(self) -> None:
        """Take the files for changed: they could not be read."""
        self._seen = None

    def stamp(self) -> Stamp:
        """Return what tells the present files from any later ones."""
        return tuple(map(_stamp, self._paths))

    def changed(self) -> bool:
        """Return whether anything changed since the last call."""
        before, self._seen = self._seen, self.stamp()
        return before != self._seen

    def __repr__(self) -> str:
        return f"TrustFolder({self.folder})"


@dataclass
class _Found:
    """What lines say, sorted by kind."""

    known: list[KnownPeer] = field(default_factory=list)
    revoked: list[RevokedKey] = field(default_factory=list)
    authorized: list[AuthorizedKey] = field(default_factory=list)
    principals: list[Principal] = field(default_factory=list)
    pins: list[PinnedAuthority] = field(default_factory=list)
    void: int = 0

    def add(self, entry: TrustLine | AuthorizedKey | Principal) -> None:
        if isinstance(entry, KnownPeer):
            self.known.append(entry)
        elif isinstance(entry, RevokedKey):
            self.revoked.append(entry)
        elif isinstance(entry, AuthorizedKey):
            self.authorized.append(entry)
        elif isinstance(entry, PinnedAuthority):
            self.pins.append(entry)
        else:
            self.principals.append(entry)

    @property
    def book(self) -> TrustBook:
        return TrustBook(
            tuple(self.known),
            tuple(self.revoked),
            tuple(self.authorized),
            tuple(self.principals),
            tuple(self.pins),
            void=self.void,
        )


def _read(folder: Path, role_of_peers: Role) -> Iterator[tuple[Path, Entry]]:
    """Return what each line of each file about peers of a role says."""
    parsers: dict[str, Callable[[str, int], Entry | None]] = {
        FILES[role_of_peers]: parse_line_untrusted,
        AUTHORIZED_FILE: parse_authorized_untrusted,
        PRINCIPALS_FILE: parse_principal_untrusted,
    }
    if role_of_peers is Role.WORKER:
        del parsers[AUTHORIZED_FILE]  # it stands in a worker's folder only
    for name, parse in parsers.items():
        path = folder / name
        found: Iterator[Entry] = entries(path, read_lines(path), parse)
        for entry in found:
            yield path, entry


def _book(path: Path, lines: list[str]) -> TrustBook:
    found = _Found()
    said: Iterator[TrustLine | VoidLine]
    said = entries(path, lines, parse_line_untrusted)
    for entry in said:
        if not isinstance(entry, VoidLine):
            found.add(entry)
    return found.book


def _edit(
    path: Path, key_id: KeyId, changes: Callable[[KnownPeer], dict[str, str]]
) -> bool:
    """Change options of a key's lines, and nothing else of them."""

    def change(lines: list[str]) -> list[str] | None:
        edited = list(lines)
        for peer in _book(path, lines).known:
            asked = changes(peer) if peer.key.key_id == key_id else {}
            if asked:
                text = changed_line(lines[peer.line - 1], asked)
                parsed = parse_line_untrusted(text, peer.line)
                assert isinstance(parsed, KnownPeer), "our options can be read"
                edited[peer.line - 1] = text
        return edited if edited != lines else None

    return change_lines(path, change)


def _is_new(path: Path, lines: list[str], peer: KnownPeer) -> bool:
    """Return whether a peer has no line yet; raise if the lines forbid to add it."""
    book = _book(path, lines)
    _refuse_revoked(path, book, peer.name, peer.key)
    # While a key is being changed its name has two lines: one of them is enough.
    if any((p.name, p.key) == (peer.name, peer.key) for p in book.known):
        return False
    _refuse_other_key(path, book, peer)
    _refuse_other_name(path, book, peer.name, peer.key)
    return True


def _refuse_revoked(path: Path, book: TrustBook, name: str, key: PublicKey) -> None:
    for dead in book.revoked:
        if dead.key_id == key.key_id:
            what = f"key {key.key_id} of {name} is revoked"
            raise RefusedError(what, why=f"{path}:{dead.line} says so")


def _refuse_other_key(path: Path, book: TrustBook, peer: KnownPeer) -> None:
    known = book.by_name(peer.name)
    if known is not None and known.key != peer.key:
        what = f"{peer.name} has another key, {peer.key.key_id}"
        why = f"{path}:{known.line} knows it as {known.key.key_id}"
        hint = f"if it was set up anew: aemesh trust forget {peer.name}"
        raise KeyChangedError(what, why=why, hint=hint)


def _refuse_other_name(
    path: Path, book: TrustBook, name: NodeName, key: PublicKey
) -> None:
    known = book.by_key(key.key_id)
    if known is not None and known.name != name:
        what = f"key {key.key_id} has another name, {name}"
        why = f"{path}:{known.line} knows it as {known.name}"
        hint = f"if it was renamed: aemesh trust forget {known.name}"
        raise RefusedError(what, why=why, hint=hint)


def _line_to_follow(path: Path, book: TrustBook, old: KnownPeer) -> KnownPeer:
    """Return the line, as it is now, whose key is to be followed by another one."""
    for peer in book.known:
        if (peer.name, peer.key) == (old.name, old.key):
            if not is_written(peer):
                return peer
            what = f"the key of {old.name} is not changed by itself"
            raise RefusedError(what, why=f"{path}:{peer.line} was written by hand")
    what = f"{old.name} is not known with the key {old.key.key_id}"
    raise RefusedError(what, why=f"{path} has no such line")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # Of the inode: a mode that was mended counts, and nobody can set it back.
    return status.st_ctime_ns, status.st_size, status.st_ino
