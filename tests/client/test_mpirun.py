"""`aemesh mpirun` on members that are processes here; its mpirun is a script."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from aemesh.client import mpicheck
from aemesh.client.mpilauncher import Kind, Launcher
from aemesh.host.processes import all_processes
from aemesh.model.view import OutputView
from tests.roles.test_jobtalk import gone, jobs_served

# Says its words, calls its agent for each host as Open MPI does, and waits for them.
MPIRUN = """#!/bin/sh
[ "$1" = --version ] && { echo 'mpirun (OpenRTE) 4.1.4'; exit; }
echo "words: $*"
while read -r host slots; do
    $OMPI_MCA_plm_rsh_agent "$host" "echo $slots; $1" &
    pids="$pids $!"
done < "$OMPI_MCA_orte_default_hostfile"
for pid in $pids; do wait "$pid" || code=$?; done
env | grep '^AEMESH_' && code=99
exit ${code:-0}
"""
HYDRA = """#!/bin/sh
echo 'HYDRA build details:'
echo '    Version: 4.0.2'
"""


class Served:
    """A master with two members, and a way to call the command."""

    def __init__(self, state: Path, runner, api) -> None:
        self.state, self.runner, self.api = state, runner, api
        for name, text in {"mpirun": MPIRUN, "hydra": HYDRA}.items():
            (state / name).write_text(text)
            (state / name).chmod(0o755)
        argv = [sys.executable, "-m", "aemesh", "--state", str(state), "mpirun"]
        self.argv = [*argv, "--group", "A", "--mpi", str(state / "mpirun")]

    def lacks(self, what: str) -> None:
        """Have office-1 say that this is missing on it."""
        missing = OutputView(worker="office-1", channel="stdout", data=_base64(what))
        self.api.output = [missing, OutputView(worker="office-1", code=0)]

    async def run(self, *words: str, mpi: str = "mpirun", subnet: str = "auto"):
        options = ["--mpi", str(self.state / mpi), "--subnet", subnet]
        with trio.fail_after(30):
            return await trio.run_process(
                [*self.argv, *options, *words],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=self.state,
                env=os.environ | {"AEMESH_JOIN": "a secret"},
            )


@pytest.fixture
async def served(tmp_path: Path):
    async with jobs_served(tmp_path, "office-1", "office-2") as (_, runner, api):
        api.output = []  # nothing is missing on any member
        yield Served(tmp_path, runner, api)


async def test_mpirun_gets_its_words_and_starts_through_us(served: Served):
    done = await served.run("echo $0 ran", "-n", "2")

    assert done.returncode == 0
    # Both are on this machine, of one address.
    assert done.stdout.decode().splitlines() == [
        "words: echo $0 ran -n 2", "slots=8", "/bin/sh ran"
    ]  # fmt: skip
    assert b"Open MPI 4.1.4 on 10.77.0.2 (8)" in done.stderr
    assert not served.api.held["A"]


async def test_its_exit_code_is_ours(served: Served):
    assert (await served.run("exit 7")).returncode == 7


async def test_when_a_member_goes_it_is_ended_with_all_that_it_started(served: Served):
    process = await trio.lowlevel.open_process(
        [*served.argv, "setsid sleep 1000 & echo up $!; wait"], stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(30):
        said = b""
        while (up := re.search(rb"^up (\d+)\n", said, re.MULTILINE)) is None:
            said += await process.stdout.receive_some()
        served.api.members["office-2"] = None
        served.api.tell("worker.lost", "office-2 is lost", worker="office-2", group="A")
        told = b""
        while piece := await process.stderr.receive_some():
            told += piece
        code = await process.wait()
        await gone(served.runner)
        await process.stdout.aclose()
        await process.stderr.aclose()

    assert code == 6
    assert b"office-2 went from group A in the midst of the run: office-2 is" in told
    child = all_processes().get(int(up[1]))
    assert child is None or not child.alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_nothing_is_left_when_it_is_ended(served: Served, number: signal.Signals):
    process = await trio.lowlevel.open_process(
        [*served.argv, "echo up; sleep 1000"], stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(30):
        said = b""
        while b"up\n" not in said:
            said += await process.stdout.receive_some()
        os.kill(process.pid, number)
        while await process.stdout.receive_some():
            pass  # until nobody has it open any more
        code = await process.wait()
        await gone(served.runner)
        while served.api.held["A"]:
            await trio.sleep(0.01)
        await process.stdout.aclose()
        await process.stderr.aclose()

    assert code != 0


@pytest.mark.parametrize(
    ("what", "words", "said"),
    [
        ("daemon", ["true"], "orted is not on office-1: mpirun starts it on each"),
        ("folder", ["./prog"], " is not on office-1: ranks start there"),
        ("file", ["./prog"], "/prog is not on office-1: ranks start it at the same"),
    ],
)
async def test_what_a_member_lacks_is_said_before_anything_starts(
    served: Served, what: str, words: list[str], said: str
):
    prog = served.state / "prog"
    prog.write_text("#!/bin/sh\n")
    prog.chmod(0o755)
    served.lacks(what)

    done = await served.run(*words)

    assert done.returncode == 3
    assert said in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("mpi", "what", "said"),
    [
        ("mpirun", "network", "10.99.0.0/16 is no network of office-1: ranks are"),
        ("hydra", "network", "10.99.0.0/16 is no network of office-1: ranks are"),
        ("hydra", "ip", "`ip` is not on office-1: MPICH is to use 10.99.0.0/16, and"),
    ],
)
async def test_a_network_that_was_named_and_is_not_there_is_an_error(
    served: Served, mpi: str, what: str, said: str
):
    """Ranks would take another one, which nobody had named."""
    served.lacks(what)

    done = await served.run("true", mpi=mpi, subnet="10.99.0.0/16")

    assert done.returncode == 3
    assert said in done.stderr.decode()
    assert b"--subnet any" in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("kind", "missing", "said"),
    [
        (Kind.MPICH, {}, ""),
        (Kind.MPICH, {"ip": ["a"]}, "`ip` is not on a: MPICH is to use 10.0.0.0/8"),
        (
            Kind.MPICH,
            {"network": ["a", "b"]},
            "10.0.0.0/8 is no network of a, b: ranks are",
        ),
        (Kind.OPEN_MPI, {"ip": ["a"]}, ""),  # it looks for interfaces itself
    ],
)
def test_a_network_of_our_choice_is_only_warned_of(kind, missing, said):
    launcher = Launcher("mpirun", Path("/mpirun"), kind, "4.1.4")
    told = mpicheck._check_network(launcher, "10.0.0.0/8", missing, named=False)

    assert [text[: len(said)] for text in told] == ([said] if said else [])


@pytest.mark.parametrize(
    ("shown", "asked", "said"),
    [
        ("echo 2: eth0 inet 10.99.0.2/16", "10.99.0.0/16", ""),
        ("true", "10.99.0.0/16", "network\n"),
        ("true", "", ""),
        (None, "10.99.0.0/16", "ip\n"),
        (None, "", ""),
    ],
)
def test_a_member_looks_for_the_network_itself(
    tmp_path: Path, shown: str | None, asked: str, said: str
):
    if shown is not None:
        (tmp_path / "ip").write_text(f"#!/bin/sh\n{shown}\n")
        (tmp_path / "ip").chmod(0o755)
    (tmp_path / "orted").symlink_to("/bin/true")

    done = subprocess.run(
        ["/bin/sh", "-c", mpicheck._LOOK, "sh", "orted", "/", "", asked],
        capture_output=True,
        env={"PATH": str(tmp_path)},
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("-hostfile ./hosts -n 2 ./prog in.txt", "./prog"),
        ("--rankfile ./hosts --output-filename ./out ./prog", "./prog"),
        ("-f ./hosts -n 1 hostname", ""),
        ("--output-filename ./out -n 1 hostname", ""),
        ("-n 2 ./prog --hostfile ./hosts", "./prog"),
        ("-n 2 ./porg -f ./hosts", "./porg"),
        ("-n 2 python ./main.py", "./main.py"),
    ],
)
def test_what_mpirun_itself_reads_or_writes_is_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, program: str
):
    for name in ("hosts", "prog", "main.py"):
        (tmp_path / name).touch()
    (tmp_path / "prog").chmod(0o755)
    monkeypatch.chdir(tmp_path)

    assert mpicheck._program(words.split())[0] == program


async def test_what_looks_like_a_mistyped_program_is_warned_of(served: Served):
    served.lacks("file")

    done = await served.run("echo mpirun says so, too", "-n", "2", "./porg")

    assert "/porg is not on office-1" in done.stderr.decode()
    assert b"says so, too" in done.stdout


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
