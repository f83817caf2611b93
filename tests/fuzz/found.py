"""Inputs that once broke a decoder; each is a test for good.

``make fuzz`` prints a line for this table when it finds one.
"""

from __future__ import annotations

from tests.fuzz.material import WORKER

_KEY = WORKER.public.openssh.encode()

FOUND: tuple[tuple[str, bytes], ...] = (
    # A body that is shorter than its header says was taken, where nobody counts first.
    ("preamble", b"AEMESH1\n\0\1\0\x09\0\1X"),
    # An editor's byte order mark in front of @revoked: the key was trusted again.
    ("trust_lines", b"\x04\xef\xbb\xbf@revoked * " + _KEY),
    ("trust_lines", b"\x04\xff@revoked * " + _KEY),
    # A name in a certificate that is read late, and is none.
    ("proxies", b"\x80\x81\x87\xb1\xc9\x02C\xe1\xca\x18"),
    ("delegated", b"\x01\x01\xfb"),
    # Text that is no UTF-8 where a request of the control API cannot be read.
    ("control_bodies", b"\x00\x00\x01.\x00\x80"),
)
