"""Whether an engine takes the settings that a group's user made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.errors import UsageError
from aemesh.plugin import Tunable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aemesh.plugin import Engine


def check_settings(engine: Engine, settings: Mapping[str, str]) -> None:
    """Raise `UsageError` for what a group with this engine may not set."""
    kind: object = engine
    if isinstance(kind, Tunable):
        kind.check_settings(settings)
    elif settings:
        msg = f"engine {engine.name} has no settings"
        raise UsageError(msg, why=f"{', '.join(sorted(settings))} cannot be set")
