"""``aemesh trust revoke`` and ``forget``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.options import state_option
from aemesh.cli.trust_rows import (
    Row,
    all_rows,
    called,
    folders,
    one_key,
    record,
    role_option,
)
from aemesh.errors import BadMessage, RefusedError, UsageError
from aemesh.host.statedir import state_folder
from aemesh.host.trust import trustfiles
from aemesh.host.trust.pending import remove_request
from aemesh.model.key import openssh_key_id_untrusted
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a whole line of a key begins with (sshd(8)).
_KEY_TYPES = ("ssh-", "ecdsa-sha2-", "sk-")
# Rows that only an administrator's editor changes.
_BY_EDITOR = {"authorized", "principal"}


@click.command()
@click.argument("who")
@click.option("--comment", default="", help="Why; it is kept in the file.")
@role_option
@state_option
def revoke(who: str, comment: str, role: str | None, state: str | None) -> None:
    """Refuse a key for good, under every name.

    WHO is a name, an id or a fingerprint of `aemesh trust list`, or a whole line
    `ssh-ed25519 AAAA…` of a key that was never seen here: a node's, or a CA's.
    """
    if who.startswith(_KEY_TYPES):
        _revoke(_row_of_line(who, role, state), comment)
        return
    with_key = [row for row in all_rows(state, role) if row.key_id is not None]
    chosen = called(with_key, who, "peer")
    _revoke(one_key(chosen, who), comment)
    for row in chosen:
        if row.request is not None:
            remove_request(row.folder, row.request.id)


@click.command()
@click.argument("who")
@role_option
@state_option
def forget(who: str, role: str | None, state: str | None) -> None:
    """Forget WHO: the next meeting is a first one. A revoked key stays revoked."""
    rows = all_rows(state, role)
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
            record(row, "forget", "a request")
            ui.say(f"forgot the request of {row.described}")
    elif chosen:
        _refuse_to_forget(chosen[0], who)
    elif not _forget_void(who, role, state):
        called(rows, who, "peer")


def _refuse_to_forget(row: Row, who: str) -> None:
    if row.state in _BY_EDITOR:
        msg = f"{who} stands in a file that only people write"
        raise RefusedError(msg, why=row.file, hint="remove the line with an editor")
    msg = f"{who} is revoked, and stays so"
    raise RefusedError(msg, hint=f"`aemesh trust show {who}` names the line")


def _forget_known(rows: Sequence[Row], who: str) -> None:
    for row in rows:
        by = who if who == row.name else str(row.key_id)
        trustfiles.forget(row.folder, row.role, by)
        record(row, "forget")
        ui.say(f"forgot {row.described}")


def _forget_void(who: str, role: str | None, state: str | None) -> bool:
    """Remove lines of this name that trusted nobody; return whether there were any."""
    gone = 0
    for peers, folder in folders(state, role):
        count = len(trustfiles.forget(folder, peers, who))
        if count:
            void = Row(state="void", role=peers, name=who, folder=folder, file="")
            record(void, "forget", f"{count} void lines")
        gone += count
    if gone:
        ui.say(f"removed {gone} void lines of {who}")
    return gone > 0


def _revoke(row: Row, comment: str) -> None:
    changed = trustfiles.revoke_openssh(
        row.folder, row.role, row.openssh, comment=comment
    )
    if changed:
        record(row, "revoke", comment)
        ui.say(f"revoked {row.role.value} key {row.key_id}")
    else:
        ui.say(f"{row.role.value} key {row.key_id} was revoked already")


def _row_of_line(line: str, role: str | None, state: str | None) -> Row:
    if role is None:
        msg = "which role has the key?"
        raise UsageError(msg, hint="add `--role worker` or `--role master`")
    algorithm, encoded, *_ = [*line.split(), ""]
    try:
        key_id = openssh_key_id_untrusted(algorithm, encoded)
    except BadMessage as error:
        raise UsageError(error.what) from None
    peers = Role(role)
    row = Row(state="", role=peers, folder=state_folder(peers.other, state), file="")
    return replace(row, key_id=key_id, openssh=f"{algorithm} {encoded}")
