"""The state directory: where a role keeps its key, its trust and its run-time files.

::

    <root>/worker/          0700, one per role; the trust files stand here
        lock                held while the role runs; its process id is inside
        id_ed25519 …        see `keystore`
        known_masters …     see `trustfiles`
        run/                lives only as long as the process
    <root>/clients/         a folder for each client that lives: see `livefolder`
    <root>/clusters/        for each group what cluster objects changed of it
    <root>/jobs/            scripts that were started with ``aemesh run --detach``
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from aemesh.errors import AlreadyRunningError
from aemesh.host.folders import empty, make_private
from aemesh.host.leftovers import end_leftovers
from aemesh.host.settingsfile import default_state
from aemesh.model.trust import Role

if TYPE_CHECKING:
    from collections.abc import Iterator


_PID_BYTES = 20
# The folder of a master's keeper, which is a worker of its own.
KEEPER = "keeper"


@dataclass(frozen=True, slots=True)
class StateDir:
    """The folder of one role, while this process holds it."""

    role: Role
    folder: Path

    @property
    def run(self) -> Path:
        """The folder for what lives only as long as this process."""
        return self.folder / "run"


def state_root(given: str | Path | None = None) -> Path:
    """Return the folder of all roles: the first of these that says one.

    `given` (``--state``), $AEMESH_STATE, the user's settings, the platform's place.
    """
    chosen = given or os.environ.get("AEMESH_STATE") or default_state()
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_state_path("aemesh", appauthor=False)


def clients_folder(root: Path) -> Path:
    """Return where clients of the master have a folder each, as long as they live."""
    return root / "clients"


def clusters_folder(root: Path) -> Path:
    """Return where the groups that cluster objects use have a folder each."""
    return root / "clusters"


def state_folder(
    role: Role, given: str | Path | None = None, *, place: str | None = None
) -> Path:
    """Return the folder of a role, made if need be, without holding it.

    This is what commands use that look at or change trust beside a running agent.
    `place` is its name if it is not the role's.
    """
    folder = state_root(given) / (place or role.value)
    make_private(folder)
    return folder


@contextlib.contextmanager
def held_state(
    role: Role, given: str | Path | None = None, *, place: str | None = None
) -> Iterator[StateDir]:
    """Hold a role's folder alone, or raise `AlreadyRunningError`.

    What a killed process left is cleared first: its jobs are ended, its run-time
    folder, which may hold keys of groups, is emptied (threat 79).
    """
    state = StateDir(role, state_folder(role, given, place=place))
    fd = os.open(state.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, state)
        make_private(state.run)
        end_leftovers(state.run)
        empty(state.run)
        try:
            yield state
        finally:
            empty(state.run)
    finally:
        os.close(fd)  # and with it goes the lock


def _lock(fd: int, state: StateDir) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunningError(
            state.role.value, str(state.folder), _holder(fd)
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)


def _holder(fd: int) -> int:
    """Return the process id in the lock file; 0 if its holder has not written yet."""
    text = os.pread(fd, _PID_BYTES, 0)
    return int(text) if text.isdigit() else 0
