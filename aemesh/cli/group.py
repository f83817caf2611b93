"""``aemesh group``: list, add, remove, and move workers between them."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.delegation import span, wish_of
from aemesh.cli.options import assent_option, json_option, state_option
from aemesh.cli.status import show_groups
from aemesh.client.client import Mesh
from aemesh.model.view import Delegate


@click.group()
def group() -> None:
    """List, change and fill groups."""


@group.command("list")
@state_option
@json_option
def list_(state: str | None, *, as_json: bool) -> None:
    """List the groups."""
    found = Mesh(state).groups()
    if as_json:
        for one in found:
            ui.write_json(msgspec.to_builtins(one))
        return
    show_groups(found)


@group.command()
@click.argument("name")
@click.option("--engine", default="dask", show_default=True, help="What runs on it.")
@state_option
def add(name: str, engine: str, state: str | None) -> None:
    """Open the group NAME."""
    with ui.progress(f"opening group {name}"):
        Mesh(state).open_group(name, engine)
    ui.say(f"group {name} is open, engine {engine}")


@group.command()
@click.argument("name")
@state_option
def remove(name: str, state: str | None) -> None:
    """Close the group NAME and give its workers back."""
    with ui.progress(f"closing group {name}"):
        Mesh(state).close_group(name)
    ui.say(f"group {name} is closed")


@group.command()
@click.argument("worker")
@click.argument("name", metavar="GROUP")
@state_option
@json_option
def move(worker: str, name: str, state: str | None, *, as_json: bool) -> None:
    """Move WORKER to GROUP, after its work has moved to others."""
    with ui.progress(f"moving {worker} to {name}"):
        receipt = Mesh(state).move(worker, name)
    if as_json:
        ui.write_json(msgspec.to_builtins(receipt))
        return
    left = "in peace" if receipt.graceful else "in haste"
    ui.write(
        ui.plain(
            f"{receipt.member} left {receipt.group} {left} in "
            f"{receipt.took_after:.1f} s ({receipt.moved} pieces of data moved, "
            f"{receipt.lost} lost), and is on its way to {name}"
        )
    )


@group.command()
@click.argument("name", metavar="GROUP")
@click.argument("life", metavar="SPAN|off")
@click.option("--delegate-from", metavar="FILE", help="Your certificate and key.")
@state_option
def delegate(
    name: str, life: str, delegate_from: str | None, state: str | None
) -> None:
    """Hand your X.509 identity on to the jobs of GROUP, or stop that.

    SPAN is how long each job has it, like 8h, and at most 12h.  Members are brought
    up anew, one after the other.
    """
    off = Delegate(life_after=0.0)
    wish = off if life == "off" else wish_of(life, delegate_from)
    told = Mesh(state).delegate(name, wish or off)
    if not told.subject:
        ui.say(f"jobs of {name} have no identity of yours from now on")
        return
    ui.say(f"jobs of {name} act as {ui.plain(told.subject)}, for {life} each")


@group.command()
@click.argument("name", metavar="GROUP")
@click.option("--out", metavar="DIR", help="Where to; else ./aemesh-GROUP.")
@click.option("--for", "life", metavar="SPAN", default="8h", show_default=True)
@assent_option("--force", "force", "Overwrite those that are there.")
@state_option
@json_option
def credentials(  # noqa: PLR0913 - the options of the command
    name: str,
    out: str | None,
    life: str,
    state: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write a key and certificate of GROUP, for tools of your own.

    They hold for SPAN, and no longer than the group is up.
    """
    from aemesh.client.credentials import save_credentials  # noqa: PLC0415

    mesh, life_after = Mesh(state), span(life)
    folder = Path(out or f"aemesh-{name}").absolute()
    env = {
        key: value.replace("{tls}", str(folder))
        for key, value in mesh.connect(name).env.items()
    }
    save_credentials(
        folder,
        lambda csr: mesh.certify(name, csr, life_after=life_after),
        force=force,
    )
    if as_json:
        ui.write_json({"group": name, "folder": str(folder), "env": env})
        return
    ui.say(f"ca.pem, cert.pem and key.pem are in {folder}, good for {life}")
    ui.say("tools find the group by these variables:")
    for key, value in env.items():
        ui.write(ui.plain(f"export {key}={shlex.quote(value)}"))
