"""``aemesh trust``: see and decide who is trusted, beside a running agent or without.

It works on the files of the state directory; a running worker or master watches
them.  A machine that is both keeps two sets: as a master it remembers workers, as a
worker it remembers masters.  ``--role`` is the role of the *other* side.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.cli.trust_token import token
from aemesh.errors import (
    AemeshError,
    BadMessage,
    RefusedError,
    SettingsError,
    UnknownNameError,
    UsageError,
)
from aemesh.host import trustfiles
from aemesh.host.pending import list_requests, remove_request
from aemesh.host.statedir import state_folder, state_root
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Role, TrustRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

_role_option = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    help="Only peers of this role.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that the files say of one peer."""

    state: str  # known, revoked, pending
    role: Role  # of the peer
    name: str
    key_id: KeyId
    openssh: str
    folder: Path
    file: str
    via: str = ""
    added: str = ""
    request: TrustRequest | None = None

    @property
    def key(self) -> PublicKey:
        """The key of a node; raises `BadMessage` if it is of another kind."""
        return PublicKey.parse_untrusted(*self.openssh.split())

    @property
    def id(self) -> str:
        """The short name to type."""
        return self.key_id.label[:8]

    def is_called(self, who: str) -> bool:
        """Whether `who` is its name, id or fingerprint."""
        return who in {self.name, self.id, str(self.key_id)}

    def shown(self) -> dict[str, str]:
        """Return what `show` and ``--json`` print."""
        return {
            "state": self.state,
            "role": self.role.value,
            "name": self.name,
            "id": self.id,
            "key": str(self.key_id),
            "words": self.key_id.words,
            "via": self.via,
            "added": self.added,
            "openssh": self.openssh,
            "file": self.file,
        }


@click.group()
def trust() -> None:
    """See and decide who is trusted."""


trust.add_command(token)


@trust.command("list")
@_role_option
@state_option
@json_option
def list_(role: str | None, state: str | None, *, as_json: bool) -> None:
    """List who is known, revoked, or waits to be accepted."""
    rows = _rows(state, role)
    if as_json:
        for row in rows:
            ui.write_json(row.shown())
        return
    if not rows:
        ui.say("nobody is known, revoked or waiting")
        return
    heads = ("STATE", "ROLE", "NAME", "ID", "KEY", "WORDS", "VIA", "ADDED")
    ui.table(heads, ([row.shown()[head.lower()] for head in heads] for row in rows))


@trust.command()
@click.argument("who")
@_role_option
@state_option
@json_option
def show(who: str, role: str | None, state: str | None, *, as_json: bool) -> None:
    """Show all that is known of WHO: a name, an id or a fingerprint."""
    ui.records(
        [row.shown() for row in _called(_rows(state, role), who, "peer")],
        as_json=as_json,
    )


@trust.command()
@click.argument("who", required=False)
@click.option("--all", "everybody", is_flag=True, help="Accept whoever waits now.")
@_role_option
@state_option
def accept(
    who: str | None, role: str | None, state: str | None, *, everybody: bool
) -> int:
    """Accept WHO waits: an id, a name or a fingerprint of `aemesh trust list`."""
    if (who is None) is not everybody:
        msg = "accept whom? one ID, NAME or fingerprint, or --all"
        raise UsageError(msg, hint="`aemesh trust list` shows who waits")
    waiting = [row for row in _rows(state, role) if row.request is not None]
    if who is not None:
        _accept(_one_key(_called(waiting, who, "request"), who))
        return 0
    if not waiting:
        ui.say("nobody waits")
    names = dict.fromkeys(row.name for row in waiting)
    return max((_accept_name(waiting, name) for name in names), default=0)


@trust.command()
@click.argument("who")
@click.option("--comment", default="", help="Why; it is kept in the file.")
@_role_option
@state_option
def revoke(who: str, comment: str, role: str | None, state: str | None) -> None:
    """Refuse a key for good, under every name.

    WHO is a name, an id or a fingerprint of `aemesh trust list`, or a whole line
    `ssh-ed25519 AAAA…` of a key that was never seen here.
    """
    if who.startswith("ssh-"):
        _revoke_line(who, comment, role, state)
        return
    chosen = _called(_rows(state, role), who, "peer")
    one = _one_key(chosen, who)
    _revoke(one.folder, one.role, one.key, comment)
    for row in chosen:
        if row.request is not None:
            remove_request(row.folder, row.request.id)


@trust.command()
@click.argument("who")
@_role_option
@state_option
def forget(who: str, role: str | None, state: str | None) -> None:
    """Forget WHO: the next meeting is a first one. A revoked key stays revoked."""
    rows = _rows(state, role)
    chosen = [row for row in rows if row.is_called(who)]
    # A name that comes with a new key waits under the same name: the old key is
    # what is to be forgotten, and the request is to be seen again.
    known = [row for row in chosen if row.state == "known"]
    pending = [row for row in chosen if row.request is not None]
    if known:
        _forget_known(known, who)
    elif pending:
        for row in pending:
            remove_request(row.folder, row.id)
            ui.say(f"forgot the request of {_described(row)}")
    elif chosen:
        msg = f"{who} is revoked, and stays so"
        raise RefusedError(msg, hint=f"`aemesh trust show {who}` names the line")
    elif not _forget_void(who, role, state):
        _called(rows, who, "peer")


# --- what the files say -----------------------------------------------------


def _rows(state: str | None, role: str | None) -> list[Row]:
    """Return what both roles' folders say of peers of this role, or of both."""
    rows = []
    for peers in Role if role is None else (Role(role),):
        folder = _folder(state, peers)
        if _is_there(folder):
            rows += _known(folder, peers) + _pending(folder, peers)
    return rows


def _folder(state: str | None, peers: Role) -> Path:
    """Return where we keep what we know of these peers: under our role, not theirs."""
    return state_root(state) / peers.other.value


def _is_there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError as error:  # a folder above it that we may not enter
        msg = f"folder {folder} cannot be used"
        raise SettingsError(msg, why=error.strerror) from error


def _known(folder: Path, peers: Role) -> list[Row]:
    book = trustfiles.read_book(folder, peers)
    path = folder / trustfiles.FILES[peers]
    known = [
        Row(
            state="known",
            role=peers,
            name=peer.name,
            key_id=peer.key.key_id,
            openssh=peer.key.openssh,
            via=peer.via,
            added=peer.added,
            folder=folder,
            file=f"{path}:{peer.line}",
        )
        for peer in book.known
    ]
    names = {peer.key.key_id: peer.name for peer in book.known}
    revoked = [
        Row(
            state="revoked",
            role=peers,
            name=names.get(dead.key_id, ""),
            key_id=dead.key_id,
            openssh=dead.openssh,
            folder=folder,
            file=f"{path}:{dead.line}",
        )
        for dead in book.revoked
    ]
    return known + revoked


def _pending(folder: Path, peers: Role) -> list[Row]:
    return [
        Row(
            state="pending",
            role=request.role,
            name=request.name,
            key_id=request.key.key_id,
            openssh=request.key.openssh,
            via=request.reason.value,
            added=_day(request.asked_at),
            folder=folder,
            file=str(folder / "pending" / f"{request.id}.json"),
            request=request,
        )
        for request in list_requests(folder)
        if request.role is peers
    ]


def _called(rows: Sequence[Row], who: str, kind: str) -> list[Row]:
    found = [row for row in rows if row.is_called(who)]
    if not found:
        names = dict.fromkeys(row.name or row.id for row in rows)
        raise UnknownNameError(kind, who, list(names))
    return found


def _one_key(rows: Sequence[Row], who: str) -> Row:
    """Return one of `rows` if all have one key: a name may be an imposter's."""
    keys = {row.key_id: row.id for row in rows}
    if len(keys) > 1:
        msg = f"{len(keys)} different keys go by the name {who}"
        ids = ", ".join(keys.values())
        raise RefusedError(msg, why=ids, hint="compare the words, then give one id")
    return rows[0]


# --- changes ----------------------------------------------------------------


def _accept(row: Row) -> None:
    peer = KnownPeer(
        name=NodeName(row.name), key=row.key, via="accept", added=_day(_now())
    )
    trustfiles.add(row.folder, row.role, peer)
    remove_request(row.folder, row.id)
    ui.say(f"accepted {_described(row)}")


def _accept_name(waiting: Sequence[Row], name: str) -> int:
    """Accept who waits under a name; one that cannot be does not stop the others."""
    try:
        _accept(_one_key(_called(waiting, name, "request"), name))
    except AemeshError as error:
        return ui.error(error)
    return 0


def _forget_known(rows: Sequence[Row], who: str) -> None:
    for row in rows:
        by = who if who == row.name else str(row.key_id)
        trustfiles.forget(row.folder, row.role, by)
        ui.say(f"forgot {_described(row)}")


def _forget_void(who: str, role: str | None, state: str | None) -> bool:
    """Remove lines of this name that trusted nobody; return whether there were any."""
    gone = 0
    for peers in Role if role is None else (Role(role),):
        folder = _folder(state, peers)
        if _is_there(folder):
            gone += len(trustfiles.forget(folder, peers, who))
    if gone:
        ui.say(f"removed {gone} void lines of {who}")
    return gone > 0


def _described(row: Row) -> str:
    key = row.key_id
    return f'{row.role.value} {row.name} {key} "{key.words}"'


def _revoke(folder: Path, role: Role, key: PublicKey, comment: str) -> None:
    if trustfiles.revoke(folder, role, key, comment=comment):
        ui.say(f"revoked {role.value} key {key.key_id}")
    else:
        ui.say(f"{role.value} key {key.key_id} was revoked already")


def _revoke_line(line: str, comment: str, role: str | None, state: str | None) -> None:
    if role is None:
        msg = "which role has the key?"
        raise UsageError(msg, hint="add `--role worker` or `--role master`")
    algorithm, encoded, *_ = [*line.split(), ""]
    try:
        key = PublicKey.parse_untrusted(algorithm, encoded)
    except BadMessage as error:
        raise UsageError(error.what) from None
    peers = Role(role)
    _revoke(state_folder(peers.other, state), peers, key, comment)


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d")
