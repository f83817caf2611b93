"""``aemesh ca``: a site's own two CAs, for those that have no other PKI.

The passphrase of their keys is asked on a terminal, or read from a file that is
private; a CA may have none, and is told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aemesh.cli import ui
from aemesh.cli.options import json_option
from aemesh.cli.settings import typed
from aemesh.errors import KeyFileError, UsageError
from aemesh.host.keys.keystore import read_private
from aemesh.host.site.authority import (
    AUTHORITY_DAYS,
    CERTIFICATE_DAYS,
    CRL_DAYS,
    Order,
    SiteAuthority,
)
from aemesh.host.site.issuing import REASONS
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from aemesh.host.site.issued import Issued

_F = TypeVar("_F", bound=Callable[..., Any])
_path = click.Path(path_type=Path)
_roles = click.Choice([role.value for role in Role])
_dir_option = click.option(
    "--dir", "folder", type=_path, default=".", help="The CA's folder, if not this one."
)
_passphrase_option = click.option(
    "--passphrase-file",
    type=_path,
    help="A private file (0600) whose first line opens the CA's keys.",
)


def _days_option(default: int, what: str) -> Callable[[_F], _F]:
    # X.509 ends in the year 9999; a hundred years are far from it.
    return click.option(
        "--days",
        type=click.IntRange(1, 36_500),
        default=default,
        show_default=True,
        help=what,
    )


@click.group()
def ca() -> None:
    """Sign a site's workers and masters, or revoke."""


@ca.command()
@click.argument("folder", metavar="DIR", type=_path)
@click.option(
    "--site", default="lab", show_default=True, help="The site's name in certificates."
)
@_days_option(AUTHORITY_DAYS, "How long the CAs are good.")
@_passphrase_option
def init(folder: Path, site: str, days: int, passphrase_file: Path | None) -> None:
    """Make two CAs in DIR, one for masters and one for workers.

    DIR/keys is public, to hand out to every machine; the rest is private.
    """
    passphrase = _new_passphrase(passphrase_file)
    authority = SiteAuthority(folder.absolute(), passphrase)
    authority.make(site=site, days=days, now=time.time())
    if passphrase is None:
        ui.warn("the CA's keys have no passphrase: whoever reads them is the site")
    ui.say(f"made the CAs of the site {site} in {folder}")
    ui.say(f"hand out {folder / 'keys'}; crl.pem there ends in {CRL_DAYS} days")


@ca.command()
@click.argument("name")
@click.option("--role", type=_roles, required=True, help="What NAME is to be.")
@_dir_option
@click.option("--csr", type=_path, help="Take the key of this request, and no more.")
@_days_option(CERTIFICATE_DAYS, "How long it is good.")
@click.option("--out", type=_path, help="Where to write it, if not to issued/.")
@_passphrase_option
@json_option
def issue(
    name: str,
    role: str,
    folder: Path,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click's
) -> None:
    """Sign a certificate for NAME; without --csr a key is made beside it."""
    with typed():
        node = node_name_untrusted(name)
    order = Order(
        role=Role(role),
        name=node,
        days=options["days"],
        csr=options["csr"],
        out=options["out"] and options["out"].absolute(),
    )
    authority = _opened(folder, options["passphrase_file"])
    issued, out, key_path = authority.issue(order, now=time.time())
    shown = {**_shown(issued), "file": str(out)}
    if key_path is not None:
        shown["private_key"] = str(key_path)
        ui.say(f"made a private key, {key_path}: take it to {name}, keep no copy")
    ui.records([shown], as_json=as_json)


@ca.command("list")
@_dir_option
@json_option
def list_(folder: Path, *, as_json: bool) -> None:
    """List the certificates that were signed here."""
    rows = [_shown(one) for one in SiteAuthority(folder.absolute()).issued()]
    if as_json:
        for row in rows:
            ui.write_json(row)
        return
    if not rows:
        ui.say("nothing was signed here yet")
        return
    heads = ("STATE", "ROLE", "NAME", "BEGINS", "ENDS", "KEY", "SERIAL")
    ui.table(heads, ([row[head.lower()] for head in heads] for row in rows))


@ca.command()
@click.argument("who", metavar="NAME-OR-SERIAL")
@click.option("--role", type=_roles, help="Only certificates of this role.")
@click.option(
    "--reason",
    type=click.Choice(list(REASONS)),
    default="unspecified",
    metavar="REASON",
    help=f"Why; it is in the list: {', '.join(REASONS)}.",
)
@_dir_option
@_days_option(CRL_DAYS, "How long the new crl.pem is good.")
@_passphrase_option
def revoke(
    who: str,
    role: str | None,
    reason: str,
    folder: Path,
    **options: Any,  # noqa: ANN401 - click's
) -> None:
    """Take back a certificate, or all of a name; writes a fresh crl.pem."""
    authority = _opened(folder, options["passphrase_file"])
    gone = authority.revoke(
        who,
        role=Role(role) if role else None,
        reason=reason,
        now=time.time(),
        days=options["days"],
    )
    for one in gone:
        ui.say(f"revoked {one.role} {one.name} {one.serial}")
    if not gone:
        ui.say(f"{who} was revoked already")
    _say_list(authority, options["days"])


@ca.command()
@_dir_option
@_days_option(CRL_DAYS, "How long it is good.")
@_passphrase_option
def crl(folder: Path, days: int, passphrase_file: Path | None) -> None:
    """Write a fresh crl.pem; when it ends, everybody is refused."""
    authority = _opened(folder, passphrase_file)
    authority.write_lists(days=days, now=time.time())
    _say_list(authority, days)


def _say_list(authority: SiteAuthority, days: int) -> None:
    path = authority.public / "crl.pem"
    ui.say(f"wrote {path}, good for {days} days: bring it to every machine")


def _opened(folder: Path, passphrase_file: Path | None) -> SiteAuthority:
    """Return the CA of a folder, with its passphrase if it has one."""
    folder = folder.absolute()
    if not SiteAuthority(folder).is_locked:
        return SiteAuthority(folder)
    if passphrase_file is not None:
        return SiteAuthority(folder, _read_passphrase(passphrase_file))
    given = ui.ask_secret(f"Passphrase of the CA in {folder}")
    return SiteAuthority(folder, given.encode() if given else None)


def _new_passphrase(path: Path | None) -> bytes | None:
    if path is not None:
        return _read_passphrase(path)
    given = ui.ask_secret("New passphrase of the CA (empty: none)")
    if not given:
        return None
    if ui.ask_secret("Once more") != given:
        msg = "the two passphrases differ"
        raise UsageError(msg)
    return given.encode()


def _read_passphrase(path: Path) -> bytes:
    found = (read_private(path) or b"").split(b"\n")[0].rstrip(b"\r")
    if not found:
        msg = f"there is no passphrase in {path}"
        raise KeyFileError(msg)
    return found


def _shown(one: Issued) -> dict[str, str]:
    return {
        "state": one.state(time.time()),
        "role": one.role,
        "name": one.name,
        "serial": one.serial,
        "key": one.key,
        "begins": _day(one.begins_at),
        "ends": _day(one.ends_at),
        "revoked": "" if one.revoked_at is None else _day(one.revoked_at),
        "reason": one.reason,
    }


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
