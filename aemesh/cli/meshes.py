"""``--master HOST:PORT`` on commands that only look: which master they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aemesh.client.mesh import Mesh
from aemesh.errors import UsageError

if TYPE_CHECKING:
    from aemesh.client.afar import Afar

_F = TypeVar("_F", bound=Callable[..., Any])


def master_options(command: _F) -> _F:
    """Add ``--master HOST:PORT`` and what goes with it, for `mesh_of`."""
    for add in (
        click.option(
            "--auth",
            type=click.Choice(["leap", "x509"]),
            default="leap",
            show_default=True,
            help="With --master: as that master has it.",
        ),
        click.option(
            "--trust-master",
            "trusted",
            multiple=True,
            metavar="SHA256:…",
            help="With --master: the key that it has, if it is not known here.",
        ),
        click.option(
            "--master",
            metavar="HOST:PORT",
            help="Ask the master there, which runs on another machine.",
        ),
    ):
        command = add(command)
    return command


def mesh_of(
    state: str | None, *, master: str | None, trusted: tuple[str, ...], auth: str
) -> Mesh | Afar:
    """Return the master that is meant: ours, or the one at ``--master``."""
    if master is not None:
        # Keys, TLS and the trust files: not for whoever asks the socket.
        from aemesh.cli.afar import master_at  # noqa: PLC0415

        return master_at(master, state=state, trusted=trusted, auth=auth)
    if trusted:
        msg = "--trust-master goes with --master HOST:PORT"
        raise UsageError(msg)
    return Mesh(state)
