"""What can go wrong, in one tree: the class says whose fault it is.

Every class has a stable ``name`` (for scripts and JSON), the process's
``exit_code``, and builds its own sentence from values, so that all who raise it
speak with one voice.  ``docs/reference/errors.md`` is made from this file.
"""

from __future__ import annotations

import copyreg
from typing import ClassVar

# Text from strangers is cut here before it is shown: a line on a terminal.
QUOTED_LENGTH = 80


def quoted(text: str) -> str:
    """Return text from a stranger, cut and with control characters as escapes."""
    shown = text[:QUOTED_LENGTH].encode("unicode_escape").decode("ascii")
    dots = "…" if len(text) > QUOTED_LENGTH else ""
    return '"' + shown.replace('"', '\\"') + dots + '"'


class AemeshError(Exception):
    """Anything that aemesh itself says went wrong."""

    name: ClassVar[str] = "aemesh/error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, why: str | None = None, hint: str | None = None
    ) -> None:
        self.what = what
        self.why = why
        self.hint = hint
        super().__init__(what if why is None else f"{what}: {why}")
        if hint is not None:  # what a traceback shows below the sentence
            self.add_note(f"hint: {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        """Have it pickled as it is: classes build their sentences from other values."""
        return (copyreg.__newobj__, (type(self), *self.args), self.__dict__)  # type: ignore[attr-defined]  # not in its stub

    def fields(self) -> dict[str, str | int | None]:
        """Return what ``--json`` prints of this error."""
        return {
            "error": self.name,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


# --- ours -------------------------------------------------------------------


class BugError(AemeshError):
    """aemesh contradicted itself; the traceback is worth a report."""

    name = "ours/bug"
    exit_code = 1


# --- the user's words and settings ------------------------------------------


class UsageError(AemeshError):
    """The command line asks for something that does not exist."""

    name = "usage/words"
    exit_code = 2


class SettingsError(AemeshError):
    """A setting or a file of the user's cannot be used as it is."""

    name = "settings/file"
    exit_code = 3


class SettingsFileError(SettingsError):
    """The file of a user's defaults has a wrong name or value, or is not safe."""

    name = "settings/defaults"


class OutputError(SettingsError):
    """What a command prints is not taken: the disk that it goes to is full, say."""

    name = "settings/output"

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(
            f"{where} cannot be written",
            why=error.strerror,
            hint="make room where it goes, or send it elsewhere",
        )


class KeyFileError(SettingsError):
    """The identity key is readable by others, damaged, or not of our kind."""

    name = "settings/key"


class TrustFileError(SettingsError):
    """A trust file is writable by others or has a line that cannot be read."""

    name = "settings/trust-file"


class CertificateFileError(SettingsError):
    """A file of X.509 is missing, damaged, or not for this node."""

    name = "settings/certificate"


class OpenRefusedError(SettingsError):
    """``--insecure-open`` was asked for where anybody could connect."""

    name = "settings/open-refused"

    def __init__(self, host: str) -> None:
        super().__init__(
            "this machine cannot be open",
            why=f"its address {host} is public: anybody could run programs here",
            hint="leave --insecure-open out; `aemesh trust accept` admits each key",
        )


class NoMasterError(SettingsError):
    """A command needs a running master in this state directory; there is none."""

    name = "settings/no-master"

    def __init__(self, state: str) -> None:
        super().__init__(
            "no master is running",
            why=f"nothing answers in {state}",
            hint="start one with `aemesh master --group NAME`",
        )


class NoWorkerError(SettingsError):
    """A command needs a running worker in this state directory; there is none."""

    name = "settings/no-worker"

    def __init__(self, state: str) -> None:
        super().__init__(
            "no worker is running",
            why=f"nothing answers in {state}",
            hint="on a master's machine, `aemesh workers drain NAME` asks for the same",
        )


class AlreadyRunningError(SettingsError):
    """A second process of one role was started in one state directory."""

    name = "settings/already-running"

    def __init__(self, role: str, state: str, pid: int) -> None:
        super().__init__(
            f"a {role} is already running in {state}",
            why=f"process {pid} holds it",
            hint="give the second one a folder of its own: `--state DIR`",
        )


class UnknownNameError(SettingsError):
    """A worker, group, request or engine of this name is not there."""

    name = "settings/unknown-name"

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        names = ", ".join(known) if known else "none"
        super().__init__(f"unknown {kind} {quoted(name)}", why=f"known: {names}")


class OtherWorkError(SettingsError):
    """Under this key another function or command was run; its values are others."""

    name = "run/other-work"

    def __init__(
        self, key: str, kept: str, asked: str, *, is_other_rule: bool = False
    ) -> None:
        why = f"it has values of {quoted(kept)}, asked is {quoted(asked)}"
        if is_other_rule:
            why = f"this aemesh compares {quoted(asked)} by another rule than then"
        elif kept == asked:
            why = f"{quoted(asked)} is not as it was when the run began"
        super().__init__(
            f"run {key} is of another computation",
            why=why,
            hint="take another key, or begin anew: `--anew`, in Python `fresh=True`",
        )


class UnknownRunError(SettingsError):
    """There is no run of this key, or it was begun anew since."""

    name = "run/unknown"

    def __init__(self, group: str, key: str) -> None:
        super().__init__(
            f"group {group} has no run {key}",
            why="it was never begun, or was removed or begun anew meanwhile",
            hint="`aemesh runs` lists what there is",
        )


class RunFullError(SettingsError):
    """A value, or a run as a whole, is larger than what the master keeps."""

    name = "run/full"


class LedgerError(SettingsError):
    """The master cannot keep results: its disk is full, or its files are damaged."""

    name = "run/ledger"


# --- trust ------------------------------------------------------------------


class RefusedError(AemeshError):
    """A peer does not let our key do this, or we do not let it."""

    name = "trust/refused"
    exit_code = 4


class KeyChangedError(RefusedError):
    """A known name came with another key than the one that was accepted."""

    name = "trust/key-changed"


class PeerError(AemeshError):
    """A peer broke the protocol; the connection to it is closed."""

    name = "peer/protocol"
    exit_code = 6


class BadMessage(PeerError):  # noqa: N818 - STYLE.md section 2.11 gives this name
    """Bytes from a peer that are not what the protocol allows there."""

    name = "peer/bad-message"

    def __init__(self, what: str) -> None:
        super().__init__(what)


class RequestFailedError(PeerError):
    """A peer understood a request and answered that it could not be done."""

    name = "peer/request-failed"


class BusyError(RequestFailedError):
    """A peer has as much to do as it takes at one time; later it takes more."""

    name = "peer/busy"


# --- the world --------------------------------------------------------------


class NobodyFoundError(AemeshError):
    """No peer was found in the time that was given."""

    name = "world/nobody-found"
    exit_code = 5


class UnreachableError(AemeshError):
    """A peer did not answer, or its connection broke."""

    name = "world/unreachable"
    exit_code = 6


class NotBegunError(UnreachableError):
    """There was no place, or no connection, for what was asked; later there may be.

    Nothing was lost, and nobody is to blame.
    """

    name = "world/not-begun"


class JobLostError(AemeshError):
    """A script that ran detached is gone, and nobody saw how it ended."""

    name = "world/job-lost"
    exit_code = 6

    def __init__(self, job: str, script: str, host: str) -> None:
        super().__init__(
            f"job {job} ({script}) is lost",
            why=f"its supervisor was killed, or {host} went down",
            hint=f"`aemesh logs {job}` has what it printed",
        )


class GroupIncompleteError(AemeshError):
    """A group did not get the workers that it needs in time."""

    name = "group/incomplete"
    exit_code = 7


class GroupClosedError(AemeshError):
    """A group was removed while something was to run on it."""

    name = "group/closed"
    exit_code = 7

    def __init__(self, group: str) -> None:
        super().__init__(
            f"group {group} was closed",
            hint=f"`aemesh group add {group}` makes it anew; with --key, what was "
            "finished is kept",
        )


class EngineError(AemeshError):
    """An engine, or a job that belongs to it, did not do what was asked."""

    name = "engine/failed"
    exit_code = 8


class JobRefusedError(EngineError):
    """A job cannot be started as its description asks."""

    name = "engine/job-refused"


# --- told elsewhere ---------------------------------------------------------


def same_error(
    name: str, what: str, *, why: str | None = None, hint: str | None = None
) -> AemeshError:
    """Return the error of the class of this name, with the sentence it was told with.

    The classes build their sentences from values that are not on the wire, so
    their own ``__init__`` is passed over.
    """
    kind = _classes().get(name, AemeshError)
    error = kind.__new__(kind)
    AemeshError.__init__(error, what, why=why, hint=hint)
    return error


def _classes() -> dict[str, type[AemeshError]]:
    """Return every class of error by its stable name."""
    found: dict[str, type[AemeshError]] = {}
    waiting: list[type[AemeshError]] = [AemeshError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.name, kind)
        waiting.extend(kind.__subclasses__())
    return found
