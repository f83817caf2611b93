"""What names a process for good: after a reboot and on a shared disk too.

A process number is used again, start times begin anew at each boot, and a state
directory may be on a disk that several machines see.  So all four are written down.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aemesh.host.processes import Process, read_process

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Of 32: enough to tell the boots of one machine apart, short enough for a file's name.
_BOOT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class ProcessName:
    """One process of one boot of one machine."""

    host: str
    boot: str
    pid: int
    started: int  # clock ticks since boot

    @classmethod
    def ours(cls) -> Self:
        """Return the name of this process."""
        process = read_process(os.getpid())
        assert process is not None, "we run"
        return cls(socket.gethostname(), boot_id(), process.pid, process.started)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the name that `str` made, or None."""
        pid, started, boot, host = (*text.split("-", 3), "", "", "")[:4]
        if not (pid.isdecimal() and started.isdecimal() and boot and host):
            return None
        return cls(host, boot, int(pid), int(started))

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.boot}-{self.host}"

    def running(self) -> bool | None:
        """Whether it runs; None if another machine would have to say."""
        if self.host != socket.gethostname():
            return None
        return self.process() is not None

    def process(self) -> Process | None:
        """Return this very process if it runs here, never another of its number."""
        if self.host != socket.gethostname() or self.boot != boot_id():
            return None
        now = read_process(self.pid)
        found = now is not None and now.alive and now.started == self.started
        return now if found else None


def boot_id() -> str:
    """Return what the kernel calls this boot."""
    text = _BOOT_ID.read_text(encoding="ascii").strip()
    return text.replace("-", "")[:_BOOT_DIGITS]
