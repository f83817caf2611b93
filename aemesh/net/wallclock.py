"""The real time of day, and real chance, for handshakes and doors."""

from __future__ import annotations

import base64
import random
import secrets
import time


class WallClock:
    """Implements `aemesh.net.shake.Clock`."""

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def nonce(self) -> bytes:
        """Return 16 random bytes."""
        return secrets.token_bytes(16)


def new_run() -> str:
    """Return what tells this process from any other of the same key."""
    return base64.b64encode(secrets.token_bytes(8)).decode().rstrip("=")


def chance() -> float:
    """Return a number in [0, 1) for the early drop of strangers."""
    return random.random()  # noqa: S311 - not a secret: it spreads a load
