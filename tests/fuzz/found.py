"""Inputs that once broke a decoder; each is a test for good.

``make fuzz`` prints a line for this table when it finds one.
"""

from __future__ import annotations

FOUND: tuple[tuple[str, bytes], ...] = (
    # A body that is shorter than its header says was taken, where nobody counts first.
    ("preamble", b"AEMESH1\n\0\1\0\x09\0\1X"),
)
