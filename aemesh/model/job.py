"""A job: one process tree that a node runs for a member of a group."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

# The file, among those of ``tls/``, that the job finds as $X509_USER_PROXY: the user's
# delegated identity (RFC 3820).
PROXY_FILE = "proxy.pem"


class Channel(enum.Enum):
    """Which of a job's pipes a chunk belongs to."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run: an argument list, never a shell's string.

    The job starts in an empty folder of its own, with `files` (name to content)
    written there, mode 0600.  An ``argv[0]`` of ``{python}`` stands for the
    interpreter of the environment.  With `tls`, ``tls/ca.pem``, ``tls/cert.pem``
    and ``tls/key.pem`` of the group are put beside them; the key never travels.  A
    `lasting` job outlives the connection to its master within the lease's time.
    `preload` are modules that it does well to import first: it finds them, joined by
    commas, as $AEMESH_PRELOAD.  A job started as a spare may have fewer of them.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    tls: bool = False
    lasting: bool = False
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of node that may be wanted soon: of an engine, with modules imported."""

    engine: str
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a job's output, as it came."""

    channel: Channel
    data: bytes


# The reason of a job that was ended in order: its member is let go, or who started it
# wants it no more.
RELEASED = "released"


@dataclass(frozen=True, slots=True)
class JobExit:
    """How a job ended: `code` as a shell has it, 128 + n for signal n."""

    code: int
    reason: str = ""  # RELEASED, "link lost", … if the agent ended it

    @property
    def ok(self) -> bool:
        """Whether the job ended by itself with 0."""
        return self.code == 0 and not self.reason
