"""How long to wait before a peer that was out of reach is dialled again."""

from __future__ import annotations

from aemesh import limits


def pause_after(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    if failures > limits.REDIALS:
        return limits.REDIAL_SELDOM_AFTER
    pause: float = limits.REDIAL_AFTER * 2 ** min(max(failures - 1, 0), 10)
    return min(pause, limits.REDIAL_CAP_AFTER)
