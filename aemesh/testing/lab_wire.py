"""A wire that is slow: copies Ethernet frames between two interfaces, with a delay.

The kernel here has no ``netem``.  The naive way, reading and writing frames through
AF_PACKET sockets, fails with offloads: the frames of other hosts arrive with checksums
not yet made and 64 kB long, and would have to be switched off on every interface.  With
PACKET_VNET_HDR each frame carries a note about what is still to be done to it, which
is handed on with the frame; so all offloads may stay on.

It runs as a script of its own in the switch's namespace: ``lab_wire.py LEFT RIGHT``.
It reads lines ``<delay> <jitter>`` (seconds) from its input and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import sys
import time
from collections import deque

# <linux/if_packet.h>; Python has no names for these.
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3

# The note (10 bytes), the Ethernet header and the longest packet there is.
FRAME_SIZE = 128 * 1024
# As a switch does, we drop what does not fit: 4096 frames are 20 ms of 2.4 Gbit/s.
QUEUE_LENGTH = 4096
BUFFER_SIZE = 8 * 1024 * 1024


class Lane:
    """One direction: frames leave in the order in which they came, each delayed."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, bytes]] = deque(maxlen=QUEUE_LENGTH)
        self.last_due = 0.0

    def take_in(self, delay: float, jitter: float) -> None:
        """Read all frames that wait, and note when each may leave."""
        # An error (interface down for a moment) loses a frame, as a real wire does.
        with contextlib.suppress(OSError):
            while len(self.queue) < QUEUE_LENGTH:
                frame = self.source.recv(FRAME_SIZE)
                due = time.monotonic() + delay + random.random() * jitter  # noqa: S311
                self.last_due = max(self.last_due, due)
                self.queue.append((self.last_due, frame))

    def let_out(self, now: float) -> None:
        """Send all frames whose time has come."""
        while self.queue and self.queue[0][0] <= now:
            with contextlib.suppress(OSError):
                self.sink.send(self.queue.popleft()[1])


def open_interface(name: str) -> socket.socket:
    """Open a socket that sees every frame coming in on an interface."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    wire.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_SIZE)
    wire.setblocking(False)
    wire.bind((name, ETH_P_ALL))
    return wire


def forward(left: socket.socket, right: socket.socket) -> None:
    """Copy frames both ways until our input ends."""
    lanes = (Lane(left, right), Lane(right, left))
    delay = jitter = 0.0
    while True:
        dues = [lane.queue[0][0] for lane in lanes if lane.queue]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select([sys.stdin, left, right], [], [], wait)
        if sys.stdin in ready:
            line = os.read(0, 1024).decode()
            if not line:
                return
            delay, jitter = (float(word) for word in line.splitlines()[-1].split())
            os.write(1, b"ready\n")
        for lane in lanes:
            lane.take_in(delay, jitter)
            lane.let_out(time.monotonic())


if __name__ == "__main__":
    forward(open_interface(sys.argv[1]), open_interface(sys.argv[2]))
