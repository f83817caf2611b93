"""``aemesh key csr`` and ``install``: have a role's key certified, for mode x509."""

from __future__ import annotations

import time
from pathlib import Path

import click

from aemesh.cli import ui
from aemesh.cli.node import node_name
from aemesh.cli.options import json_option, state_option
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.site.x509install import Given
from aemesh.host.site.x509install import install as put_in_place
from aemesh.host.statedir import state_folder
from aemesh.model.trust import Role

_role_option = click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="Our role whose key it is.",
)
_path = click.Path(path_type=Path)


@click.command()
@_role_option
@click.option("--name", metavar="NAME", help="Our name, not the host's.")
@state_option
def csr(role: str, name: str | None, state: str | None) -> None:
    """Print a request for a certificate of the node's own key.

    The key is made if there is none.  A CA may take the key alone from it:
    `aemesh ca issue --csr FILE` does.
    """
    folder = state_folder(Role(role), state)
    identity = load_or_make(folder, node_name(name))
    ui.write(identity.request().rstrip())


@click.command()
@_role_option
@click.argument("certificate", metavar="CERT", type=_path)
@click.option("--key", type=_path, help="The key that CERT is over.")
@click.option(
    "--site", type=_path, help="Folder with the site's CAs, crl.pem and site.toml."
)
@state_option
@json_option
def install(
    role: str,
    certificate: Path,
    state: str | None,
    *,
    as_json: bool,
    **given: Path | None,
) -> None:
    """Put a certificate, and the site's files, in place for mode x509.

    CERT is a PEM chain, leaf first.  Without --key it is over the node's own key,
    or over the one that is in place.  Nothing is changed unless all fits together.
    """
    folder = state_folder(Role(role), state)
    done = put_in_place(
        folder,
        Role(role),
        Given(certificate, **given),
        identity=load_or_make(folder, node_name(None)),
        now=time.time(),
    )
    for path in done.written:
        ui.say(f"wrote {path}")
    for path in done.removed:
        ui.say(f"removed {path}: the node's own key is certified now")
    claim = done.credentials.claim
    shown = {
        "identity": claim.identity,
        "role": role,
        "name": claim.name,
        "key": str(claim.key_id),
        "words": claim.key_id.words,
        "file": str(folder / "x509" / "id.crt"),
    }
    ui.records([shown], as_json=as_json)
