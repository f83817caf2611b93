"""A job asks its agent, over the socket beside its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.host.jobs import open_jobs
from aemesh.model.job import JobSpec
from aemesh.model.names import JobId
from aemesh.protocol.parcel import pack, unpack_untrusted
from aemesh.protocol.questions import (
    AskKnown,
    Items,
    State,
    encode,
    question_untrusted,
)
from tests.files import few_files

ONE = JobId("one")
ROOT = str(Path(__file__).parents[2])
ASK = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from aemesh.client.agent import this_agent
told, blob = this_agent().ask({{"t": "x", "n": 1}}, b"ab", b"c" * 300_000)
print(told["n"], len(blob), flush=True)
"""


async def echo(question: bytes) -> bytes:
    words, blob = unpack_untrusted(question)
    return pack(words, bytes(blob))


async def said(job) -> str:
    return b"".join([chunk.data async for chunk in job.output()]).decode()


def python(code: str) -> JobSpec:
    return JobSpec(argv=(sys.executable, "-c", code))


async def test_a_job_asks_and_is_answered(tmp_path: Path) -> None:
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(ASK), answer=echo)

        assert await said(job) == "1 300002\n"
        assert (await job.wait()).ok
    assert list((tmp_path / "run" / "jobs").iterdir()) == []


async def test_a_socket_in_a_very_deep_folder_serves_too(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 10] * 4)
    folder.mkdir(parents=True)
    async with open_jobs(folder / "run") as jobs:
        job = await jobs.start(ONE, python(ASK), answer=echo)

        assert await said(job) == "1 300002\n"


async def test_many_processes_of_one_job_ask_at_one_time(tmp_path: Path) -> None:
    code = "import os\nfor _ in range(8):\n    if not os.fork(): break\n" + ASK
    code += "\nwhile True:\n    try: os.wait()\n    except ChildProcessError: break"
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=echo)

        assert sorted((await said(job)).split("\n")) == ["", *["1 300002"] * 9]


async def test_a_spare_is_told_that_it_is_nobodys_job_yet(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from aemesh.client.agent import this_agent\n"
        "try: this_agent().ask({'t': 'x', 'n': 1})\n"
        "except Exception as error: print(error, flush=True)\n"
        "input()\n"
        "print(this_agent().ask({'t': 'x', 'n': 7})[0]['n'])\n"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        await jobs.start_spare(python(code))
        (spare,) = jobs.spares
        first = await anext(aiter(spare._output))
        assert b"nobody's job yet" in first.data

        job = await jobs.start(ONE, python(code), answer=echo)
        assert job is spare
        await job.send(b"\n")

        assert await said(job) == "7\n"


NONSENSE = f"""
import os, socket, sys
sys.path.insert(0, {ROOT!r})
path = os.environ["AEMESH_JOB_SOCKET"]
for data in (b"\\xff\\xff\\xff\\xff" + bytes(100), b"\\0\\0\\0\\3abc", b"\\0", b""):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    try:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        print(len(line.recv(1000)))
    except OSError:
        print(0)
{ASK}
"""


async def test_a_job_that_talks_nonsense_loses_that_connection_only(
    tmp_path: Path,
) -> None:
    """Threat: T5: what a job says is bounded, typed, and harms nobody."""

    async def answer(question: bytes) -> bytes:
        if question == b"abc":
            msg = "no parcel"
            raise BadMessage(msg)
        return await echo(question)

    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(NONSENSE), answer=answer)

        huge, typed, half, nothing, good, _ = (await said(job)).split("\n")

    assert (huge, half, nothing) == ("0", "0", "0")
    assert int(typed) > 0  # it was refused with words
    assert good == "1 300002"


async def test_large_questions_take_turns(tmp_path: Path) -> None:
    together: list[int] = [0, 0]

    async def slow(question: bytes) -> bytes:
        together[0] += 1
        together[1] = max(together)
        await trio.sleep(0.05)
        together[0] -= 1
        return await echo(question)

    code = "import os\nfor _ in range(3):\n    os.fork()\n" + ASK
    code += "\nwhile True:\n    try: os.wait()\n    except ChildProcessError: break"
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=slow)

        assert (await said(job)).count("1 300002") == 8
    assert together[1] <= limits.JOB_LARGE_AT_ONCE


async def test_a_job_that_says_half_a_question_gives_its_turn_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_SAYS_AFTER", 0.2)
    code = (
        "import os, socket\n"
        "line = socket.socket(socket.AF_UNIX)\n"
        "line.connect(os.environ['AEMESH_JOB_SOCKET'])\n"
        "line.sendall((10**6).to_bytes(4, 'big') + b'half')\n"
        "print(len(line.recv(10)))\n"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=echo)

        assert await said(job) == "0\n"


STATES = f"""
import os, socket, sys
sys.path.insert(0, {ROOT!r})
from aemesh.protocol.questions import AskKnown, AskResume, answer_untrusted, encode
resume = encode(AskResume(run="k", life=1, item="0" * 32))
known = encode(AskKnown(run="k", life=1, items=()))
def ask(question):
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["AEMESH_JOB_SOCKET"])
    line.sendall(len(question).to_bytes(4, "big") + question)
    return line.makefile("rb")
def read(line):
    data = line.read(int.from_bytes(line.read(4), "big"))
    return len(answer_untrusted(data)[1])
"""


class Master:
    """Answers with a state of some MiB, and counts how often."""

    def __init__(self) -> None:
        self.states = 0

    async def answer(self, question: bytes) -> bytes:
        words, _ = question_untrusted(question)
        await trio.lowlevel.checkpoint()
        if isinstance(words, AskKnown):
            return encode(Items(items=()))
        self.states += 1
        return encode(State(found=True), bytes(4_000_000))


async def test_a_state_that_a_job_does_not_take_is_the_only_one_of_it_in_memory(
    tmp_path: Path,
) -> None:
    """Threat: 87; and its short questions are answered meanwhile."""
    code = STATES + (
        "lines = [ask(resume) for _ in range(9)]\n"
        "print([read(ask(known)) for _ in range(20)][0], flush=True)\n"
        "input()\n"
        "print(sum(map(read, lines)))\n"
    )
    master = Master()
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=master.answer)
        async with aclosing(job.output()) as output:
            assert (await anext(output)).data == b"0\n"
            assert master.states == 1
            await job.send(b"\n")

            assert (await anext(output)).data == b"36000000\n"


async def test_a_job_that_does_not_take_a_state_gives_its_turn_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threat: 87."""
    monkeypatch.setattr(limits, "FRAME_AFTER", 1.0)
    code = STATES + (
        "first = ask(resume)\n"
        "first.peek(1)\n"
        "print(read(ask(resume)))\n"
        "print(len(first.read(4_000_000)) < 4_000_000)\n"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=Master().answer)

        assert await said(job) == "4000000\nTrue\n"


async def test_who_was_interrupted_while_it_asked_hears_the_answer_to_its_next(
    tmp_path: Path,
) -> None:
    """Shows: L3: a state is that of who asks, though an alarm ended its last try."""

    async def slow(question: bytes) -> bytes:
        words, _ = unpack_untrusted(question)
        if b'"first"' in words:
            os.kill(pid[0], signal.SIGALRM)
            await trio.sleep(0.1)
        return await echo(question)

    code = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {ROOT!r})\n"
        "from aemesh.client.agent import this_agent\n"
        "def late(*args): raise ValueError('it takes too long')\n"
        "signal.signal(signal.SIGALRM, late)\n"
        "input()\n"
        "try: this_agent().ask({'t': 'first'})\n"
        "except ValueError as error: print(error)\n"
        "print(this_agent().ask({'t': 'second'})[0]['t'])\n"
    )
    pid: list[int] = []
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=slow)
        pid.append(job.pid)
        await job.send(b"\n")

        assert await said(job) == "it takes too long\nsecond\n"


async def test_a_fork_asks_while_a_thread_of_its_parent_waits_for_an_answer(
    tmp_path: Path,
) -> None:
    forked = trio.Event()

    async def answer(question: bytes) -> bytes:
        words, _ = unpack_untrusted(question)
        if b'"parent"' in words:
            await job.send(b"\n")
            await forked.wait()
        else:
            forked.set()
        return await echo(question)

    code = (
        "import os, sys, threading, warnings\n"
        "warnings.simplefilter('ignore')\n"  # Python 3.12 warns of any such fork
        f"sys.path.insert(0, {ROOT!r})\n"
        "from aemesh.client.agent import this_agent\n"
        "def ask(name): print(this_agent().ask({'t': name})[0]['t'], flush=True)\n"
        "input()\n"
        "thread = threading.Thread(target=ask, args=('parent',))\n"
        "thread.start()\n"
        "input()\n"
        "if not os.fork(): ask('child'); os._exit(0)\n"
        "os.wait()\n"
        "thread.join()\n"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code), answer=answer)
        await job.send(b"\n")

        with trio.fail_after(20):
            assert sorted((await said(job)).split()) == ["child", "parent"]


async def test_a_process_that_is_killed_within_a_question_leaves_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_CALLERS", 1)
    code = (
        "import os, socket\n"
        "line = socket.socket(socket.AF_UNIX)\n"
        "line.connect(os.environ['AEMESH_JOB_SOCKET'])\n"
        "line.sendall((100).to_bytes(4, 'big') + b'half')\n"
        "line.close()\n"
    )
    async with open_jobs(tmp_path / "run") as jobs:
        job = await jobs.start(ONE, python(code + ASK), answer=echo)

        with trio.fail_after(20):
            assert await said(job) == "1 300002\n"


async def test_a_job_that_connects_until_no_file_is_left_ends_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Threat: T5: what a job does to its agent harms no other job."""
    code = (
        "import os, socket, sys\n"
        "lines = []\n"
        "for _ in range(100):\n"
        "    line = socket.socket(socket.AF_UNIX)\n"
        "    line.connect(os.environ['AEMESH_JOB_SOCKET'])\n"
        "    lines.append(line)\n"
        "print('full', flush=True)\n"
        "input()\n"
        "for line in lines: line.close()\n" + ASK
    )
    with trio.fail_after(30):
        async with open_jobs(tmp_path / "run") as jobs:
            other = await jobs.start(JobId("other"), JobSpec(argv=("cat",)))
            job = await jobs.start(ONE, python(code), answer=echo)
            with few_files(left=40):
                output = job.output()
                assert (await anext(output)).data == b"full\n"
                while not caplog.records:  # until it has no file to accept with
                    await trio.sleep(0.001)
                await job.send(b"\n")
                said = b"".join([chunk.data async for chunk in output])

            assert said == b"1 300002\n"
            assert other.running
    assert [one.getMessage() for one in caplog.records] == [
        "accepting pauses: Too many open files"
    ]


def test_what_a_job_imports_is_cheap() -> None:
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r}); import aemesh.client.agent; "
        "import json; print(json.dumps([m for m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"trio", "msgspec", "rich", "click", "cryptography"}
