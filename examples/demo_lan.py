"""An office on this computer: a laptop and five machines, and the analysis on them.

    python demo_lan.py data/*.root --out dimuon.png

The machines are kernel namespaces on one Ethernet, made by `aemesh.testing.lab`; each
has its own address, name, home and user, and no packet leaves this computer.  Whoever
is not root comes back in a user namespace, where this is allowed.

Everything is typed as a person would type it: each line with a `$` is a command that
runs on the machine before it, and what follows is what it said.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from aemesh.errors import AemeshError
from aemesh.tasks.nursery import open_crew
from aemesh.testing.lab import Lab, open_lab, reexec_in_user_namespace, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "analysisA"
OFFICES = [f"office-{number}" for number in range(1, 6)]
SCRIPT = Path(__file__).with_name("dimuon.py")
# Where every host sees the folder that aemesh is in.
CHECKOUT = Path("/mnt/aemesh/checkout")

# Enough variations of the momentum scale to give each machine something to do.
SCALES = "40"

# A computer with many things to do may be slow; what never comes is told.
SOON = 60.0

# Of what the master says; `aemesh trust list` says it better.
LEFT_OUT = ("waits for trust", "asks its owner", "no terminal")


def main() -> int:
    """Run the demonstration which the command line asks for; return the exit code."""
    reexec_in_user_namespace()
    options = parse_options()
    try:
        return trio.run(demonstrate, options)
    except AemeshError as error:
        print(f"demo_lan: error: {error}", file=sys.stderr)
        if error.hint:
            print(f"demo_lan: hint: {error.hint}", file=sys.stderr)
        return error.exit_code


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Analyse muons in an office.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.root")
    parser.add_argument("--out", type=Path, default=Path("dimuon.png"), help="picture")
    return parser.parse_args()


async def demonstrate(options: argparse.Namespace) -> int:
    """Show the office from its morning to its evening."""
    async with open_lab(["laptop", *OFFICES]) as lab:
        office = Office(lab, options.files)
        title(f"{len(lab.hosts)} machines on one switch")
        for host in lab:
            print(f"{host.name:10} {host.ipv4:12} {host.ipv6}")

        title("the laptop alone")
        alone = await office.analyse()

        async with open_crew() as crew:
            title("five machines offer themselves; the laptop wants a group")
            for name in OFFICES:
                await office.start(name, "worker --cores 1")
            master = await office.start("laptop", f"master --group {GROUP}")
            crew.start_soon(show, "laptop", master)

            title("nobody knows anybody yet: both sides are asked")
            await office.wait_requests()
            await office.type("laptop", "trust list")
            await office.type("laptop", "trust accept --all")
            for name in OFFICES:
                await office.type(name, "trust accept --all", quiet=name != OFFICES[0])
            print(f"(the same on {', '.join(OFFICES[1:])})")

            title("who joined")
            await office.wait_members(len(OFFICES))
            await office.type("laptop", "workers")

            title("the same script in the office")
            together = await office.analyse("--group", GROUP)
            shutil.copy(lab.host("laptop").home / "dimuon.png", options.out)

            title("the evening")
            await office.type("laptop", "stop")
            crew.cancel_scope.cancel()

    return compare(alone, together, options.out)


def compare(alone: dict[str, Any], together: dict[str, Any], out: Path) -> int:
    """Say whether both gave the same, bit by bit; return the exit code."""
    title("the result")
    for name, result in (("laptop", alone), ("office", together)):
        hosts = ", ".join(result["hosts"])
        print(f"{name}  counts {result['counts_sha256']}  on {hosts}")
    equal: bool = alone["counts_sha256"] == together["counts_sha256"]
    said = "equal, bit by bit" if equal else "NOT equal"
    print(f"the counts are {said}; the spectrum is in {out}")
    return int(not equal)


class Office:
    """The machines, and what is typed at them."""

    def __init__(self, lab: Lab, files: Sequence[Path]) -> None:
        self._lab = lab
        self._files = files
        self._data = lab.host("laptop").home / "data"

    async def type(self, name: str, words: str, *, quiet: bool = False) -> None:
        """Run `aemesh` with these words on a machine, and show what it says."""
        done = await self._run(name, words.split())
        if not quiet:
            print(f"{name}$ aemesh {words}")
            print(indented(done.stdout + done.stderr), end="")

    async def start(self, name: str, words: str) -> trio.Process:
        """Start an agent, and show what it says first."""
        host = self._lab.host(name)
        print(f"{name}$ aemesh {words}")
        process = await host.start(
            [*host.aemesh, *words.split()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        said = b""
        with trio.move_on_after(SOON):
            while b"\n" not in said:
                said += await process.stderr.receive_some()
        print(indented(said.decode().partition("\n")[0]), end="")
        return process

    async def wait_requests(self) -> None:
        """Wait until every machine wants to be accepted, and has been asked itself."""
        async with open_crew() as crew:
            crew.start_soon(self._wait_pending, "laptop", len(OFFICES))
            for name in OFFICES:
                crew.start_soon(self._wait_pending, name, 1)

    async def wait_members(self, count: int) -> None:
        """Wait until the group has so many members."""

        async def look() -> bool:
            groups = await self._records("laptop", "group", "list")
            return any(len(group["members"]) == count for group in groups)

        await wait_for(look, within=SOON, what=f"a group of {count} members")

    async def analyse(self, *where: str) -> dict[str, Any]:
        """Run the analysis on the laptop, alone or on a group; return its results."""
        laptop = self._lab.host("laptop")
        if not self._data.exists():
            self._data.mkdir()
            for file in self._files:
                shutil.copy(file, self._data)
        script = str(CHECKOUT / "examples" / SCRIPT.name)
        options = ["--scales", SCALES]
        shown = " ".join(["run", *where, "dimuon.py", "data/*.root", *options])
        print(f"laptop$ aemesh {shown}", flush=True)
        files = sorted(str(file) for file in self._data.iterdir())
        words = ["run", *where, script, *files, *options, "--json", "result.json"]
        began_at = time.monotonic()
        done = await self._run("laptop", words)
        print(indented(done.stdout), end="")
        print(f"  ({time.monotonic() - began_at:.1f} s in all)")
        result: dict[str, Any] = json.loads((laptop.home / "result.json").read_text())
        return result

    async def _wait_pending(self, name: str, count: int) -> None:
        async def look() -> bool:
            lines = await self._records(name, "trust", "list")
            return sum(line["state"] == "pending" for line in lines) == count

        await wait_for(look, within=SOON, what=f"{count} requests on {name}")

    async def _records(self, name: str, *words: str) -> list[dict[str, Any]]:
        done = await self._run(name, [*words, "--json"], check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def _run(
        self, name: str, words: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        host = self._lab.host(name)
        return await host.run([*host.aemesh, *words], check=check, within=2 * SOON)


async def show(name: str, process: trio.Process) -> None:
    """Print the lines that a program says, each with the name of its machine."""
    assert process.stderr is not None
    rest = b""
    async for chunk in process.stderr:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in (one.decode(errors="replace") for one in lines):
            if not any(words in line for words in LEFT_OUT):
                print(f"  {name}: {line}", flush=True)


def title(text: str) -> None:
    """Print what comes next."""
    print(f"\n— {text} —", flush=True)


def indented(text: str) -> str:
    """Return text with two spaces before each line."""
    return "".join(f"  {line}\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
