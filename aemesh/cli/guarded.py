"""How a command becomes an agent below its warden."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any

from aemesh.host.detached import start_detached
from aemesh.host.warden import run_guarded

if TYPE_CHECKING:
    from pathlib import Path

# As `aemesh.host.statedir` has it, which is not loaded yet.
_KEEPER = "keeper"


def run_guarded_agent(role: str, options: dict[str, Any]) -> int:
    """Run the agent of a role in a child; return its exit code when nothing is left.

    The warden forks before anything else is loaded; see `aemesh.host.warden`.
    """
    return run_guarded(partial(_agent, role, options))


def start_keeper(options: dict[str, Any]) -> int:
    """Start the keeper of a master; return a descriptor that is readable when it is up.

    It is no child of the master's: see `aemesh.host.detached`.  Where one goes on for
    a former master, that is the one.
    """
    shared = ("state", "engine", "host", "heirs", "spares", "verbose")
    kept = {name: options[name] for name in shared}

    def main(ready: int) -> int:
        return run_guarded_agent(_KEEPER, {**kept, "ready": ready})

    return start_detached(main, log=partial(_keeper_log, kept["state"]))


def _keeper_log(state: str | None) -> Path:
    from aemesh.host.statedir import state_folder  # noqa: PLC0415 - in the child only
    from aemesh.model.trust import Role  # noqa: PLC0415

    return state_folder(Role.WORKER, state, place=_KEEPER) / "log"


def _agent(role: str, options: dict[str, Any]) -> int:
    # Imports make no garbage, and looking for it takes a tenth of their time; `start`
    # looks for it again when all is imported.
    gc.disable()
    from aemesh.cli.start import run_agent  # noqa: PLC0415

    return run_agent(role, options)
