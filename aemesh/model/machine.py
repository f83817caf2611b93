"""What a worker found out about its machine, and what it announces."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aemesh.model.address import Address
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role


class Forward(enum.Enum):
    """Whether connections to the engine on a worker go through its master."""

    YES = "yes"
    NO = "no"
    AUTO = "auto"  # if they do not come through otherwise


@dataclass(frozen=True, slots=True)
class Facts:
    """Cores, memory and software of one machine, found out by the machine itself."""

    cores: int
    memory: int  # bytes
    python: str  # "3.11.2"
    system: str  # "linux-x86_64"
    labels: tuple[str, ...] = ()  # words that its owner gave it: gpu, big-disk
    forward: Forward = Forward.AUTO


@dataclass(frozen=True, slots=True)
class Announcement:
    """The signed statement that a node of this key listens at these addresses.

    It is a hint: membership is what the handshake proved (D3).  `signed_at`
    (to the millisecond) and `expires_at` are seconds since 1970 by the announcer's
    clock.  `run` tells two processes of one key apart, as in HELLO.
    """

    role: Role
    name: NodeName
    key: PublicKey
    mode: Mode
    cores: int
    memory: int  # bytes
    addresses: tuple[Address, ...]
    signed_at: float
    expires_at: int
    run: str = ""  # unknown if empty; what is announced on a network has one


@dataclass(frozen=True, slots=True)
class Claims:
    """What somebody announced and could not prove: a stranger's words, cut and escaped.

    `addresses` are where the lie points to, in TXT, SRV, A and AAAA records; from where
    it came is not known.
    """

    name: str = ""
    key_id: KeyId | None = None
    addresses: tuple[str, ...] = ()


NOTHING_CLAIMED = Claims()
