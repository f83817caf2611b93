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
    # No name at all, under no name at all: the last part of it was looked for.
    ("proxies", b"\x00\x00\x00\x01\x01\x11\x00\x01\x01\r\x00"),
    # What breaks RFC 5280 a little was told on the terminal, by the library.
    ("delegated", b"\x1dYK"),
    ("delegated", b"Ix\xabEn\x17\x17_\xb3\xd3"),
    # A certificate of version 7, in PEM.
    ("delegated", b"\x84\xb2\x8f8O\xca\xc4\x1c\xae\x1a"),
    # A time before the year 1000 was shown as another, long after it.
    ("terms", b"\xf0($\xff\xff#\xc1\xc1\xc1\xc1Z\xc1\xc1\xc1\xb8\xc1\xc1\xff[mmmm\xff"),
    # The name of a field that nobody knows, as it was sent.
    ("control_bodies", b"\x00\x00\x01.\x00\x7f"),
)
