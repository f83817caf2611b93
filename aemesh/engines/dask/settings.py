"""Which of Dask's settings a group may have: none that loads code or weakens TLS.

Who sets them may run what he likes in the group anyway; but a copied line must not,
by accident, open a port or let the group fall back to plain TCP.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where a setting may stand, in Dask's own spelling.
_TAKEN = (
    *("distributed.scheduler.", "distributed.worker.", "distributed.client."),
    *("distributed.comm.", "distributed.admin.", "distributed.p2p."),
    *("distributed.deploy.", "distributed.diagnostics.", "distributed.adaptive."),
    *("array.", "dataframe.", "optimization."),
)
# What is ours to say, and what would load code or listen where nothing may.
_OURS = (
    *("distributed.comm.tls", "distributed.comm.require-encryption"),
    *("distributed.comm.default-scheme", "distributed.comm.websockets"),
    *("distributed.comm.socket-backend", "distributed.comm.ucx"),
    *("distributed.scheduler.preload", "distributed.scheduler.http"),
    *("distributed.scheduler.contact-address", "distributed.scheduler.dashboard"),
    "distributed.scheduler.active-memory-manager.policies",
    *("distributed.worker.preload", "distributed.worker.http"),
    *("distributed.worker.contact-address", "distributed.worker.listen-address"),
    *("distributed.client.preload", "distributed.client.security-loader"),
)


def check_settings(settings: Mapping[str, str]) -> None:
    """Raise `UsageError` for one that a group may not have."""
    for name, value in settings.items():
        spelled = name.replace("_", "-")
        if not spelled.startswith(_TAKEN):
            msg = f"{quoted(name)} is no setting of Dask's that a group has"
            raise UsageError(msg, why=f"those begin with {', '.join(_TAKEN)}")
        if spelled.startswith(_OURS):
            msg = f"{name} cannot be set"
            raise UsageError(msg, why="it would weaken TLS, load code, or listen")
        if _is_nested(value):
            msg = f"{name} cannot be {quoted(value)}"
            raise UsageError(msg, why="one setting has one value: name each of them")


def _is_nested(value: str) -> bool:
    """Whether Dask would read a value as a table, with settings of any name in it."""
    try:
        return isinstance(ast.literal_eval(value), dict)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
