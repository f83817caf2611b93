"""Numbers of things, as a person says them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return "1 core", or "3 cores"; for a noun that takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
