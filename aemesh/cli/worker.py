"""``aemesh worker``: offers this machine to a master."""

from __future__ import annotations

import os
import time

import click

from aemesh.cli.options import (
    JOIN_VARIABLE,
    TypedOption,
    idle_option,
    node_options,
    spares_option,
    state_option,
)
from aemesh.cli.spans import span

_JOIN_HELP = (
    "Join the master that gave out this token. Other users of this machine see what "
    "stands on a command line: @FILE reads a private file, - standard input; or set "
    f"${JOIN_VARIABLE}."
)


@click.command()
@state_option
@node_options
@idle_option("without a lease")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="The port to listen on.",
)
@click.option(
    "--master",
    "masters",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Dial this master, listen and announce nothing; may be given several times.",
)
@click.option(
    "--give-up",
    "give_up_after",
    type=span,
    metavar="SPAN",
    help="Exit with code 5 when there was no master for so long: 10m.",
)
@click.option(
    "--lease",
    "lease_after",
    type=span,
    metavar="SPAN",
    help="After so long, let other masters that want this machine have their turn.",
)
@spares_option("the next group")
@click.option("--cores", type=click.IntRange(1), help="Cores to offer, not all.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME",
    help="Serve this group only; may be given several times. Without it: any.",
)
@click.option("--groups", "more_groups", metavar="A,B", help="The same, as one list.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="WORD",
    help="What groups may ask for, like gpu; may be given several times.",
)
@click.option(
    "--forward",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Whether connections to the engine here go through the master: yes, no, or if "
    "they do not come through otherwise.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["none", "bwrap"]),
    default="none",
    show_default=True,
    help="Run each job in a sandbox of bubblewrap: the machine read-only, your home "
    "hidden. Groups can require it: '\"sandbox\" in labels'.",
)
@click.option(
    "--trust-master",
    "trusted",
    multiple=True,
    metavar="SHA256:…",
    help="Trust the master with this key; may be given several times.",
)
@click.option(
    "--accept-first-master",
    "accept_first",
    is_flag=True,
    help="Trust the first master that comes, if there is none yet, and only that one.",
)
@click.option(
    "--enrol",
    "enrol_after",
    type=span,
    metavar="SPAN",
    help="As --accept-first-master, but only so long: 10m.",
)
@click.option(
    "--from",
    "enrol_from",
    multiple=True,
    metavar="NET",
    help="First use only from this network; may be given several times.",
)
@click.option(
    "--join",
    cls=TypedOption,
    why=f"it is a secret: set ${JOIN_VARIABLE}, or type --join @FILE",
    secret=True,
    envvar=JOIN_VARIABLE,
    metavar="TOKEN",
    help=_JOIN_HELP,
)
@click.option(
    "--keytab",
    metavar="FILE",
    help="With --auth gss: the keytab of aemesh/NAME; else the system's.",
)
@click.option(
    "--until",
    metavar="WHEN",
    help="Leave so that it is gone at 17:30, in +2h, or at 2026-12-01T08:00.",
)
def worker(join: str | None, until: str | None, **options: object) -> int:
    """Offer this machine to a master.

    It is announced on the local network, and runs what the master that you trust
    asks for, until Ctrl-C; a second Ctrl-C does not wait for work to move.
    """
    from aemesh.cli.guarded import run_guarded_agent  # noqa: PLC0415

    if until is not None:
        from aemesh.cli.moments import moment  # noqa: PLC0415 - what a warden spares

        options["until"] = moment(until, now=time.time())
    # Here, so that neither warden nor agent keeps the variable.
    if join is not None or JOIN_VARIABLE in os.environ:
        from aemesh.cli.join import read_join  # noqa: PLC0415 - what a warden spares

        options["join"] = read_join(join)
    return run_guarded_agent("worker", options)
