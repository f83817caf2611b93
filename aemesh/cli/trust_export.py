"""``aemesh trust export``: lines for the trust files of other machines.

They hold public keys, names and terms; *how* a key came to be trusted is everybody's
own business.  Each part stands below a comment that names its file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.options import state_option
from aemesh.cli.trust_rows import SECTIONS, Row, all_rows, called, role_option
from aemesh.errors import BadMessage, KeyFileError, SettingsError
from aemesh.host.statedir import state_root
from aemesh.model.key import PublicKey
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PUBLIC_FILE = "id_ed25519.pub"


@click.command()
@click.argument("who", nargs=-1)
@click.option("--own", is_flag=True, help="The keys of this machine's own roles.")
@role_option
@state_option
def export(
    who: tuple[str, ...], role: str | None, state: str | None, *, own: bool
) -> None:
    """Print lines for the trust files of others: of WHO is known here, or of all.

    `--own` prints this machine's own keys instead: the worker's is a line for the
    masters' known_workers, the master's one for the workers' known_masters.
    """
    lines: dict[Role, list[str]] = {one: [] for one in Role}
    if own:
        for one in Role if role is None else (Role(role),):
            lines[one] += _own_line(state_root(state) / one.value)
    if who or not own:
        for row in _chosen(all_rows(state, role), who):
            lines[row.role].append(f"{row.name} {row.openssh} {row.terms}".rstrip())
    if not any(lines.values()):
        what = "no key was made here yet" if own else "nobody is known here"
        raise SettingsError(what)
    for section, about in SECTIONS.items():
        for text in (section, *lines[about]) if lines[about] else ():
            ui.write(text)


def _own_line(folder: Path) -> list[str]:
    """Return the line of our own key of a role, if it has one."""
    path = folder / _PUBLIC_FILE
    try:
        words = path.read_text(errors="replace").split()
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"{path} cannot be read"
        raise KeyFileError(msg, why=error.strerror) from error
    algorithm, encoded, name = [*words, "", "", ""][:3]
    try:
        key = PublicKey.parse_untrusted(algorithm, encoded)
        return [f"{node_name_untrusted(name)} {key.openssh}"]
    except BadMessage as error:
        msg = f"{path} is no public key with a name"
        raise KeyFileError(msg, why=error.what) from None


def _chosen(rows: Sequence[Row], who: Sequence[str]) -> list[Row]:
    revoked = {row.key_id for row in rows if row.state == "revoked"}
    known = [row for row in rows if row.state == "known" and row.key_id not in revoked]
    if not who:
        return known
    asked = [row for one in who for row in called(known, one, "peer")]
    return list(dict.fromkeys(asked))
