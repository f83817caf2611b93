"""Two ends of a flow over TLS by the standard library, and nothing else of ours.

``flow.py serve HOST`` listens, says its port, and sends or takes what it is asked for;
``flow.py ask HOST PORT send|take BYTES`` prints the seconds that this took.
"""

# It prints, and is no part of a package where it runs.
# ruff: noqa: T201

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time

_PIECE = 1 << 20


def serve(host: str) -> None:
    """Serve each who comes, until we are killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("tls/cert.pem", "tls/key.pem")
    with socket.create_server((host, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=answer, args=(context, plain), daemon=True).start()


def answer(context: ssl.SSLContext, plain: socket.socket) -> None:
    """Send or take as many bytes as the first line says."""
    with context.wrap_socket(plain, server_side=True) as sock:
        what, count = sock.recv(64).decode().split()
        if what == "send":
            send(sock, int(count))
        else:
            take(sock, int(count))
            sock.sendall(b".")


def ask(host: str, port: int, what: str, count: int) -> float:
    """Return how long it takes the other end to send or take so many bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((host, port))
    with context.wrap_socket(plain) as sock:
        sock.sendall(f"{what} {count}".encode())
        began = time.perf_counter()
        if what == "send":
            take(sock, count)
        else:
            send(sock, count)
            sock.recv(1)
        return time.perf_counter() - began


def send(sock: ssl.SSLSocket, count: int) -> None:
    """Send so many bytes, of which none is worth anything."""
    piece = bytes(_PIECE)
    while count > 0:
        sock.sendall(piece[:count])
        count -= len(piece)


def take(sock: ssl.SSLSocket, count: int) -> None:
    """Take so many bytes."""
    piece = bytearray(_PIECE)
    while count > 0:
        got = sock.recv_into(piece)
        if not got:
            what = "it ended early"
            raise EOFError(what)
        count -= got


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        _, _, at, number, order, size = sys.argv
        print(ask(at, int(number), order, int(size)))
