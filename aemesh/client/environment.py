"""The environment that a script needs to find its group's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.view import ConnectView

# They tell a script's `aemesh.connect()` which group of which master it runs for.
GROUP_VARIABLE = "AEMESH_GROUP"
STATE_VARIABLE = "AEMESH_STATE"
TLS_PLACE = "{tls}"


def wants_tls(view: ConnectView) -> bool:
    """Whether the engine's clients need a certificate."""
    return any(TLS_PLACE in value for value in view.env.values())


def filled(view: ConnectView, *, tls: Path | None, state: str) -> dict[str, str]:
    """Return the variables of `view` with `tls` for ``{tls}``, and those of ours."""
    env = {
        name: value.replace(TLS_PLACE, "" if tls is None else str(tls))
        for name, value in view.env.items()
    }
    return {**env, GROUP_VARIABLE: view.group, STATE_VARIABLE: state}
