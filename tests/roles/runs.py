"""Which process is at an address: each has a run, which its peers see in HELLO."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

from aemesh.host.keystore import Identity
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.trust import Peer, Verdict
from aemesh.net.doorman import Doorman
from aemesh.net.shake import Channel, Shaker, shakers
from aemesh.net.transport import Connection
from aemesh.protocol.handshake import Ourselves, Purpose


class Runs:
    """The runs of a mesh, by IP address: one process of aemesh is at each."""

    def __init__(self) -> None:
        self._at: dict[str, str] = {}
        self._count = 0

    def start(self, ip: str) -> str:
        """A process starts at this address; return its run."""
        self._count += 1
        raw = self._count.to_bytes(8, "big")
        self._at[ip] = base64.b64encode(raw).decode().rstrip("=")
        return self._at[ip]

    def shakers(
        self, ours: Ourselves, identity: Identity
    ) -> Callable[[Doorman], Shaker]:
        """Return what makes shakers that see the runs of their peers."""
        make = shakers(ours, identity)

        def shaker(doorman: Doorman) -> Shaker:
            plain = make(_Doorman(self, doorman))
            return _Shaker(
                self,
                credentials=plain.credentials,
                ours=plain.ours,
                doorman=plain.doorman,
                client=plain.client,
                clock=plain.clock,
                servers=plain.servers,
            )

        return shaker

    def of(self, peer: Peer) -> Peer:
        """Return a peer with the run of the process at its address."""
        host = peer.address.rpartition(":")[0]
        return replace(peer, run=self._at.get(host, ""))


class _Shaker(Shaker):
    _runs: Runs

    def __init__(self, runs: Runs, **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[arg-type]
        object.__setattr__(self, "_runs", runs)  # a frozen dataclass

    async def connect(
        self,
        connection: Connection,
        *,
        expected: KeyId | None,
        purpose: Purpose = Purpose.CONTROL,
    ) -> Channel:
        channel = await super().connect(connection, expected=expected, purpose=purpose)
        return replace(channel, peer=self._runs.of(channel.peer))

    async def accept(self, connection: Connection) -> Channel:
        channel = await super().accept(connection)
        return replace(channel, peer=self._runs.of(channel.peer))


class _Doorman:
    def __init__(self, runs: Runs, doorman: Doorman) -> None:
        self._runs = runs
        self._doorman = doorman

    def admits(self, key: PublicKey) -> bool:
        return self._doorman.admits(key)

    def judge(
        self, peer: Peer, *, purpose: Purpose, skew: float, expected: KeyId | None
    ) -> Verdict:
        return self._doorman.judge(
            self._runs.of(peer), purpose=purpose, skew=skew, expected=expected
        )

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        self._doorman.heard(self._runs.of(peer), verdict)

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        self._doorman.commit(self._runs.of(peer), verdict)
