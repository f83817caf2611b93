"""ipyparallel on an aemesh group: its controller beside the master, engines on members.

Each engine dials the controller, and nothing listens on a member.  All connections are
encrypted by CURVE: who knows the controller's key, from a private file, gets in.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import trio

from aemesh.errors import EngineError
from aemesh.model.group import Haste, Receipt
from aemesh.model.job import Channel, JobSpec

HEAD = {"head.py": Path(__file__).with_name("head.py").read_bytes()}
WORDS = ("--profile-dir=.", "--IPController.enable_curve=True", "--ping=500")
NODE = ("{python}", "-m", "ipyparallel.engine", "--profile-dir=.", "--file=engine.json")
FILES, UP = re.compile(rb'{"(client|engine)".*}\n'), re.compile(b"Completed registr")


class Running:
    """The controller, and the engines that have come to it."""

    def __init__(self, group, crew, jobs, folder, file):
        self.group, self.crew, self.jobs, self.folder = group, crew, jobs, folder
        self.node = JobSpec(NODE, files={"engine.json": json.dumps(file).encode()})

    async def add(self, member):
        """Start an engine for each core; return when all have registered."""
        jobs = self.jobs[member.label] = []
        for _ in range(member.cores):
            jobs.append(await member.start(self.node))  # noqa: PERF401 - one may fail
        for job in jobs:
            await self.crew.start(self.watch, member, job)

    async def watch(self, member, job, task_status):
        """Read what an engine says to its end; tell if that was not meant."""
        why = await listen(job, Channel.STDERR, UP, task_status)
        if member.label in self.jobs:
            self.group.member_broken(member, why)

    async def retire(self, member, *, by_after, haste=Haste.SOON):
        """End a member's engines."""
        await self.lost(member)
        return Receipt(member.name, self.group.name, graceful=True)

    async def lost(self, member):
        """End what is left there; the controller misses its heartbeat."""
        await end(self.jobs.pop(member.label, ()))

    def connect_info(self):
        """Return where `ipyparallel.Client()` looks for its file."""
        return {"IPYTHONDIR": self.folder}


class Ipyparallel:
    """Found by the name of its entry point."""

    name = "ipyparallel"

    @asynccontextmanager
    async def open(self, group):
        """Start the controller; at the end of the block nothing is left."""
        where = (f"--ip={group.address}", f"--location={group.address}")
        argv = ("{python}", "head.py", *where, *WORDS)
        jobs = {"": [await group.start_head(JobSpec(argv, files=HEAD))]}
        try:
            with tempfile.TemporaryDirectory() as folder:
                async with trio.open_nursery() as crew:
                    files = json.loads(await crew.start(self.watch, *jobs[""]))
                    place = Path(folder, "profile_default/security")
                    place.mkdir(parents=True)
                    file = place / "ipcontroller-client.json"
                    file.write_text(json.dumps(files["client"]))
                    yield Running(group, crew, jobs, folder, files["engine"])
                    crew.cancel_scope.cancel()
        finally:
            await end(chain(*jobs.values()))

    async def watch(self, head, task_status):
        """Read what the controller says; the engine ends with it."""
        why = await listen(head, Channel.STDOUT, FILES, task_status)
        raise EngineError("the controller of ipyparallel ended", why=why)

    def spare_node(self):
        """An engine needs its file from the start."""

    def spare_head(self):
        """A controller needs its address from the start."""


async def listen(job, channel, pattern, task_status):
    """Read a job's output to its end; report what matches, return the last line."""
    said, last, found = b"", b"", None
    async with aclosing(job.output()) as output:
        async for chunk in output:
            last = (last + chunk.data)[-200:]
            said = (said + chunk.data)[-4000:] if chunk.channel is channel else said
            if found is None and (found := pattern.search(said)):
                task_status.started(found[0])
    why = last.decode(errors="replace").strip().rpartition("\n")[2]
    if found is None:
        raise EngineError("ipyparallel did not come up", why=why)
    return why


async def end(jobs):
    """End jobs, all at one time, whatever is cancelled meanwhile."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(partial(job.end, term_after=0.5))


ENGINE = Ipyparallel()
