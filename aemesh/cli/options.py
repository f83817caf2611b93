"""Options that many commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

# Where a worker finds its join token, if it is not on the command line.
JOIN_VARIABLE = "AEMESH_JOIN"

_F = TypeVar("_F", bound=Callable[..., Any])


def _inherit(ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:  # noqa: ANN401 - click's
    """Take ``aemesh --state DIR command`` for ``aemesh command --state DIR``."""
    return value or ctx.find_root().params.get("state")


def state_option(command: _F) -> _F:
    """Add ``--state DIR``; the value is None if it is $AEMESH_STATE or the default."""
    add = click.option(
        "--state",
        metavar="DIR",
        callback=_inherit,
        help="Folder of keys, trust and run-time files (or $AEMESH_STATE).",
    )
    return add(command)


def json_option(command: _F) -> _F:
    """Add ``--json``, as ``as_json``."""
    add = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, one object a line."
    )
    return add(command)


def group_option(command: _F) -> _F:
    """Add ``--group NAME``, once and required."""
    add = click.option(
        "--group", "group_name", metavar="NAME", required=True, help="The group."
    )
    return add(command)


def node_options(command: _F) -> _F:
    """Add what workers and masters have in common."""
    for add in (
        click.option("--verbose", is_flag=True, help="Tell more of what goes on."),
        click.option(
            "--insecure-open",
            is_flag=True,
            help="No authentication at all, for this start only; both sides need it.",
        ),
        click.option(
            "--x509",
            metavar="DIR",
            help="Where certificate, key and CAs are; else x509/ in the state folder.",
        ),
        click.option(
            "--auth",
            type=click.Choice(["leap", "x509", "gss"]),
            default="leap",
            show_default=True,
            help="Leap of faith, site certificates, or Kerberos; both sides need it.",
        ),
        click.option(
            "--host",
            metavar="ADDRESS",
            help="The one address of ours to be reached at.",
        ),
        click.option("--name", metavar="NAME", help="Our name, not the host's."),
    ):
        command = add(command)
    return command
