"""TLS contexts as DESIGN.md section 4 has them: 1.3 only, pins instead of CAs.

`ssl.create_default_context` would load the machine's CAs (19 ms, and none of them is
wanted); the contexts here trust nobody but the one certificate that was announced.
"""

from __future__ import annotations

import ssl
from typing import Protocol

ALPN = "aemesh/1"
# Python asks OpenSSL 3 to take a cut connection for an ended one; we want to be told
# (threat 17).  OpenSSL 1.1 has no such option.
_IGNORE_CUT = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


class Credentials(Protocol):
    """A certificate and the private key behind it, which stays where it is."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What we enter TLS with, DER: one of our own, or a CA's with its issuers."""

    def load_into(self, context: ssl.SSLContext) -> None:
        """Put certificate and key into a context."""


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return a context for dialling; the caller compares the peer's key afterwards.

    It may be used for any number of connections.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _prepared(context, credentials)


def server_context(credentials: Credentials, announced: bytes) -> ssl.SSLContext:
    """Return a context that lets in only the holder of the `announced` certificate.

    Partial chains, so that the leaf itself is the anchor; no tickets, so that every
    connection proves its key anew.  A CA in `announced` would let in what it signed:
    the caller compares the certificate again after the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=announced)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return _prepared(context, credentials)


def _prepared(context: ssl.SSLContext, credentials: Credentials) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options &= ~_IGNORE_CUT
    credentials.load_into(context)
    context.set_alpn_protocols([ALPN])
    return context
