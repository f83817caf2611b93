"""``aemesh key``: the public keys of this machine's roles, and their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.certificate import csr, install
from aemesh.cli.key_rotate import rotate
from aemesh.cli.options import json_option, state_option
from aemesh.errors import BadMessage, KeyFileError
from aemesh.host.statedir import state_root
from aemesh.model.key import PublicKey
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from pathlib import Path

# Only the public half is read: to show a key needs no private one.
_PUBLIC_FILE = "id_ed25519.pub"


@click.group()
def key() -> None:
    """Show our keys, and have them certified."""


key.add_command(csr)
key.add_command(install)
key.add_command(rotate)


@key.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    help="Only the key of this role.",
)
@state_option
@json_option
def show(role: str | None, state: str | None, *, as_json: bool) -> None:
    """Show fingerprint, words and OpenSSH line of each key."""
    root = state_root(state)
    roles = [Role(role)] if role else list(Role)
    found = [(one, read) for one in roles if (read := _read(root, one))]
    if not found:
        msg = f"no key in {root}"
        which = role or "worker"
        raise KeyFileError(msg, hint=f"the first `aemesh {which}` makes one")
    shown = [
        {
            "role": one.value,
            "key": str(public.key_id),
            "words": public.key_id.words,
            "openssh": f"{public.openssh} {comment}",
            "file": str(path),
        }
        for one, (public, comment, path) in found
    ]
    ui.records(shown, as_json=as_json)


def _read(root: Path, role: Role) -> tuple[PublicKey, str, Path] | None:
    path = root / role.value / _PUBLIC_FILE
    try:
        words = path.read_text(errors="replace").split(maxsplit=2)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} cannot be read"
        raise KeyFileError(msg, why=error.strerror) from error
    algorithm, encoded, comment = [*words, "", "", ""][:3]
    try:
        return PublicKey.parse_untrusted(algorithm, encoded), comment.strip(), path
    except BadMessage as error:
        msg = f"{path} is no public key"
        raise KeyFileError(
            msg, why=error.what, hint=f"remove it; `aemesh {role.value}` writes it anew"
        ) from None
