"""Attacks on this machine's part: files, keys, jobs, and what outlives them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import trio

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.host.jobs import open_jobs
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.host.processes import read_process
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.pending import list_requests, write_request
from aemesh.host.trust.trustfiles import add, read_book, touch_last, verify
from aemesh.model.job import JobSpec
from aemesh.model.key import PublicKey
from aemesh.model.names import JobId, NodeName
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    Role,
    TrustRequest,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADD = """
import sys
from pathlib import Path
from aemesh.host.trust.trustfiles import add
from aemesh.model.key import PublicKey
from aemesh.model.trust import KnownPeer, Role

start, count = int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(start, start + count):
    key = PublicKey(number.to_bytes(32, "big"))
    peer = KnownPeer(f"w{number}", key, "tofu", "20261120")
    add(Path(sys.argv[1]), Role.WORKER, peer)
    print(number, flush=True)
"""


@contextlib.contextmanager
def adding(folder: Path, start: int, count: int) -> Iterator[subprocess.Popen[str]]:
    """Run a process that adds peers, one after the other, and tells each."""
    with subprocess.Popen(
        [sys.executable, "-c", ADD, folder, str(start), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def gone(pid: int) -> bool:
    now = read_process(pid)
    return now is None or not now.alive


# --- trust files ------------------------------------------------------------


def test_two_processes_that_append_at_once_lose_no_line(tmp_path: Path):
    """Threat: 32."""
    with adding(tmp_path, 0, 60) as one, adding(tmp_path, 1000, 60) as two:
        go(one)
        go(two)
        assert (one.wait(), two.wait()) == (0, 0)

    names = {peer.name for peer in read_book(tmp_path, Role.WORKER).known}

    assert names == {f"w{n}" for n in (*range(60), *range(1000, 1060))}


@pytest.mark.parametrize("after", range(0, 40, 4))
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(after: int, tmp_path: Path):
    """Threat: 32."""
    with adding(tmp_path, 0, 10_000) as writer:
        go(writer)
        told = -1
        while told < after:
            told = int(writer.stdout.readline())
        writer.kill()
        told = max([told, *(int(line) for line in writer.stdout if line.strip())])

    book = read_book(tmp_path, Role.WORKER)
    assert [peer.name for peer in book.known][: told + 1] == [
        f"w{number}" for number in range(told + 1)
    ]
    late = KnownPeer(NodeName("late"), PublicKey(b"\1" * 32), "tofu", "20261120")
    assert add(tmp_path, Role.WORKER, late)  # no lock is left behind


def test_adding_touching_and_verifying_at_once_lose_nothing(tmp_path: Path):
    """Threat: 32: lines are edited in place by name, not by number."""
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(40)]
    with adding(tmp_path, 0, 40) as writer:
        go(writer)
        for key in keys:
            writer.stdout.readline()
            assert touch_last(tmp_path, Role.WORKER, key, "20270101", mode=Mode.GSS)
            assert verify(tmp_path, Role.WORKER, key.key_id)
        assert writer.wait() == 0

    known = read_book(tmp_path, Role.WORKER).known

    assert [p.key for p in known] == keys
    assert {(p.last, p.mode, p.via) for p in known} == {
        ("20270101", Mode.GSS, "verified")
    }


def test_of_two_first_masters_one_name_wins(tmp_path: Path):
    """Threat: 32."""
    mine = KnownPeer(NodeName("desk"), PublicKey(b"\1" * 32), "tofu", "20261120")
    other = KnownPeer(NodeName("desk"), PublicKey(b"\2" * 32), "tofu", "20261120")
    add(tmp_path, Role.MASTER, mine)

    with pytest.raises(RefusedError):
        add(tmp_path, Role.MASTER, other)

    assert [peer.key for peer in read_book(tmp_path, Role.MASTER).known] == [mine.key]


# --- what a job can see -----------------------------------------------------

LOOK = """
import json, os
fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
       if os.path.exists(f"/proc/self/fd/{fd}")}
print(json.dumps({"fds": fds, "env": dict(os.environ), "cwd": os.getcwd(),
                  "argv": open("/proc/self/cmdline").read()}))
"""


async def test_a_job_inherits_no_file_key_or_secret_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 84."""
    monkeypatch.setenv("AEMESH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent.sock")
    identity = load_or_make(tmp_path / "state", "lab-3")
    key = (tmp_path / "state" / "id_ed25519").read_text()
    held = os.open(tmp_path / "state" / "id_ed25519", os.O_RDONLY)
    inheritable = os.open(tmp_path / "state" / "id_ed25519", os.O_RDONLY)
    os.set_inheritable(inheritable, True)

    async with open_jobs(tmp_path / "run") as jobs:
        spec = JobSpec(argv=("{python}", "-c", LOOK))
        job = await jobs.start(JobId("spy"), spec)
        out = b"".join([chunk.data async for chunk in job.output()]).decode()
    os.close(held)
    os.close(inheritable)

    seen = json.loads(out)
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert all(target.startswith("pipe:") for target in seen["fds"].values())
    assert not {"AEMESH_STATE", "SSH_AUTH_SOCK"} & seen["env"].keys()
    assert "PRIVATE" not in out
    assert not any(line in out for line in key.splitlines())
    assert str(identity.key_id) not in out


def test_no_message_of_ours_quotes_a_damaged_key(tmp_path: Path):
    """Threat: 93."""
    identity = load_or_make(tmp_path, "lab-3")
    path = tmp_path / "id_ed25519"
    secret = path.read_text().splitlines()[1]
    path.write_text(path.read_text().replace("PRIVATE KEY", "PRIVATE KEX"))

    program = (
        "import sys; from pathlib import Path;"
        "from aemesh.host.keys.keystore import load_or_make;"
        "load_or_make(Path(sys.argv[1]), 'x')"
    )
    failed = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )

    assert "KeyFileError" in failed.stderr
    assert secret not in failed.stderr
    assert secret[:20] not in repr(identity)


# --- floods -----------------------------------------------------------------


def test_refusals_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Threat: 89."""
    monkeypatch.setattr(limits, "AUDIT_LOG_BYTES", 20_000)
    log = AuditLog(tmp_path)
    refusal = Verdict(Decision.NO, Reason.UNKNOWN, "\x00" * 10_000)
    for number in range(500):
        key = PublicKey(number.to_bytes(32, "big"))
        name = NodeName(f"evil-{number}")
        peer = Peer(Role.MASTER, name, key, Mode.LEAP, "192.0.2.1:4000")
        log.write(peer, refusal, now=float(number))

    files = sorted(path.name for path in tmp_path.glob("audit*"))
    sizes = [(tmp_path / name).stat().st_size for name in files]
    assert files == ["audit.log", "audit.log.1"]
    assert sum(sizes) <= 40_000
    lines = (tmp_path / "audit.log").read_text().splitlines()
    assert json.loads(lines[-1])["name"] == "evil-499"


def test_requests_of_strangers_do_not_fill_the_disk(tmp_path: Path):
    """Threat: 89."""
    for number in range(limits.PENDING_REQUESTS * 2):
        request = TrustRequest(
            role=Role.MASTER,
            name=NodeName("evil"),
            key=PublicKey(number.to_bytes(32, "big")),
            address="192.0.2.1:4000",
            reason=Reason.UNKNOWN,
            asked_at=float(number),
        )
        write_request(tmp_path, request)

    assert len(list_requests(tmp_path)) == limits.PENDING_REQUESTS
    assert len(list((tmp_path / "pending").iterdir())) <= limits.PENDING_REQUESTS + 1


async def test_the_agent_lives_while_a_job_multiplies(tmp_path: Path):
    """Threat: 86."""
    bomb = (
        "import os, signal\n"
        "for n in range(7):\n    os.fork()\n"
        "os.write(1, b'x')\nsignal.pause()"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(JobId("bomb"), JobSpec(argv=("{python}", "-c", bomb)))
        output = job.output()
        count = 0
        with trio.fail_after(30):
            while count < 128:
                count += len((await anext(output)).data)
            await job.end(term_after=0)

    left = [p for p in psutil.process_iter() if bomb in _command(p)]
    assert left == []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# --- what outlives the agent ------------------------------------------------

AGENT = """
import sys, os
from aemesh.host.warden import run_guarded

JOB = '''
import os, signal, sys
def tell(): os.write(1, b"%d\\\\n" % os.getpid())
tell()
if os.fork() == 0:
    os.setpgid(0, 0); tell(); signal.pause()
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    tell(); signal.pause()
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    bare = ("import os, signal;"
        "os.write(1, b'%d\\\\\\\\n' % os.getpid()); signal.pause()")
    os.execve(sys.executable, [sys.executable, "-c", bare], {})
signal.pause()
'''

def main():
    import trio
    from pathlib import Path
    from aemesh.host.guard import open_guard
    from aemesh.host.jobs import open_jobs
    from aemesh.model.job import JobSpec

    async def work():
        async with open_guard() as guard, open_jobs(Path(sys.argv[1])) as jobs:
            job = await jobs.start("one", JobSpec(argv=("{python}", "-c", JOB)))
            text = b""
            output = job.output()
            while text.count(b"\\n") < 4:
                text += (await anext(output)).data
            print(os.getppid(), os.getpid(), *text.split(), sep=" ", flush=True)
            notice = await guard.receive()
            jobs.end_all(term_after=0, reason=notice.value)

    trio.run(work)
    return 0

sys.exit(run_guarded(main))
"""


@contextlib.contextmanager
def agent_with_runaways(
    folder: Path,
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run a guarded agent with one job whose children try everything to stay."""
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, folder],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        line = process.stdout.readline().replace("b'", "").replace("'", "")
        yield process, [int(word) for word in line.split()]


async def wait_gone(pids: list[int]) -> None:
    with trio.fail_after(10):
        while not all(gone(pid) for pid in pids):
            await trio.sleep(0.005)


@pytest.mark.parametrize("victim", ["agent", "warden"])
async def test_after_kill_9_nothing_of_the_job_goes_on(victim: str, tmp_path: Path):
    """Threat: 90."""
    with agent_with_runaways(tmp_path / "run") as (process, pids):
        warden, agent, *tree = pids
        assert len(tree) == 4
        assert warden == process.pid
        assert not any(gone(pid) for pid in pids)

        os.kill(agent if victim == "agent" else warden, 9)

        await wait_gone(pids)
        assert process.wait() == (137 if victim == "agent" else -9)


async def test_after_a_polite_end_nothing_of_the_job_goes_on(tmp_path: Path):
    """Threat: 90."""
    with agent_with_runaways(tmp_path / "run") as (process, pids):
        process.terminate()

        await wait_gone(pids)
        assert process.wait() == 0


def test_an_ephemeral_identity_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 79."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    Identity.ephemeral("laptop")

    assert list(tmp_path.iterdir()) == []
