"""``aemesh trust audit``: who came in, who did not, and who decided so."""

from __future__ import annotations

import click

from aemesh.cli import ui
from aemesh.cli.options import json_option, state_option
from aemesh.cli.trust_rows import folders, role_option
from aemesh.host.trust.auditlog import AuditLog

_HEADS = ("TIME", "WHAT", "ROLE", "NAME", "KEY", "REASON", "FROM", "DETAIL")


@click.command()
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Only so many, the newest.",
)
@role_option
@state_option
@json_option
def audit(last: int, role: str | None, state: str | None, *, as_json: bool) -> None:
    """Print the audit log: verdicts on peers, and changes that people made."""
    found = [
        entry
        for _, folder in folders(state, role)
        for entry in AuditLog(folder).read(last=last)
    ]
    found = sorted(found, key=lambda entry: entry["time"])[-last:]
    if as_json:
        for entry in found:
            ui.write_json(entry)
    elif found:
        ui.table(_HEADS, map(_cells, found))
    else:
        ui.say("nothing was decided yet")


def _cells(entry: dict[str, str]) -> list[str]:
    """Return what the table shows: of a verdict the address, of a change the user."""
    what = entry.get("change") or entry.get("verdict", "")
    source = entry.get("by") or entry.get("address", "")
    told = [entry.get(name, "") for name in ("role", "name", "key", "reason")]
    return [entry["time"], what, *told, source, entry.get("detail", "")]
