"""``aemesh map`` on real hosts: spread, kept, resumed, and gone when it is to be."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, Office, open_office
from tests.lab.test_adoption import kill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.testing.lab import Host

pytestmark = LAB

NAMES = ["office-1", "office-2"]

# Writes down that it ran, where it ran, for good; then takes its time.
NOTED = 'echo "$1" >> ~/ran.log; sleep "$2"; echo "done $1"'

# Four steps with a checkpoint behind each.  Not the script `aemesh`: its first line may
# name a place of this machine that hosts do not see.
STEPS = """
python=$2
aemesh() { PYTHONPATH=/mnt/aemesh/checkout "$python" -m aemesh "$@"; }
aemesh resume
n=$(cat "$AEMESH_CHECKPOINT/n" 2>/dev/null || echo 0)
while [ $n -lt 4 ]; do
    n=$((n + 1)); echo "$1 $n" >> ~/ran.log; sleep 0.5
    echo $n > "$AEMESH_CHECKPOINT/n"; aemesh commit || exit 1
done
echo "$1 came to $n"
"""


async def with_members(office: Office, *words: str) -> None:
    for name in NAMES:
        await office.worker(name, "--cores", "2", "--accept-first-master", *words)
    await office.master("A")
    await office.joined(*NAMES)


def ran(office: Office) -> Counter[str]:
    """How often each line was written on all hosts."""
    logs = [office.host(name).home / "ran.log" for name in NAMES]
    lines = [log.read_text().splitlines() for log in logs if log.exists()]
    return Counter(line for some in lines for line in some)


def command(host: Host, *words: str) -> list[str]:
    return [*host.aemesh, "map", "--group", "A", *words]


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_command_is_spread_over_members_each_item_whole():
    """Shows: E4."""
    async with open_office(["laptop", *NAMES]) as office:
        await with_members(office)
        laptop = office.laptop
        items = [str(number) for number in range(12)]
        script = 'for i in 1 2 3; do echo "$1 $i"; sleep 0.05; done; hostname >&2'
        words = ("-k", "--", "sh", "-c", script, "_", "{}", ":::", *items)

        done = await laptop.run(command(laptop, *words))

        lines = [f"{item} {number}" for item in items for number in (1, 2, 3)]
        assert done.stdout.splitlines() == lines
        hosts = Counter(done.stderr.split())
        assert set(hosts) == set(NAMES)
        assert min(hosts.values()) >= 3

        failing = ("--json", "--retries", "1", "sh", "-c", 'exit "$1"', "_", "{}")
        done = await laptop.run(command(laptop, *failing, ":::", "0", "3"), check=False)
        assert done.returncode == 1
        ends = {one["args"][0]: one for one in told(done.stdout)}
        assert (ends["0"]["code"], ends["0"]["tries"]) == (0, 1)
        assert (ends["3"]["code"], ends["3"]["tries"]) == (3, 2)

        files = ("--results", "out", "--joblog", "log", "echo", "{#}", "{}")
        await laptop.run(command(laptop, *files), stdin="a b\nc\n")
        out = laptop.home / "out"
        assert (out / "1" / "stdout").read_text() == "1 a b\n"
        assert json.loads((out / "2" / "result.json").read_text())["code"] == 0
        assert len((laptop.home / "log").read_text().splitlines()) == 3


async def test_a_member_with_many_slots_gets_all_its_items_and_none_is_lost():
    """Each start is a stream, and a door has few places for strangers."""
    async with open_office(["laptop", *NAMES]) as office:
        await with_members(office)
        words = ("-j", "64", "--retries", "0", "--json", "--", "sleep", "1.{}")

        done = await office.laptop.run(
            command(office.laptop, *words), stdin="5\n" * 160
        )

        ends = [(one["code"], one["tries"]) for one in told(done.stdout)]
        assert ends == [(0, 1)] * 160
        assert not done.stderr


async def start_and_kill(
    office: Office, words: Sequence[str], *, number: int, after: int
) -> None:
    """Start a map, and send it a signal when so many items have begun."""
    process = await office.laptop.start(command(office.laptop, *words))
    await wait_for(
        lambda: ran(office).total() >= after, within=30, what=f"{after} items"
    )
    os.kill(process.pid, number)
    with trio.fail_after(20):
        code = await process.wait()
    assert code == (130 if number == signal.SIGINT else -number)


async def nothing_runs(office: Office) -> None:
    """Wait until no command of the map is left on any member."""
    for name in NAMES:
        host = office.host(name)
        what = f"no sleep on {name}"
        await wait_for(lambda host=host: not sleeping(host), within=10, what=what)


def sleeping(host: Host) -> bool:
    for pid in host.processes():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read().startswith(b"sleep\0"):
                    return True
        except OSError:
            continue
    return False


async def test_a_map_that_was_killed_goes_on_and_runs_nothing_twice():
    """Shows: E4, L3."""
    async with open_office(["laptop", *NAMES]) as office:
        await with_members(office)
        items = [str(number) for number in range(16)]
        noted = ("--key", "k", "sh", "-c", NOTED, "_", "{}", "0.4", ":::", *items)

        await start_and_kill(office, noted, number=signal.SIGKILL, after=8)
        await nothing_runs(office)
        _, *kept = await office.ask("runs", "show", "k")
        before = ran(office)
        done = await office.laptop.run(command(office.laptop, "-k", *noted))

        assert done.stdout.splitlines() == [f"done {item}" for item in items]
        assert len(kept) >= 4
        for item in kept:
            assert ran(office)[item["title"]] == before[item["title"]] == 1
        assert ran(office).keys() == set(items)

        again = await office.laptop.run(command(office.laptop, "-k", *noted))
        assert again.stdout == done.stdout
        assert ran(office).total() <= 16 + (8 - len(kept)) + 4


async def test_a_map_goes_on_when_its_master_was_killed():
    """Shows: E4; what ran then begins again, and costs nobody a try."""
    async with open_office(["laptop", *NAMES]) as office:
        await with_members(office)
        items = [str(number) for number in range(8)]
        words = ("-k", "--retries", "0", "sh", "-c", NOTED, "_", "{}", "0.4")
        out = office.laptop.home / "out"
        with out.open("wb") as file:
            argv = command(office.laptop, *words, ":::", *items)
            process = await office.laptop.start(argv, stdout=file)
        await wait_for(lambda: ran(office).total() >= 3, within=30, what="items")

        kill(office.agents[-1])
        await office.master("A")

        with trio.fail_after(60):
            assert await process.wait() == 0
        assert out.read_text().splitlines() == [f"done {item}" for item in items]
        assert max(ran(office).values()) <= 2


async def test_ctrl_c_leaves_nothing_and_a_state_goes_on_where_it_was():
    """Shows: E4, L3, L7."""
    async with open_office(["laptop", *NAMES]) as office:
        await with_members(office)
        python = office.laptop.python
        steps = ("--key", "k", "sh", "-c", STEPS, "_", "{}", python, ":::", "a", "b")

        await start_and_kill(office, steps, number=signal.SIGINT, after=5)
        await nothing_runs(office)
        before = ran(office)
        assert sum(before.values()) < 8
        done = await office.laptop.run(command(office.laptop, "-k", *steps))

        assert done.stdout.splitlines() == ["a came to 4", "b came to 4"]
        after = ran(office)
        assert set(after) == {f"{item} {n}" for item in "ab" for n in range(1, 5)}
        # Only the step that was cut off ran twice.
        assert all(count <= 2 for count in after.values())
        assert sum(count == 2 for count in after.values()) <= 2
