"""``aemesh trust list`` and ``show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.cli.trust_rows import Row, all_rows, called, role_option

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADS = ("STATE", "ROLE", "NAME", "ID", "KEY", "WORDS", "VIA", "ADDED")
# Shown only where a row has something there: most lines have no terms.
_HEADS_IF_ANY = ("TERMS", "CODE", "TRIES")


@click.command("list")
@role_option
@state_option
@json_option
def list_(role: str | None, state: str | None, *, as_json: bool) -> None:
    """List who is known, revoked, authorized, or waits to be accepted.

    CODE are the four words of the meeting: both sides show the same ones, unless
    somebody stands between.  Lines of the files that trust nobody are named last.
    """
    rows = all_rows(state, role)
    if as_json:
        for row in rows:
            ui.write_json(row.shown())
        return
    _table([row for row in rows if row.state != "void"])
    for row in rows:
        if row.state == "void":
            ui.warn(f"{row.file} trusts nobody: {row.why}")


@click.command()
@click.argument("who")
@role_option
@state_option
@json_option
def show(who: str, role: str | None, state: str | None, *, as_json: bool) -> None:
    """Show all that is known of WHO: a name, an id or a fingerprint."""
    shown = [row.shown() for row in called(all_rows(state, role), who, "peer")]
    if not as_json:
        shown = [{name: text for name, text in one.items() if text} for one in shown]
    ui.records(shown, as_json=as_json)


def _table(rows: Sequence[Row]) -> None:
    if not rows:
        ui.say("nobody is known, revoked or waiting")
        return
    shown = [row.shown() for row in rows]
    heads = [*_HEADS, *(head for head in _HEADS_IF_ANY if _tells(shown, head.lower()))]
    ui.table(heads, ([row[head.lower()] for head in heads] for row in shown))


def _tells(shown: Sequence[dict[str, str]], field: str) -> bool:
    """Whether any row has something there; a first try is nothing to tell."""
    return any(row[field] not in {"", "1"} for row in shown)
