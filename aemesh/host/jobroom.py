"""What a job finds when it starts: a folder with its files, and an environment.

Everything in a `JobSpec` was said by a master.  A master may run what it likes as
this user, but not by accident write outside the job's folder, nor see what the
agent has in its own environment.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, JobRefusedError, quoted
from aemesh.host.folders import PRIVATE
from aemesh.host.jobtree import MARKER
from aemesh.model.names import module_untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aemesh.model.job import JobSpec

PYTHON = "{python}"
# Where `aemesh commit` finds what it is to keep.
CHECKPOINT_VARIABLE = "AEMESH_CHECKPOINT"
PRELOAD = "AEMESH_PRELOAD"
_TLS = "tls"
# One plain name, or one in tls/: no "..", nothing hidden, nothing absolute.
_FILE_NAME = re.compile(rf"({_TLS}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{{0,99}}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

# What a job gets of the agent's environment; all else may be a secret (tokens,
# proxies with passwords, AEMESH_*) or means another program.
_INHERITED = frozenset(
    (
        # who and where we are: programs look up their settings and caches by it
        *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        # where programs, libraries and modules are: the user's own environment
        *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONPYCACHEPREFIX"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "ROOTSYS"),
        # how much of the machine the owner or the batch system grants
        *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
        "MKL_NUM_THREADS",
    )
)
_INHERITED_PREFIX = "LC_"  # LC_ALL, LC_CTYPE, …: how text is encoded


def check_spec(spec: JobSpec, *, tls: Mapping[str, bytes]) -> None:
    """Refuse with `JobRefusedError` what no job of ours may ask."""
    if not spec.argv or len(spec.argv) > limits.JOB_ARGS:
        _refuse(f"{len(spec.argv)} arguments", f"expected 1 to {limits.JOB_ARGS}")
    for arg in spec.argv:
        _check_text("argument", arg)
    if len(spec.env) > limits.JOB_ENV:
        _refuse(f"{len(spec.env)} variables", f"expected up to {limits.JOB_ENV}")
    for name, value in spec.env.items():
        if not _VARIABLE.fullmatch(name):
            _refuse(f"variable {quoted(name)}", "expected letters, digits, _")
        _check_text("variable", f"{name}={value}")  # one string to the kernel
    _check_preload(spec.preload)
    files = {**spec.files, **{f"{_TLS}/{name}": data for name, data in tls.items()}}
    if len(files) > limits.JOB_FILES:
        _refuse(f"{len(files)} files", f"expected up to {limits.JOB_FILES}")
    for name, data in files.items():
        if not _FILE_NAME.fullmatch(name) or name == _TLS:
            _refuse(f"file {quoted(name)}", "expected a plain name, or tls/NAME")
        if len(data) > limits.JOB_FILE_BYTES:
            _refuse(f"file {quoted(name)} has {len(data)} bytes", "too long")


def _check_preload(modules: Sequence[str]) -> None:
    if len(modules) > limits.PRELOADS:
        _refuse(f"{len(modules)} modules", f"expected up to {limits.PRELOADS}")
    try:
        for module in modules:
            module_untrusted(module)
    except BadMessage as error:
        _refuse("a preload", error.what)


def make_room(room: Path, spec: JobSpec, *, tls: Mapping[str, bytes]) -> None:
    """Make the job's folder, with its files in it; it must not be there yet."""
    room.mkdir(mode=PRIVATE)
    for name, data in spec.files.items():
        _write(room / name, data)
    add_tls(room, tls)


def add_tls(room: Path, tls: Mapping[str, bytes]) -> None:
    """Put the group's certificates into the job's folder.

    Raises `OSError` if that is a job which runs already, and has put others there.
    """
    for name, data in tls.items():
        _write(room / _TLS / name, data)


def tls_file(room: Path, name: str) -> Path:
    """Return where one of the certificates' files is."""
    return room.absolute() / _TLS / name


def checkpoint_folder(room: Path) -> Path:
    """Return where a command of this folder puts its state; not made, and beside it."""
    return room.absolute().with_name(f"{room.name}.checkpoint")


def job_argv(spec: JobSpec) -> list[str]:
    """Return the arguments, ``{python}`` in front as the running interpreter."""
    first = sys.executable if spec.argv[0] == PYTHON else spec.argv[0]
    return [first, *spec.argv[1:]]


def job_environment(
    spec: JobSpec, *, job: str, marker: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of a job."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIX)
    }
    ours = {"AEMESH_JOB": job, MARKER: marker}
    if spec.preload:
        ours[PRELOAD] = ",".join(spec.preload)
    return {**inherited, **spec.env, **extra, **ours}


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        _refuse(f"{what} {quoted(text)}", "it has a NUL")
    if len(text.encode(errors="surrogateescape")) > limits.JOB_ARG_BYTES:
        _refuse(f"{what} {quoted(text)}", f"over {limits.JOB_ARG_BYTES} bytes")


def _refuse(what: str, why: str) -> None:
    raise JobRefusedError(what, why=why)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=PRIVATE, exist_ok=True)
    # A spare runs already: it may have made tls/ a link to the outside.
    folder = os.open(path.parent, _FOLDER_FLAGS)
    try:
        fd = os.open(path.name, _FILE_FLAGS, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
