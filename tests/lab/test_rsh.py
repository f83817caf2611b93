"""What calls ssh, called with `aemesh rsh` instead: rsync, GNU parallel and git."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import ENDED_WITHIN, LAB, TIMES, Office, open_office

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    *LAB,
    pytest.mark.skipif(
        not all(map(shutil.which, ("rsync", "parallel", "git"))),
        reason="needs rsync, parallel and git",
    ),
]

MEGABYTES = 100


async def test_rsync_parallel_and_git_work_over_it():
    """Shows: E4."""
    async with open_office(["laptop", "h1", "h2"]) as office:
        for name in ("h1", "h2"):
            await office.worker(name)
        await office.master("A")
        await office.joined("h1", "h2")
        rsh = " ".join((*office.laptop.aemesh, "rsh"))

        await files_are_copied_both_ways(office, rsh)
        await work_is_spread(office, rsh)
        await a_repository_is_cloned_and_pushed_to(office, rsh)
        await a_host_that_is_cut_off(office)
        await bytes_a_second(office, rsh)


async def files_are_copied_both_ways(office: Office, rsh: str) -> None:
    laptop, there = office.laptop, office.host("h1").home / "copy"
    odd = "with a space; and $(more)"
    fill(laptop.home / "data", {"a": b"\0\xff" * 50_000, odd: b"x"})

    copy = ["rsync", "-a", "-e", rsh, "--stats"]
    await laptop.run([*copy, "data/", "h1:copy"])  # in the home folder there
    (there / "a").write_bytes(b"\0\xff" * 49_999 + b"!!")
    (there / "a").chmod(0o644)
    who = (await office.host("h1").run(["id", "-un"])).stdout.strip()
    again = await laptop.run([*copy, f"{who}@h1:copy/", "back"])
    last = await laptop.run([*copy, "-c", "data/", "h1:copy/"])

    assert contents(there) == contents(laptop.home / "data")
    assert contents(laptop.home / "back")[odd] == b"x"
    assert contents(laptop.home / "back")["a"].endswith(b"!!")
    assert "Number of regular files transferred: 2" in again.stdout
    # Of the file that differs only what differs goes over the wire.
    assert "Number of regular files transferred: 1" in last.stdout
    literal = re.search(r"Literal data: ([\d,]+) bytes", last.stdout)
    assert literal is not None
    assert int(literal[1].replace(",", "")) < 10_000


async def work_is_spread(office: Office, rsh: str) -> None:
    argv = ["parallel", "--will-cite", "--ssh", rsh, "--sshlogin", "2/h1,2/h2", "-k"]
    argv += ["echo {} $(hostname); exit {}", ":::", "0", "3", "0", "0"]

    done = await office.laptop.run(argv, check=False)

    said = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in said] == ["0", "3", "0", "0"]
    assert {words[1] for words in said} == {"h1", "h2"}
    assert done.returncode == 1  # so many have failed


async def a_repository_is_cloned_and_pushed_to(office: Office, rsh: str) -> None:
    env = {"GIT_SSH_COMMAND": rsh, "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e"}
    env |= {"GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}

    async def git(*words: str, folder: str = ".") -> str:
        argv = ["git", "-C", folder, "-c", "init.defaultBranch=main", *words]
        return (await office.laptop.run(argv, env=env)).stdout

    await office.laptop.run([*rsh.split(), "h2", "git init -q --bare -b main repo"])
    await git("clone", "-q", "h2:repo", "one")
    (office.laptop.home / "one" / "file").write_bytes(b"word\n")
    await git("add", "--all", folder="one")
    await git("commit", "-q", "-m", "a word", folder="one")
    await git("push", "-q", "origin", "HEAD:main", folder="one")
    await git("clone", "-q", f"{office.host('h2').ipv4}:repo", "two")

    assert contents(office.laptop.home / "two")["file"] == b"word\n"


async def a_host_that_is_cut_off(office: Office) -> None:
    sleep = await office.start("laptop", "rsh", "h2", "echo up; sleep 1000")
    await sleep.wait_said("up")
    began = time.monotonic()
    await office.host("h2").cut()

    assert await sleep.wait() == 255
    TIMES.append(f"rsh: a host is cut off, seen after {time.monotonic() - began:.1f} s")
    assert "h2 was lost: h2 fell silent" in sleep.said
    await wait_for(
        lambda: not any("sleep" in one for one in words_on(office, "h2")),
        within=ENDED_WITHIN,
        what="the end of what ran on a host that is cut off",
    )


async def bytes_a_second(office: Office, rsh: str) -> None:
    """Not asserted: this machine has other things to do."""
    size = MEGABYTES * 1_000_000
    for what, script in {
        "from a member": f"{rsh} h1 head -c {size} /dev/zero | wc -c",
        "to a member": f"head -c {size} /dev/zero | {rsh} h1 wc -c",
    }.items():
        began = time.monotonic()
        done = await office.laptop.run(["sh", "-c", script])
        took = time.monotonic() - began
        assert done.stdout.strip() == str(size)
        TIMES.append(f"rsh: {MEGABYTES / took:.0f} MB/s {what}, its start included")


def fill(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o644)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def words_on(office: Office, name: str) -> list[str]:
    """Return the command lines of what runs on a host."""
    found = []
    for pid in office.host(name).processes():
        try:
            found.append(" ".join(psutil.Process(pid).cmdline()))
        except psutil.Error:
            continue
    return found
