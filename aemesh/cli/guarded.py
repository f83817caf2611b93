"""How a command becomes an agent below its warden."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

from aemesh.host.warden import run_guarded


def run_guarded_agent(role: str, options: dict[str, Any]) -> int:
    """Run the agent of a role in a child; return its exit code when nothing is left.

    The warden forks before anything else is loaded; see `aemesh.host.warden`.
    """
    return run_guarded(partial(_agent, role, options))


def _agent(role: str, options: dict[str, Any]) -> int:
    # Imports make no garbage, and looking for it takes a tenth of their time; `start`
    # looks for it again when all is imported.
    gc.disable()
    from aemesh.cli.start import run_agent  # noqa: PLC0415

    return run_agent(role, options)
