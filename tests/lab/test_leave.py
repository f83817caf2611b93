"""A worker that leaves at an agreed moment, over a line that is slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, TIMES, engine_pids, gone, open_office

if TYPE_CHECKING:
    from aemesh.testing.lab import Host

pytestmark = [*LAB, pytest.mark.long]

# What is promised: all of it is gone so soon behind the moment.
GONE_WITHIN = 1.0
MEGABITS = 40  # 5 MB in a second
PIECES = 6

# Makes results on one worker, waits until that is gone, and looks what was computed
# how often, in the scheduler's own log.
SCRIPT = """
import hashlib, json, random, sys, time
from collections import Counter
from distributed import Client, wait

leaver, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def make(number, size):
    return random.Random(number).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def computed(dask_scheduler, keys):
    keys = set(keys)
    return [
        key
        for key, start, finish, *_ in dask_scheduler.transition_log
        if key in keys and (start, finish) == ("processing", "memory")
    ]


def there(client):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [a for a, one in workers.items() if str(one["id"]).startswith(leaver)]


client = Client()
how = {"workers": there(client), "allow_other_workers": True, "pure": False}
pieces = [client.submit(make, n, size, **how) for n in range(count)]
wait(pieces)
print(json.dumps({"made": sum(map(bool, client.who_has(pieces).values()))}), flush=True)
while there(client):
    time.sleep(0.1)
found = client.gather([client.submit(digest, one) for one in pieces])
keys = [one.key for one in pieces]
times = Counter(client.run_on_scheduler(computed, keys=keys))
print(json.dumps({
    "right": found == [digest(make(n, size)) for n in range(count)],
    "again": sum(times[key] - 1 for key in keys),
}), flush=True)
"""


@pytest.mark.parametrize(
    ("piece", "notice", "fits"),
    [
        pytest.param(1_000_000, 15, True, id="fits"),
        pytest.param(9_000_000, 12, False, id="does not fit"),
    ],
)
async def test_a_worker_is_gone_in_time_and_its_receipt_is_true(
    piece: int, notice: int, fits: bool
):
    """Shows: L1, L7."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        worker = await office.worker("office-1")
        await office.worker("office-2")
        await office.master("A")
        await office.joined("office-1", "office-2")
        assert office.events is not None
        host, laptop = office.host("office-1"), office.laptop
        await host.rate(MEGABITS)
        script = await start_script(laptop, "office-1.", piece)
        assert script.stdout is not None
        await told(script)

        leave = await office.start("office-1", "leave", "--by", f"+{notice}s")
        end = await agreed_end(host)
        view = await office.view("office-1")
        await wait_for(gone(host), within=notice + 10, what="an empty office-1")
        late = time.time() - end
        outcome = await told(script)
        code = await script.wait()
        retired = await office.events.wait("worker.retired", worker="office-1")

        said = f"{outcome}; {retired.text}; {worker.said[-500:]}"
        assert late <= GONE_WITHIN, said
        assert (outcome["right"], code) == (True, 0), said
        assert view["until"] == pytest.approx(end, abs=2.0)
        receipt = await leave.wait_said(
            r"(\d+) pieces of data moved \(.*\), (\d+) lost; (\d+) tasks finished"
        )
        moved, lost = int(receipt[1]), int(receipt[2])
        TIMES.append(
            f"office-1 was gone {late:+.2f} s from its moment, with {moved} pieces of "
            f"{piece} bytes moved and {lost} lost"
        )
        assert f"{moved} pieces moved" in retired.text
        assert f" {lost} lost" in retired.text
        assert f"{moved} pieces of data moved" in worker.said  # the same on both sides
        assert outcome["again"] == lost, said
        if fits:
            assert (lost, outcome["again"]) == (0, 0), said
            assert moved >= 1
        else:
            assert lost >= 1, said
            assert moved >= 1, said
        assert moved + lost <= PIECES


async def start_script(laptop: Host, leaver: str, piece: int):
    """Start the script on the group."""
    path = laptop.home / "pieces.py"
    path.write_text(SCRIPT)
    path.chmod(0o644)
    words = [str(path), leaver, str(piece), str(PIECES)]
    return await laptop.start(
        [*laptop.aemesh, "run", "--group", "A", *words], stdout=subprocess.PIPE
    )


async def told(script: Any) -> dict[str, Any]:
    """Return the next line that the script tells."""
    data = b""
    while not data.endswith(b"\n"):
        more = await script.stdout.receive_some()
        assert more, data
        data += more
    return json.loads(data.splitlines()[-1])


async def agreed_end(host: Host) -> float:
    """Return the moment that the worker has agreed to."""

    async def look() -> float:
        done = await host.run([*host.aemesh, "leave", "--status", "--json"])
        return float(json.loads(done.stdout)["end"])

    end = await wait_for(look, within=10, what="an agreed moment")
    assert end is not None
    return end


async def test_a_master_that_is_silent_does_not_hold_a_worker():
    """Shows: L1, L7; the moment is the worker's own."""
    async with open_office(["laptop", "office-1"]) as office:
        words = ("--accept-first-master", "--until", "+25s")
        worker = await office.worker("office-1", *words)
        master = await office.master("A")
        await office.joined("office-1")
        host = office.host("office-1")
        end = await agreed_end(host)
        view = await office.view("office-1")

        for pid in (master.process.pid, *office.laptop.processes()):
            os.kill(pid, signal.SIGSTOP)
        await wait_for(gone(host), within=40, what="an empty office-1")
        late = time.time() - end

        TIMES.append(f"office-1 was gone {late:+.2f} s from its moment, unheard")
        assert view["until"] == pytest.approx(end, abs=2.0)
        assert late <= GONE_WITHIN, worker.said[-500:]
        assert await worker.wait() == 0
        for pid in office.laptop.processes():
            os.kill(pid, signal.SIGCONT)


async def test_a_worker_that_was_to_leave_stays_and_then_leaves_at_once():
    """Shows: L1."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        worker = await office.worker("office-1")
        await office.worker("office-2")
        await office.master("A")
        await office.joined("office-1", "office-2")
        assert office.events is not None
        host = office.host("office-1")

        leave = await office.start("office-1", "leave", "--by", "+5m")
        await leave.wait_said("it leaves by", within=20)
        await office.events.wait("worker.draining", worker="office-1")
        (stays,) = await office.ask("leave", "--cancel", name="office-1")
        await office.events.wait("worker.stays", worker="office-1")
        back = await office.view("office-1")
        (receipt,) = await office.ask("leave", "--quick", name="office-1")
        await wait_for(gone(host), within=10, what="an empty office-1")

        assert (stays["state"], stays["end"]) == ("stays", 0.0)
        assert await leave.wait() == 0
        assert leave.said.splitlines()[-1] == "it stays"
        assert (back["state"], back["group"], back["until"]) == ("leased", "A", 0.0)
        assert (receipt["member"], receipt["group"]) == ("office-1", "A")
        assert not receipt["graceful"]
        assert receipt["took_after"] < 2.0
        assert await worker.wait() == 0


async def test_a_drained_worker_is_empty_and_comes_back():
    """Shows: L1."""
    async with open_office(["laptop", "office-1"]) as office:
        await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        assert office.events is not None
        mark = office.events.last
        host = office.host("office-1")

        (receipt,) = await office.ask("workers", "drain", "office-1")
        empty = await engine_pids(host)
        drained = await office.view("office-1")
        await office.laptop.run(
            [*office.laptop.aemesh, "workers", "drain", "office-1", "--cancel"]
        )
        await office.joined("office-1", after=mark)

        assert (receipt["group"], receipt["graceful"]) == ("A", True)
        assert empty == []
        assert (drained["state"], drained["group"]) == ("draining", None)
        assert "drained" in drained["note"]
