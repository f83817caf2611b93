"""stub: replaced by the x509 branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.trust import Anchors, Role


def read_anchors(folder: Path, role: Role) -> Anchors:
    """Stub."""
    raise NotImplementedError
