"""``aemesh group``: list, add, remove, and move workers between them."""

from __future__ import annotations

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.cli.status import show_groups
from aemesh.client.client import Mesh


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
