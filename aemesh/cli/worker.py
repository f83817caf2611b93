"""``aemesh worker``: offers this machine to a master."""

from __future__ import annotations

from functools import partial

import click

from aemesh.cli.options import node_options, state_option


@click.command()
@state_option
@node_options
@click.option("--cores", type=click.IntRange(1), help="Cores to offer, not all.")
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
def worker(**options: object) -> int:
    """Offer this machine to a master.

    It is announced on the local network, and runs what the master that you trust
    asks for, until Ctrl-C; a second Ctrl-C does not wait for work to move.
    """
    # The warden forks before anything else is loaded; see `aemesh.host.warden`.
    from aemesh.host.warden import run_guarded  # noqa: PLC0415

    return run_guarded(partial(_agent, options))


def _agent(options: dict[str, object]) -> int:
    from aemesh.cli.settings import WorkerOptions  # noqa: PLC0415
    from aemesh.cli.start import run_agent  # noqa: PLC0415
    from aemesh.model.trust import Role  # noqa: PLC0415

    return run_agent(Role.WORKER, WorkerOptions(**options))  # type: ignore[arg-type] # click's names
