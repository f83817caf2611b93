"""Jobs: a folder and a session each, output with back-pressure, ended whole."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import trio

from aemesh import limits
from aemesh.errors import BugError, EngineError, JobRefusedError, UnreachableError
from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.leftovers import end_leftovers
from aemesh.host.processes import read_process
from aemesh.model.job import PROXY_FILE, Channel, JobExit, JobSpec
from aemesh.model.names import JobId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE, TWO = JobId("one"), JobId("two")


def python(code: str, **more: object) -> JobSpec:
    return JobSpec(argv=("{python}", "-c", code), **more)  # type: ignore[arg-type]


def shell(script: str) -> JobSpec:
    return JobSpec(argv=("sh", "-c", script))


@contextlib.asynccontextmanager
async def jobs_in(folder: Path) -> AsyncIterator[JobRunner]:
    """Run jobs, and check that nothing of them is left."""
    with trio.fail_after(30):
        async with open_jobs(folder / "run") as jobs:
            yield jobs
    assert list((folder / "run" / "jobs").iterdir()) == []


async def read_all(job: object) -> tuple[bytes, bytes]:
    parts = {Channel.STDOUT: b"", Channel.STDERR: b""}
    async for chunk in job.output():
        parts[chunk.channel] += chunk.data
    return parts[Channel.STDOUT], parts[Channel.STDERR]


def gone(pid: int) -> bool:
    now = read_process(pid)
    return now is None or not now.alive


# --- starting ---------------------------------------------------------------


async def test_a_job_runs_and_both_its_outputs_are_heard(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell("echo out; echo err >&2; exit 3"))

        assert await read_all(job) == (b"out\n", b"err\n")
        assert await job.wait() == JobExit(3)


async def test_a_job_reads_what_is_sent(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, JobSpec(argv=("cat",)))
        await job.send(b"hello ")
        await job.send(b"world")
        await job.close_input()

        assert await read_all(job) == (b"hello world", b"")
        assert (await job.wait()).ok


async def test_sending_to_an_ended_job_is_told(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell("exec <&-; exit 0"))
        await job.wait()

        with pytest.raises(UnreachableError, match="job one takes no input"):
            await job.send(b"x" * 100_000)


async def test_a_job_starts_in_a_private_folder_with_its_files(tmp_path: Path):
    code = (
        "import os, json; s = lambda p: (oct(os.stat(p).st_mode & 0o777),"
        " open(p).read()); print(json.dumps([oct(os.stat('.').st_mode & 0o777),"
        " s('node.py'), s('tls/key.pem'), s('tls/note'), sorted(os.listdir())]))"
    )
    spec = python(code, files={"node.py": b"pass", "tls/note": b"n"})
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, spec, tls={"key.pem": b"secret"})
        out, _ = await read_all(job)

        assert json.loads(out) == [
            "0o700",
            ["0o600", "pass"],
            ["0o600", "secret"],
            ["0o600", "n"],
            ["node.py", "tls"],
        ]
        await job.wait()


async def test_a_job_is_its_own_session_and_group(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(
            ONE, python("import os; print(os.getsid(0), os.getpgid(0), os.getpid())")
        )
        out, _ = await read_all(job)

        assert set(out.split()) == {str(job.pid).encode()}


async def test_a_job_gets_the_allowed_environment_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AEMESH_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    monkeypatch.setenv("PYTHONPATH", "/analysis")
    spec = python(
        "import os, json; print(json.dumps(dict(os.environ)))", env={"A": "1"}
    )
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, spec, env={"B": "2"})
        out, _ = await read_all(job)

    env = json.loads(out)
    assert "secret" not in out.decode()
    assert env["AEMESH_JOB"] == "one"
    assert (env["A"], env["B"], env["LC_TIME"]) == ("1", "2", "C.UTF-8")
    assert (env["PATH"], env["PYTHONPATH"]) == (os.environ["PATH"], "/analysis")


async def test_a_job_cannot_change_whose_job_it_is(tmp_path: Path):
    spec = JobSpec(argv=("env",), env={"AEMESH_JOB": "two", "AEMESH_TREE": "none"})
    async with jobs_in(tmp_path) as jobs:
        out, _ = await read_all(await jobs.start(ONE, spec))

    assert b"AEMESH_JOB=one\n" in out
    assert b"AEMESH_TREE=none\n" not in out


async def test_python_stands_for_our_interpreter_in_front_only(tmp_path: Path):
    spec = python("import sys; print(sys.executable, sys.argv[1])")
    spec = JobSpec(argv=(*spec.argv, "{python}"))
    async with jobs_in(tmp_path) as jobs:
        out, _ = await read_all(await jobs.start(ONE, spec))

    assert out.decode() == f"{sys.executable} {{python}}\n"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "tls/../x",
        "tls/a/b",
        "tls",
        "tls/",
        "",
        ".",
        "..",
        ".bashrc",
        "tls/.x",
        "a\nb",
        "a\0b",
        "a b",
        "ä",
        "x" * 200,
    ],
)
async def test_a_file_outside_its_folder_is_refused(name: str, tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        with pytest.raises(JobRefusedError):
            await jobs.start(ONE, JobSpec(argv=("true",), files={name: b""}))


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec(argv=()),
        JobSpec(argv=("a\0b",)),
        JobSpec(argv=("true",) * (limits.JOB_ARGS + 1)),
        JobSpec(argv=("x" * (limits.JOB_ARG_BYTES + 1),)),
        JobSpec(argv=("true",), env={"A=B": "1"}),
        JobSpec(argv=("true",), env={"": "1"}),
        JobSpec(argv=("true",), env={"A": "\0"}),
        JobSpec(argv=("true",), env={f"A{n}": "" for n in range(limits.JOB_ENV + 1)}),
        JobSpec(
            argv=("true",), files={f"a{n}": b"" for n in range(limits.JOB_FILES + 1)}
        ),
        JobSpec(argv=("true",), files={"a": b"x" * (limits.JOB_FILE_BYTES + 1)}),
    ],
)
async def test_a_job_beyond_the_bounds_is_refused(spec: JobSpec, tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        with pytest.raises(JobRefusedError):
            await jobs.start(ONE, spec)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("./no-such-program",), "No such file"),
        (("/etc/passwd",), "Permission denied"),
    ],
)
async def test_a_program_that_cannot_start_is_named(
    argv: tuple[str, ...], why: str, tmp_path: Path
):
    before = len(os.listdir("/proc/self/fd"))
    async with jobs_in(tmp_path) as jobs:
        with pytest.raises(EngineError, match=why) as caught:
            await jobs.start(ONE, JobSpec(argv=argv))
        assert argv[0] in str(caught.value)
        assert jobs.jobs == ()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_one_name_runs_once_at_a_time(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, JobSpec(argv=("cat",)))
        with pytest.raises(JobRefusedError, match="runs already"):
            await jobs.start(ONE, JobSpec(argv=("cat",)))
        await job.end(term_after=1)

        again = await jobs.start(ONE, JobSpec(argv=("true",)))
        assert (await again.wait()).ok


async def test_there_is_a_bound_on_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "JOBS_PER_WORKER", 2)
    async with jobs_in(tmp_path) as jobs:
        for name in ("a", "b"):
            await jobs.start(JobId(name), JobSpec(argv=("cat",)))
        with pytest.raises(JobRefusedError, match="2 jobs run already"):
            await jobs.start(JobId("c"), JobSpec(argv=("cat",)))


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await jobs.start(ONE, JobSpec(argv=("sleep", "1000")))
        leaders = [job.pid for job in jobs.jobs]
    assert all(gone(pid) for pid in leaders)


# --- output -----------------------------------------------------------------


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_hundred_megabytes_nobody_reads_do_not_fill_the_agent(
    stream: int, tmp_path: Path
):
    """Threat: 89."""
    async with jobs_in(tmp_path) as jobs:
        before = psutil.Process().memory_info().rss
        code = f"import os\nfor _ in range(1600): os.write({stream}, bytes(65536))"
        job = await jobs.start(ONE, python(code))
        with trio.move_on_after(0.5):
            await job.wait()
        assert job.running  # it waits for us
        assert psutil.Process().memory_info().rss - before < 4e6

        size = 0
        async for chunk in job.output():
            assert len(chunk.data) <= limits.CHUNK_BYTES
            size += len(chunk.data)
        assert size == 1600 * 65536
        assert psutil.Process().memory_info().rss - before < 4e6


async def test_a_loud_channel_does_not_silence_the_other(tmp_path: Path):
    code = (
        "import os, threading\n"
        "def loud():\n    for _ in range(200): os.write(1, bytes(65536))\n"
        "threading.Thread(target=loud).start(); os.write(2, b'help')"
    )
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, python(code))
        chunks = [chunk.channel async for chunk in job.output()]

    assert chunks.index(Channel.STDERR) < len(chunks) - 1


async def test_output_can_be_read_after_the_end_but_not_twice(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell("echo late"))
        await job.wait()

        assert await read_all(job) == (b"late\n", b"")
        with pytest.raises(BugError, match="twice"):
            job.output()


async def test_output_ends_though_somebody_else_holds_the_pipe(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell("echo rest; exec sleep 1000"))
        # A stranger who got hold of the pipe, as over a unix socket.
        held = os.open(f"/proc/{job.pid}/fd/1", os.O_WRONLY)
        with contextlib.closing(os.fdopen(held, "wb")):
            await job.end(term_after=1)

            assert await read_all(job) in {(b"rest\n", b""), (b"", b"")}


async def test_no_file_stays_open_after_many_jobs(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        await read_all(await jobs.start(ONE, shell("echo")))
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            job = await jobs.start(JobId(f"j{number}"), shell("echo"))
            await read_all(job)
            await job.wait()

        # The last one's may be on their way out; a thread that removes its folder
        # opens one for a moment, so no second look after the first that is right.
        with trio.fail_after(5):
            while len(os.listdir("/proc/self/fd")) > before:
                await trio.sleep(0.01)


# --- ending -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", 139)]
)
async def test_the_exit_is_told_as_a_shell_tells_it(
    script: str, code: int, tmp_path: Path
):
    async with jobs_in(tmp_path) as jobs:
        assert await (await jobs.start(ONE, shell(script))).wait() == JobExit(code)


async def test_a_polite_job_ends_at_the_polite_signal(tmp_path: Path):
    code = (
        "import signal, sys, time\n"
        "def leave(*_): print('bye'); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('up', flush=True); time.sleep(1000)"
    )
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, python(code))
        chunks = job.output()
        assert (await anext(chunks)).data == b"up\n"

        assert await job.end(term_after=20) == JobExit(5, "released")
        assert (await anext(chunks)).data == b"bye\n"


async def test_a_deaf_job_is_killed_when_its_time_is_up(tmp_path: Path):
    script = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell(script))
        await anext(job.output())

        done = await job.end(term_after=0.1, reason="link lost")
        assert done == JobExit(137, "link lost")


async def test_the_shorter_span_counts_when_it_is_ended_twice(tmp_path: Path):
    script = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell(script))
        await anext(job.output())
        job.end_nowait(term_after=1000, reason="first")

        assert await job.end(term_after=0, reason="second") == JobExit(137, "first")


async def test_a_job_that_may_not_be_signalled_keeps_no_other_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It took another user's rights: a set-uid program. Threat: T6."""
    monkeypatch.setattr(limits, "GONE_AFTER", 0.05)
    polite = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.01; done"
    killpg, denied = os.killpg, set()

    def deny(group: int, number: int) -> None:
        if group in denied:
            raise PermissionError
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", deny)
    async with jobs_in(tmp_path) as jobs:
        above = await jobs.start(ONE, JobSpec(argv=("sleep", "1000")))
        plain = await jobs.start(TWO, shell(polite))
        output = plain.output()
        assert (await anext(output)).data == b"up\n"
        denied.add(above.pid)

        jobs.end_all(term_after=60, reason="released")

        assert await plain.wait() == JobExit(3, "released")
        end = await above.end(term_after=0)
        assert end == JobExit(128 + signal.SIGKILL, "released")


async def test_ending_an_ended_job_returns_its_own_exit(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell("exit 4"))
        await job.wait()

        assert await job.end(term_after=0) == JobExit(4)


# Grandchildren that try to get away, each telling its process id.
RUNAWAYS = {
    "in the group": "sleep 1000 & echo $!",
    "in a group of its own": (
        "{python} -c 'import os,sys,time; os.setpgid(0, 0);"
        " print(os.getpid(), flush=True); time.sleep(1000)' &"
    ),
    "in a session of its own": (
        "setsid sh -c 'echo $$; exec sleep 1000' < /dev/null &"
    ),
    "a daemon": (
        "{python} -c 'import os, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "print(os.getpid(), flush=True); time.sleep(1000)'"
    ),
    "deaf": "sh -c 'trap \"\" TERM INT HUP; echo $$; sleep 1000; sleep 1000' &",
    "stopped": "sh -c 'echo $$; kill -STOP $$' &",
}


@pytest.mark.parametrize("kind", RUNAWAYS)
@pytest.mark.parametrize("how", ["end", "exit", "close"])
async def test_nothing_of_the_tree_outlives_the_job(
    kind: str, how: str, tmp_path: Path
):
    """Threat: 90."""
    script = RUNAWAYS[kind].replace("{python}", sys.executable)
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, shell(f"{script}\nread line; exit 0"))
        pid = int((await anext(job.output())).data)
        assert not gone(pid)
        if how == "end":
            await job.end(term_after=0.1)
        elif how == "exit":
            await job.close_input()
            assert (await job.wait()).code in {0, 1}
        if how != "close":
            assert gone(pid)
    assert gone(pid)
    assert gone(job.pid)


async def test_two_agents_with_one_job_name_do_not_end_each_others(tmp_path: Path):
    async with jobs_in(tmp_path / "a") as ours, jobs_in(tmp_path / "b") as theirs:
        first = await ours.start(ONE, JobSpec(argv=("cat",)))
        second = await theirs.start(ONE, JobSpec(argv=("cat",)))
        await first.end(term_after=1)

        assert second.running
        await second.send(b"still here")
        assert (await anext(second.output())).data == b"still here"


async def test_a_bomb_of_processes_is_ended(tmp_path: Path):
    """Threat: 86."""
    code = (
        "import os, time\n"
        "end = time.monotonic() + 20\n"
        "print('up', flush=True)\n"
        "n = 0\n"
        "while time.monotonic() < end and n < 400:\n"
        "    n += 1\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        time.sleep(1000)\n"
        "time.sleep(1000)\n"
    )
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(ONE, python(code))
        await anext(job.output())
        await trio.sleep(0.05)
        await job.end(term_after=0)

        left = [
            p.pid
            for p in psutil.process_iter()
            if (now := read_process(p.pid))
            and now.alive
            and now.started >= job.tree.started
            and code in " ".join(p.cmdline())
        ]
        assert left == []


async def test_a_folder_that_a_job_locked_is_removed(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        job = await jobs.start(
            ONE, shell("mkdir -p a/b; touch a/b/c; ln -s / a/root; chmod 0 a/b a")
        )
        await job.wait()

    assert not job.room.exists()


async def test_an_error_in_the_block_leaves_as_itself_and_ends_the_jobs(
    tmp_path: Path,
):
    with pytest.raises(KeyError):
        async with jobs_in(tmp_path) as jobs:
            job = await jobs.start(ONE, JobSpec(argv=("sleep", "1000")))
            raise KeyError(1)
    assert gone(job.pid)


async def test_cancelling_the_block_ends_the_jobs(tmp_path: Path):
    with trio.CancelScope() as scope:
        async with open_jobs(tmp_path / "run") as jobs:
            job = await jobs.start(ONE, JobSpec(argv=("sleep", "1000")))
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert gone(job.pid)
    assert job.exit_now == JobExit(143, "the agent is ending")


# --- spares -----------------------------------------------------------------

SPARE = python(
    "import os, sys; print(os.getpid(), flush=True); sys.stdin.readline();"
    "print(open('tls/key.pem').read(), open('note').read())",
    files={"note": b"note"},
)


async def test_an_equal_spare_becomes_the_job(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(SPARE)
        (spare,) = jobs.spares
        assert jobs.jobs == ()

        wanted = JobSpec(argv=SPARE.argv, files=dict(SPARE.files), tls=True)
        job = await jobs.start(ONE, wanted, tls={"key.pem": b"secret"})
        await job.send(b"go\n")

        assert job.pid == spare.pid
        assert (job.id, jobs.jobs, jobs.spares) == (ONE, (job,), ())
        out, err = await read_all(job)
        assert (out.split()[1:], err) == ([b"secret", b"note"], b"")


@pytest.mark.parametrize(
    ("spec", "env"),
    [
        (JobSpec(argv=(*SPARE.argv, "x"), files=SPARE.files), {}),
        (JobSpec(argv=SPARE.argv), {}),
        (JobSpec(argv=SPARE.argv, files=SPARE.files, env={"A": "1"}), {}),
        (SPARE, {"A": "1"}),
    ],
)
async def test_a_job_that_differs_gets_a_fresh_process(
    spec: JobSpec, env: dict[str, str], tmp_path: Path
):
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(SPARE)
        (spare,) = jobs.spares

        job = await jobs.start(ONE, spec, env=env)

        assert job.pid != spare.pid
        assert jobs.spares == (spare,)


async def test_a_spare_that_died_is_not_handed_out(tmp_path: Path):
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(SPARE)
        (spare,) = jobs.spares
        os.kill(spare.pid, signal.SIGKILL)
        await spare.wait()

        job = await jobs.start(ONE, SPARE)

        assert job.pid != spare.pid


async def test_a_spare_cannot_lead_its_certificates_elsewhere(tmp_path: Path):
    """It may make a link of the folder in which they will be. Threat: 85."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with jobs_in(tmp_path) as jobs:
        spec = shell(f"ln -s {elsewhere} tls; echo warm; exec cat")
        await jobs.start_spare(spec)
        await jobs.warm.changed.wait()
        (spare,) = jobs.spares

        with pytest.raises(EngineError, match="cannot become a job"):
            await jobs.start(ONE, replace(spec, tls=True), tls={"ca.pem": b"a"})

        assert gone(spare.pid)
        assert (jobs.jobs, jobs.spares) == ((), ())
    assert list(elsewhere.iterdir()) == []


async def test_the_next_spare_comes_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "SPARE_AGAIN_AFTER", 0.01)
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(SPARE)
        await jobs.start(ONE, SPARE)
        while not jobs.spares:
            await trio.sleep(0.01)

        assert len(jobs.spares) == 1


async def test_there_is_a_bound_on_spares(tmp_path: Path):
    async with open_jobs(tmp_path / "run", spares=2) as jobs:
        for _ in range(4):
            await jobs.start_spare(JobSpec(argv=("cat",)))

        assert len(jobs.spares) == 2


async def test_who_lends_a_machine_may_have_no_spares(tmp_path: Path):
    async with open_jobs(tmp_path / "run", spares=0) as jobs:
        await jobs.start_spare(JobSpec(argv=("cat",)))

        assert jobs.spares == ()


def modules(*names: str) -> JobSpec:
    """A spare that tells which modules it was to import, and is warm then."""
    code = "import os, sys; print(os.environ.get('AEMESH_PRELOAD', ''), flush=True);"
    return replace(python(f"{code} sys.stdin.readline()"), preload=names)


async def test_a_spare_is_taken_that_has_some_of_the_modules_and_no_others(
    tmp_path: Path,
):
    """Shows: L4."""
    async with open_jobs(tmp_path / "run", spares=3, replaces_spares=False) as jobs:
        for names in ((), ("array",), ("array", "wave")):
            await jobs.start_spare(modules(*names))
        plain, some, other = jobs.spares
        while not all(spare.warm for spare in jobs.warm.waiting):
            await jobs.warm.changed.wait()

        first = await jobs.start(ONE, modules("array", "sndhdr"))
        second = await jobs.start(TWO, modules("array"))

        assert (first.pid, second.pid) == (some.pid, plain.pid)
        assert jobs.spares == (other,)
        assert (await anext(first.output())).data == b"array\n"


async def test_spares_are_those_that_are_wanted_as_soon_as_they_are_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Shows: L4."""
    monkeypatch.setattr(limits, "SPARE_AGAIN_AFTER", 0.01)
    async with open_jobs(tmp_path / "run", spares=1) as jobs:
        await jobs.start_spare(modules())
        (plain,) = jobs.spares
        jobs.warm.want([modules("array"), modules("wave")])
        with trio.fail_after(10):
            while len(jobs.spares) < 2:
                assert plain in jobs.spares
                await trio.sleep(0.001)
            while plain in jobs.spares:  # until the other one is warm
                await jobs.warm.changed.wait()
        (spare,) = jobs.warm.waiting
        assert (spare.spec.preload, spare.warm) == (("array",), True)
        assert jobs.warm.memory == spare.memory > 2**20


async def test_a_spare_that_dies_by_itself_is_not_started_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "SPARE_AGAIN_AFTER", 0.01)
    async with open_jobs(tmp_path / "run", spares=1) as jobs:
        await jobs.start_spare(JobSpec(argv=("false",)))
        while jobs.spares:
            await trio.sleep(0.001)
        jobs.warm.want([JobSpec(argv=("false",)), JobSpec(argv=("cat",))])
        with trio.fail_after(10):
            while not jobs.spares:
                await trio.sleep(0.001)
        assert [spare.spec.argv for spare in jobs.warm.waiting] == [("cat",)]


async def test_the_tree_of_a_taken_spare_is_ended_whole(tmp_path: Path):
    spec = shell("setsid sh -c 'echo $$; exec sleep 1000' & read line")
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(spec)
        job = await jobs.start(ONE, spec)
        pid = int((await anext(job.output())).data)

        await job.end(term_after=0)

        assert gone(pid)


# --- leftovers --------------------------------------------------------------

LEAVE = """
import sys, trio
from pathlib import Path
from aemesh.host.jobs import open_jobs
from aemesh.model.job import JobSpec

async def main():
    async with open_jobs(Path(sys.argv[1])) as jobs:
        job = await jobs.start("one", JobSpec(argv=("sh", "-c", sys.argv[2])))
        out = job.output()
        print((await anext(out)).data.decode().strip(), job.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def leave_behind(folder: Path, script: str) -> list[int]:
    """Start a job under an agent without a warden, and kill that agent."""
    agent = subprocess.Popen(
        [sys.executable, "-c", LEAVE, folder, script], stdout=subprocess.PIPE
    )
    pids = [int(word) for word in agent.stdout.readline().split()]
    agent.kill()
    agent.wait()
    agent.stdout.close()
    return pids


def test_leftovers_of_a_killed_agent_are_ended_at_the_next_start(tmp_path: Path):
    pids = leave_behind(
        tmp_path, "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000"
    )
    assert not any(gone(pid) for pid in pids)

    assert end_leftovers(tmp_path) >= 2
    assert all(gone(pid) for pid in pids)
    assert end_leftovers(tmp_path) == 0


def test_a_reused_process_number_is_never_killed(tmp_path: Path):
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        now = read_process(stranger.pid)
        note = {
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "marker": "0" * limits.MARKER_LENGTH,
            "leaders": [[stranger.pid, now.started - 1]],
        }
        (tmp_path / "jobs.json").write_text(json.dumps(note))

        assert end_leftovers(tmp_path) == 0
        assert not gone(stranger.pid)

        # The same note with the right start time, but of another boot.
        note |= {"leaders": [[stranger.pid, now.started]], "boot": "another"}
        (tmp_path / "jobs.json").write_text(json.dumps(note))
        assert end_leftovers(tmp_path) == 0
        assert not gone(stranger.pid)
        stranger.kill()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"boot": 1}', "[" * 100_000, '{"leaders": [[1, 2, 3]]}']
)
def test_a_damaged_note_ends_nobody(text: str, tmp_path: Path):
    (tmp_path / "jobs.json").write_text(text)

    assert end_leftovers(tmp_path) == 0


async def test_a_job_finds_the_identity_that_was_handed_on(tmp_path: Path) -> None:
    """Shows: T9. Threat: 79."""
    spec = shell('stat -c %a "$X509_USER_PROXY"; cat "$X509_USER_PROXY"')
    async with jobs_in(tmp_path) as jobs:
        await jobs.start_spare(spec)
        job = await jobs.start(ONE, spec, tls={PROXY_FILE: b"chain"})
        assert len(jobs.spares) <= 1  # it was not taken: its variables are set already
        await job.close_input()
        out, err = await read_all(job)
        await job.wait()
        assert (out, err) == (b"600\nchain", b"")
        with trio.fail_after(5):
            while job.room.exists():
                await trio.sleep(0.01)
