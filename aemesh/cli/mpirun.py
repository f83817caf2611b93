"""``aemesh mpirun``: MPI's own mpirun on the members of a group."""

from __future__ import annotations

from functools import partial

import click

from aemesh.cli import ui
from aemesh.cli.failures import failed
from aemesh.cli.options import group_option, state_option
from aemesh.cli.progress import progress
from aemesh.errors import UsageError


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@group_option
@click.option(
    "--mpi",
    metavar="openmpi|mpich|MPIRUN",
    help="Whose mpirun; else the first that is found.",
)
@click.option(
    "--subnet",
    metavar="CIDR|auto|any",
    default="auto",
    show_default=True,
    help="The network that ranks use among themselves.",
)
@click.argument("words", metavar="WORDS...", nargs=-1, type=click.UNPROCESSED)
@state_option
def mpirun(
    group_name: str,
    mpi: str | None,
    subnet: str,
    words: tuple[str, ...],
    state: str | None,
) -> int:
    """Run an MPI program on a group.

    WORDS are those of Open MPI's or MPICH's mpirun, options and all: `aemesh mpirun
    --group A -n 8 ./prog`.  Its hosts are the group's members, with a slot for each
    core; nothing needs ssh.  The group keeps its size meanwhile.  mpirun's exit code
    is ours; when a member goes mpirun is ended, and ours is 6.
    """
    if not words:
        msg = "what is to run?"
        raise UsageError(msg, hint="aemesh mpirun --group NAME -n 4 ./prog")
    # The warden forks before anything else is loaded; see `aemesh.host.warden`.
    from aemesh.host.warden import run_guarded  # noqa: PLC0415

    net = "" if subnet == "any" else subnet
    return run_guarded(partial(_guarded, group_name, mpi, net, words, state))


def _guarded(
    name: str, mpi: str | None, subnet: str, words: tuple[str, ...], state: str | None
) -> int:
    from aemesh.client.mesh import Mesh  # noqa: PLC0415 - in the child only
    from aemesh.client.mpirun import Run, run_mpi  # noqa: PLC0415

    try:
        mesh = Mesh(state)
        if ui.can_ask():
            with progress(f"waiting for group {name}"):
                mesh.connect(name)
        else:
            mesh.connect(name)
        run = Run(group=name, words=words, mpi=mpi, subnet=subnet)
        return run_mpi(mesh, run, say=ui.say, warn=ui.warn)
    except BaseException as error:  # noqa: BLE001 - the last one that can say it
        return failed(error, as_json=False)
