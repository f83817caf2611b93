"""``aemesh trust import``: trust the keys that another machine exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh import limits
from aemesh.cli import ui
from aemesh.cli.options import assent_option, state_option
from aemesh.cli.trust_rows import SECTIONS, Row, day, now, record, role_option
from aemesh.errors import (
    AemeshError,
    RefusedError,
    SettingsError,
    TrustFileError,
    UsageError,
)
from aemesh.host.statedir import state_folder
from aemesh.host.trust import trustfiles
from aemesh.host.trust.trustio import parse_at, split_lines
from aemesh.host.trust.trustlines import TrustLine, VoidLine, parse_line_untrusted
from aemesh.host.trust.trustoptions import terms_words
from aemesh.model.trust import KnownPeer, PinnedAuthority, RevokedKey, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@click.command("import")
@click.argument("file", default="-", metavar="[FILE | -]")
@assent_option("--yes", "yes", "Trust what is new without a question.")
@role_option
@state_option
def import_(file: str, role: str | None, state: str | None, *, yes: bool) -> int:
    """Trust the keys of lines that `aemesh trust export` printed elsewhere.

    What is new is shown first.  A name that is known with another key and a revoked
    key are refused; lines that cannot be read are named.  Lines without a comment
    that names their file need `--role`.
    """
    path = Path("stdin" if file == "-" else file)
    found = list(_parse(path, _read(file), role))
    new, code = _sort(found, state)
    if not new:
        ui.say("nothing new")
        return code
    for one in new:
        ui.say(f"new: {one.described}")
    if not (yes or _is_wanted(len(new))):
        msg = "nothing was imported"
        raise RefusedError(msg, why="the answer was no")
    return max(code, *(_add(one) for one in new))


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of an imported file: a peer, or why it is none."""

    role: Role
    where: str
    peer: KnownPeer | None
    why: str = ""


def _read(file: str) -> list[str]:
    """Return the lines of a file or of the standard input, up to a bound."""
    try:
        with click.open_file(file, "rb") as stream:
            data = stream.read(limits.TRUST_FILE_BYTES + 1)
    except OSError as error:
        msg = f"{file} cannot be read"
        raise SettingsError(msg, why=error.strerror) from error
    if len(data) > limits.TRUST_FILE_BYTES:
        msg = f"{file} is too long"
        raise TrustFileError(msg, why=f"expected {limits.TRUST_FILE_BYTES} bytes")
    return split_lines(data)


def _parse(path: Path, lines: Sequence[str], role: str | None) -> Iterator[_Line]:
    section: Role | None = None
    for number, text in enumerate(lines, 1):
        section = SECTIONS.get(text.strip(), section)
        entry = parse_at(path, text, number, parse_line_untrusted)
        if entry is None:
            continue
        about = section or (Role(role) if role else None)
        if about is None:
            msg = f"{path}:{number} does not say whether it is a worker's or a master's"
            raise UsageError(msg, hint="add `--role worker` or `--role master`")
        if role is None or about is Role(role):
            yield _line(about, f"{path}:{number}", entry)


def _line(role: Role, where: str, entry: TrustLine | VoidLine) -> _Line:
    if isinstance(entry, VoidLine):
        return _Line(role, where, None, f"trusts nobody: {entry.why}")
    if isinstance(entry, RevokedKey):
        why = f"is not imported: revoke {entry.key_id} by `aemesh trust revoke`"
        return _Line(role, where, None, why)
    if isinstance(entry, PinnedAuthority):
        why = "is not imported: a CA is pinned by the administrator's own hand"
        return _Line(role, where, None, why)
    return _Line(role, where, entry)


@dataclass(frozen=True, slots=True)
class _New:
    """A peer that would be new, and the folder that it would be written in."""

    folder: Path
    line: _Line
    peer: KnownPeer

    @property
    def row(self) -> Row:
        """What the audit log says of it."""
        return Row(
            state="known",
            role=self.line.role,
            name=self.peer.name,
            key_id=self.peer.key.key_id,
            folder=self.folder,
            file=self.line.where,
        )

    @property
    def described(self) -> str:
        terms = " ".join(terms_words(self.peer.terms))
        return self.row.described + (f", {terms}" if terms else "")


def _sort(lines: Sequence[_Line], state: str | None) -> tuple[list[_New], int]:
    """Return what is new, and the exit code that the rest comes to; say why."""
    new: list[_New] = []
    code = 0
    for line in lines:
        if line.peer is None:
            ui.warn(f"{line.where} {line.why}")
            code = max(code, SettingsError.exit_code)
            continue
        folder = state_folder(line.role.other, state)
        try:
            peer = replace(line.peer, via="import", added=day(now()), last="", line=0)
            if trustfiles.can_add(folder, line.role, peer):
                new.append(_New(folder, line, peer))
        except RefusedError as error:
            told = RefusedError(f"{line.where}: {error.what}", why=error.why)
            code = max(code, ui.error(told))
    return new, code


def _is_wanted(count: int) -> bool:
    if not ui.can_ask():
        msg = "nothing was imported: there is no terminal to ask on"
        raise UsageError(msg, hint="look at the fingerprints, then add --yes")
    import trio  # noqa: PLC0415

    return trio.run(ui.ask, f"Trust {'this key' if count == 1 else 'these keys'}?")


def _add(one: _New) -> int:
    """Add one; return the exit code, for one that cannot be stops no others."""
    try:
        trustfiles.add(one.folder, one.line.role, one.peer)
    except AemeshError as error:
        return ui.error(error)
    record(one.row, "import", f"from {Path(one.line.where).name}")
    ui.say(f"imported {one.described}")
    return 0
