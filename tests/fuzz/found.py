"""Inputs that once broke a decoder; each is a test for good.

``make fuzz`` prints a line for this table when it finds one.
"""

from __future__ import annotations

FOUND: tuple[tuple[str, bytes], ...] = ()
