"""What the trust files say, as rows that `aemesh trust` shows and chooses among."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh.errors import RefusedError, SettingsError, UnknownNameError
from aemesh.host.statedir import state_root
from aemesh.host.trust import trustfiles
from aemesh.host.trust.auditlog import AuditLog, Change, local_user
from aemesh.host.trust.pending import list_requests
from aemesh.host.trust.trustoptions import terms_words
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.trust import (
    AuthorizedKey,
    KnownPeer,
    PinnedAuthority,
    Principal,
    RevokedKey,
    Role,
    TrustBook,
    TrustRequest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aemesh.host.trust.trustlines import VoidLine

# The comments below which `export` prints lines, and `import` finds them.
SECTIONS = {f"# {file}": role for role, file in trustfiles.FILES.items()}

role_option = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    help="Only peers of this role.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that the files say."""

    state: str  # known, revoked, pending, authorized, principal, pinned, void
    role: Role  # of the peer
    folder: Path
    file: str
    name: str = ""
    key_id: KeyId | None = None
    openssh: str = ""
    via: str = ""
    added: str = ""
    last: str = ""
    terms: str = ""
    why: str = ""
    request: TrustRequest | None = None

    @property
    def key(self) -> PublicKey:
        """The key of a node; raises `BadMessage` if it is of another kind."""
        return PublicKey.parse_untrusted(*self.openssh.split())

    @property
    def id(self) -> str:
        """The short name to type."""
        return "" if self.key_id is None else self.key_id.label[:8]

    @property
    def described(self) -> str:
        """The row as a few words of a sentence."""
        words = "" if self.key_id is None else f' {self.key_id} "{self.key_id.words}"'
        return f"{self.role.value} {self.name}{words}"

    def is_called(self, who: str) -> bool:
        """Whether `who` is its name, id or fingerprint."""
        return bool(who) and who in {self.name, self.id, str(self.key_id)}

    def shown(self) -> dict[str, str]:
        """Return what ``--json`` prints: every field, empty or not."""
        request = self.request
        return {
            "state": self.state,
            "role": self.role.value,
            "name": self.name,
            "id": self.id,
            "key": "" if self.key_id is None else str(self.key_id),
            "words": "" if self.key_id is None else self.key_id.words,
            "via": self.via,
            "added": self.added,
            "last": self.last,
            "terms": self.terms,
            "code": "" if request is None else request.code,
            "tries": "" if request is None else str(request.tries),
            "why": self.why,
            "openssh": self.openssh,
            "file": self.file,
        }


def all_rows(state: str | None, role: str | None) -> list[Row]:
    """Return what both roles' folders say of peers of this role, or of both."""
    rows = []
    for peers, folder in folders(state, role):
        void: list[tuple[Path, VoidLine]] = []
        book = trustfiles.read_book(
            folder, peers, tell_void=lambda *line, found=void: found.append(line)
        )
        rows += _trusted(book, folder, peers) + _pending(folder, peers)
        rows += [_void(path, line, folder, peers) for path, line in void]
    return rows


def folders(state: str | None, role: str | None) -> list[tuple[Role, Path]]:
    """Return the folders that are there, each with the role of the peers in it.

    What we know of peers stands under our role, not under theirs.
    """
    roles = Role if role is None else (Role(role),)
    found = [(peers, state_root(state) / peers.other.value) for peers in roles]
    return [(peers, folder) for peers, folder in found if _is_there(folder)]


def called(rows: Sequence[Row], who: str, kind: str) -> list[Row]:
    """Return the rows that `who` names, or raise `UnknownNameError`."""
    found = [row for row in rows if row.is_called(who)]
    if not found:
        names = dict.fromkeys(row.name or row.id for row in rows)
        raise UnknownNameError(kind, who, [name for name in names if name])
    return found


def one_key(rows: Sequence[Row], who: str) -> Row:
    """Return one of `rows` if all have one key: a name may be an imposter's."""
    keys = {row.key_id: row.id for row in rows}
    if len(keys) > 1:
        msg = f"{len(keys)} different keys go by the name {who}"
        ids = ", ".join(keys.values())
        raise RefusedError(msg, why=ids, hint="compare the words, then give one id")
    return rows[0]


def record(row: Row, action: str, detail: str = "") -> None:
    """Write into the audit log what our user just did."""
    change = Change(action, row.role, row.name, str(row.key_id or ""), detail)
    AuditLog(row.folder).write_change(change, by=local_user(), now=now())


def now() -> float:
    """Return the time of the wall clock, in seconds since 1970."""
    return datetime.now(UTC).timestamp()


def day(at: float) -> str:
    """Return the day of a moment, as trust files have it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d")


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError as error:  # a folder above it that we may not enter
        msg = f"folder {folder} cannot be used"
        raise SettingsError(msg, why=error.strerror) from error


def _trusted(book: TrustBook, folder: Path, peers: Role) -> list[Row]:
    names = {peer.key.key_id: peer.name for peer in book.known}
    return [
        *(_known(peer, folder, peers) for peer in book.known),
        *(_revoked(dead, names, folder, peers) for dead in book.revoked),
        *(_authorized(line, folder, peers) for line in book.authorized),
        *(_principal(line, folder, peers) for line in book.principals),
        *(_pinned(line, folder, peers) for line in book.pins),
    ]


def _known(peer: KnownPeer, folder: Path, peers: Role) -> Row:
    return Row(
        state="known",
        role=peers,
        name=peer.name,
        key_id=peer.key.key_id,
        openssh=peer.key.openssh,
        via=peer.via,
        added=peer.added,
        last=peer.last,
        terms=" ".join(terms_words(peer.terms)),
        folder=folder,
        file=f"{folder / trustfiles.FILES[peers]}:{peer.line}",
    )


def _revoked(
    dead: RevokedKey, names: Mapping[KeyId, str], folder: Path, peers: Role
) -> Row:
    return Row(
        state="revoked",
        role=peers,
        name=names.get(dead.key_id, ""),
        key_id=dead.key_id,
        openssh=dead.openssh,
        why=dead.comment,
        folder=folder,
        file=f"{folder / trustfiles.FILES[peers]}:{dead.line}",
    )


def _authorized(line: AuthorizedKey, folder: Path, peers: Role) -> Row:
    words = terms_words(line.terms)
    if line.principals:
        words.append(f"principals={','.join(line.principals)}")
    return Row(
        state="authorized",
        role=peers,
        name=line.comment,
        key_id=line.key_id,
        openssh=line.openssh,
        via="cert-authority" if line.cert_authority else "",
        terms=" ".join(words),
        folder=folder,
        file=f"{folder / trustfiles.AUTHORIZED_FILE}:{line.line}",
    )


def _pinned(line: PinnedAuthority, folder: Path, peers: Role) -> Row:
    return Row(
        state="pinned",
        role=peers,
        name=line.comment,
        key_id=line.key_id,
        via="cert-authority",
        terms=f"names={','.join(line.names)}",
        folder=folder,
        file=f"{folder / trustfiles.FILES[peers]}:{line.line}",
    )


def _principal(line: Principal, folder: Path, peers: Role) -> Row:
    return Row(
        state="principal",
        role=peers,
        name=line.name,
        terms=" ".join(terms_words(line.terms)),
        folder=folder,
        file=f"{folder / trustfiles.PRINCIPALS_FILE}:{line.line}",
    )


def _void(path: Path, line: VoidLine, folder: Path, peers: Role) -> Row:
    return Row(
        state="void",
        role=peers,
        why=line.why,
        folder=folder,
        file=f"{path}:{line.line}",
    )


def _pending(folder: Path, peers: Role) -> list[Row]:
    return [
        Row(
            state="pending",
            role=request.role,
            name=request.name,
            key_id=request.key.key_id,
            openssh=request.key.openssh,
            via=request.reason.value,
            added=day(request.asked_at),
            folder=folder,
            file=str(folder / "pending" / f"{request.id}.json"),
            request=request,
        )
        for request in list_requests(folder)
        if request.role is peers
    ]
