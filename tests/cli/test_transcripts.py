"""The command line, as a person sees it: each transcript is run in real processes.

A line with ``$`` is a command; what follows is all that it prints, stdout and
stderr together, and ``[n]`` if its exit code n is not 0.  ``…`` stands for any text
within a line.  A line with ``%`` prepares the state directory (see `PREPARE`); one
with ``#`` is for the reader.  In a command ``STATE`` is the state directory.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.statedir import state_folder
from aemesh.host.trust.pending import list_requests, write_request
from aemesh.host.trust.trustfiles import add
from aemesh.master.control import serve_control
from aemesh.model.key import PublicKey
from aemesh.model.names import GroupName, NodeName
from aemesh.model.run import Checkpoint, Commit, ItemId, Piece, RunKey, RunName
from aemesh.model.trust import KnownPeer, Reason, Role, TrustRequest
from aemesh.model.view import ImposterView
from aemesh.testing.memory_control import MemoryControl

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
ANYTHING = "…"


@dataclass
class Stage:
    """The state directory of one transcript, and the master that may serve it."""

    state: Path
    api: MemoryControl
    nursery: trio.Nursery
    environ: dict[str, str] = field(default_factory=dict)

    async def master(self) -> None:
        """``% master``: a master serves, with workers office-1 to 3 and two groups."""
        path = self.state / "master" / SOCKET_FILE
        await self.nursery.start(serve_control, self.api, path)

    async def imposter(self) -> None:
        """``% imposter``: somebody announced itself as office-1."""
        self.api.imposters.append(
            ImposterView(
                name="office-1",
                key=str(_key("a").key_id),
                addresses=("10.77.0.66:7472",),
                reason="it is replayed",
                first_at=1_800_000_000.0,
                last_at=1_800_000_060.0,
                times=2,
            )
        )

    async def failing(self, name: str) -> None:
        """``% failing NAME``: the worker comes up in no group that it is moved to."""
        self.api.failing.add(name)

    async def stoppable(self) -> None:
        """``% stoppable``: the master's process is one that ends at `aemesh stop`."""
        process = await trio.lowlevel.open_process(["/bin/sleep", "1000"])
        self.api.pid = process.pid

        async def end() -> None:
            try:
                await self.api.stopped.wait()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

        self.nursery.start_soon(end)

    async def settings(self, *words: str) -> None:
        """``% settings TEXT``: the file of defaults, read by all that follows."""
        path = self.state.parent / "config.toml"
        path.write_text(" ".join(words).replace("\\n", "\n") + "\n")
        path.chmod(0o600)
        self.environ["AEMESH_CONFIG"] = str(path)

    async def variable(self, name: str, *words: str) -> None:
        """``% variable NAME VALUE``: in the environment of all that follows."""
        self.environ[name] = " ".join(words)

    async def durable(self, group: str, key: str, *values: str) -> None:
        """``% durable GROUP KEY VALUE…``: a run with these values, and a checkpoint."""
        name, run = GroupName(group), RunKey(key)
        view = await self.api.clerk.open_run(
            name, run, fingerprint="f", title=f"work {key}", total=3, fresh=False
        )
        opened = RunName(name, run, view.life)
        pieces = tuple(
            Piece(ItemId(f"{number:032x}"), value.encode(), f"item {number}")
            for number, value in enumerate(values)
        )
        await self.api.clerk.apply(Commit(opened, pieces, "office-1"))
        middle = Piece(ItemId(f"{99:032x}"), b"state")
        await self.api.clerk.apply(Checkpoint(opened, middle, "office-2"))

    async def key(self, role: str) -> None:
        """``% key ROLE``: the role has a key."""
        load_or_make(state_folder(Role(role), self.state), "laptop")

    async def pending(self, name: str, letter: str) -> None:
        """``% pending NAME LETTER``: a worker with a key of that letter waits."""
        request = TrustRequest(
            role=Role.WORKER,
            name=NodeName(name),
            key=_key(letter),
            address="10.77.0.2:41001",
            reason=Reason.UNKNOWN,
            asked_at=1_800_000_000.0,
        )
        write_request(state_folder(Role.MASTER, self.state), request)

    async def known(self, name: str, letter: str) -> None:
        """``% known NAME LETTER``: a worker with a key of that letter is known."""
        peer = KnownPeer(NodeName(name), _key(letter), via="tofu", added="20270115")
        add(state_folder(Role.MASTER, self.state), Role.WORKER, peer)

    async def meeting(self, name: str, letter: str, code: str, tries: str) -> None:
        """``% meeting NAME LETTER CODE TRIES``: as pending, with a code to compare."""
        folder = state_folder(Role.MASTER, self.state)
        await self.pending(name, letter)
        (request,) = [r for r in list_requests(folder) if r.name == name]
        write_request(folder, replace(request, code=code, tries=int(tries)))

    async def line(self, role: str, file: str, *words: str) -> None:
        """``% line ROLE FILE WORDS``: a line in a trust file; KEY-a is a key."""
        path = state_folder(Role(role), self.state) / file
        text = re.sub(r"KEY-(.)", lambda found: _key(found[1]).openssh, " ".join(words))
        with path.open("a") as stream:
            stream.write(f"{text}\n")
        path.chmod(0o600)

    async def file(self, name: str, *words: str) -> None:
        """``% file NAME TEXT``: a file beside the state directory."""
        (self.state.parent / name).write_text(
            " ".join(words).replace("\\n", "\n") + "\n"
        )

    async def request(self, role: str, name: str) -> None:
        """``% request ROLE FILE``: a request for a certificate of the role's key."""
        identity = load_or_make(state_folder(Role(role), self.state), "laptop")
        (self.state.parent / name).write_text(identity.request())

    async def private(self, name: str) -> None:
        """``% private FILE``: only its owner can read it."""
        (self.state.parent / name).chmod(0o600)

    async def run(self, command: str) -> list[str]:
        """Run one command; return the lines that it printed, and its exit code."""
        words = [
            word.replace("STATE", str(self.state)) for word in shlex.split(command)
        ]
        assert words[0] == "aemesh"
        with trio.fail_after(30):
            done = await trio.run_process(
                [sys.executable, "-m", "aemesh", *words[1:]],
                stdin=b"",
                capture_stdout=True,
                stderr=-2,  # to stdout
                check=False,
                env={
                    **os.environ,
                    "AEMESH_STATE": str(self.state),
                    "TZ": "UTC",
                    **self.environ,
                },
                cwd=self.state.parent,
            )
        lines = done.stdout.decode().replace(str(self.state), "STATE")
        lines = lines.replace(str(self.state.parent), "HERE").splitlines()
        return lines + ([f"[{done.returncode}]"] if done.returncode else [])


PREPARE = {
    "master": Stage.master,
    "imposter": Stage.imposter,
    "failing": Stage.failing,
    "stoppable": Stage.stoppable,
    "settings": Stage.settings,
    "variable": Stage.variable,
    "durable": Stage.durable,
    "key": Stage.key,
    "pending": Stage.pending,
    "known": Stage.known,
    "meeting": Stage.meeting,
    "line": Stage.line,
    "file": Stage.file,
    "request": Stage.request,
    "private": Stage.private,
}


def _key(letter: str) -> PublicKey:
    return PublicKey(letter.encode() * 32)


@asynccontextmanager
async def stage(folder: Path):
    state = folder / "state"
    state.mkdir(mode=0o700)
    api = MemoryControl(
        state_dir=str(state),
        members={"office-1": "A", "office-2": "A", "office-3": None},
        engines={"A": "dask", "B": "command"},
    )
    api.tell("group.ready", "group A is ready", group="A")
    api.tell("worker.joined", "office-1 joined A", worker="office-1", group="A")
    async with trio.open_nursery() as nursery:
        yield Stage(state, api, nursery)
        nursery.cancel_scope.cancel()


def _matches(expected: str, line: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.split(ANYTHING))
    return re.fullmatch(pattern, line) is not None


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_a_transcript_is_true(path: Path, tmp_path: Path):
    """Shows: A7, T7, U1."""
    wanted = path.read_text().splitlines()
    came: list[str] = []

    async with stage(tmp_path) as play:
        for line in wanted:
            if line.startswith(("#", "%", "$")):
                came.append(line)
            if line.startswith("% "):
                name, *words = line[2:].split()
                await PREPARE[name](play, *words)
            elif line.startswith("$ "):
                came += await play.run(line[2:])

    # Lines are compared one by one, and blank ones mean nothing; on a difference
    # pytest shows both whole transcripts.
    told = [line for line in came if line]
    asked = [line for line in wanted if line]
    if len(told) == len(asked):
        told = [
            want if _matches(want, line) else line
            for want, line in zip(asked, told, strict=True)
        ]
    assert told == asked


def test_every_preparation_is_used():
    text = "\n".join(path.read_text() for path in TRANSCRIPTS)

    for name in PREPARE:
        assert re.search(rf"^% {name}\b", text, re.MULTILINE), name
