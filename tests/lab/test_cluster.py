"""A Dask cluster object on a group: a script on the laptop, workers in the office."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.lab.office import LAB, open_office

if TYPE_CHECKING:
    from tests.lab.office import Office

pytestmark = LAB

# What the tests of distributed's own clusters ask of one (`test_cluster`,
# `test_spec_cluster`, `test_adaptive`), which its wheel does not bring.
SYNC = """
import http.client, json, re, time, warnings
from urllib.parse import urlsplit
from distributed import Client, wait
from distributed.deploy.adaptive import Adaptive
from aemesh.dask import AemeshCluster
import aemesh

warnings.simplefilter("error", ResourceWarning)
told = {}

def get(at, target, **fields):
    line = http.client.HTTPConnection(at.netloc, timeout=20)
    line.request("GET", target, headers=fields)
    answer = line.getresponse()
    text = "" if answer.status == 101 else answer.read().decode()
    line.close()
    return answer, text

def knock(link):
    at, told = urlsplit(link), []
    told.append(get(at, "/status")[0].status)
    welcome, _ = get(at, link.removeprefix(f"http://{at.netloc}"))
    cookie = welcome.headers["set-cookie"].partition(";")[0]
    page, text = get(at, welcome.headers["location"], Cookie=cookie)
    told += [welcome.status, page.status]
    token = re.search(r'"token":"([^"]+)"', text)[1]
    websocket = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec-WebSocket-Protocol": f"bokeh, {token}", "Origin": f"http://{at.netloc}",
    }
    told.append(get(at, "/status/ws", **websocket)[0].status)
    foreign = {**websocket, "Cookie": cookie, "Origin": "http://evil.example"}
    told.append(get(at, "/status/ws", **foreign)[0].status)
    told.append(get(at, "/status/ws", **websocket, Cookie=cookie)[0].status)
    return told
with AemeshCluster("new", n_workers=1) as cluster:
    told["name"], told["asynchronous"] = cluster.name, cluster.asynchronous
    with Client(cluster) as client:
        assert client.cluster is cluster and client.scheduler.address
        cluster.wait_for_workers(1, timeout=20)
        told["sum"] = client.submit(sum, [1, 2, 3]).result()
        told["door"] = knock(cluster.dashboard_link)
        told["link"] = client.dashboard_link
        assert told["link"] == cluster.dashboard_link
        told["repr"] = repr(cluster)
        told["html"] = cluster._repr_html_()
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=20)
        assert len(client.scheduler_info()["workers"]) == 2
        assert len(cluster.plan) == len(cluster.requested) == len(cluster.observed) == 2
        told["squares"] = client.gather(client.map(lambda x: x * x, range(5)))
        told["logs"] = {k: bool(v) for k, v in cluster.get_logs().items()}
        cluster.scale(1)
        while len(cluster.scheduler_info["workers"]) != 1:
            time.sleep(0.05)
    adaptive = cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2)
    assert isinstance(adaptive, Adaptive)
    with cluster.get_client() as client:
        while len(cluster.scheduler_info["workers"]) != 0:
            time.sleep(0.05)
        work = client.map(time.sleep, [0.2 + n / 1000 for n in range(20)])
        while len(cluster.scheduler_info["workers"]) != 2:
            time.sleep(0.05)
        wait(work)
        del work
        while len(cluster.scheduler_info["workers"]) != 0:
            time.sleep(0.05)
    told["groups"] = [one.name for one in aemesh.Mesh().groups()]
assert cluster.status.name == "closed"
cluster.close()  # again: nothing
try:
    get(urlsplit(told["link"]), "/status")
except ConnectionRefusedError:
    told["closed"] = True
told["left"] = [one.name for one in aemesh.Mesh().groups()]
try:
    AemeshCluster("shell")
except aemesh.AemeshError as error:
    told["other"] = str(error)
print(json.dumps(told))
"""

ASYNCHRONOUS = """
import asyncio, json
from distributed import Client
from aemesh.dask import AemeshCluster
import aemesh

def wanted(group):
    demand = group.demand
    return demand.min, demand.max, demand.weight, dict(demand.settings)

async def main():
    told = {}
    wishes = {"weight": 7, "settings": {"optimization.fuse.active": "true"}}
    async with AemeshCluster("A", asynchronous=True, **wishes) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            cluster.scale(1)
            await client.wait_for_workers(1, timeout=20)
            told["sum"] = await client.submit(sum, [1, 2, 3])
            told["status"] = cluster.status.name
        told["demand"] = [wanted(group) for group in aemesh.Mesh().groups()]
    told["after"] = [wanted(group) for group in aemesh.Mesh().groups()]
    print(json.dumps(told))

asyncio.run(main())
"""

GROUP = """
import concurrent.futures as cf, json, time
import aemesh

told = {}
with aemesh.connect("A") as group:
    group.scale(2)
    while len(group.workers) != 2:
        time.sleep(0.05)
    with group.executor(retries=1) as executor:
        assert isinstance(executor, cf.Executor)
        told["powers"] = list(executor.map(pow, [2, 3], [5, 2]))
        done, _ = cf.wait([executor.submit(time.time) for _ in range(3)])
        told["calls"] = len({future.result() for future in done})
        failed = executor.submit(divmod, 1, 0)
        told["error"] = type(failed.exception()).__name__
    group.adapt(minimum=0, maximum=2, every=0.1)
    while group.workers:
        time.sleep(0.05)
    with group.client() as client:
        work = client.map(time.sleep, [0.2 + n / 1000 for n in range(20)])
        while len(group.workers) != 2:
            time.sleep(0.05)
        client.gather(work)
    demand = group.status().demand
group = aemesh.Mesh().groups()[0]
told["demand"] = [group.demand.min, group.demand.max]
print(json.dumps(told))
"""


async def run_script(office: Office, text: str) -> dict[str, Any]:
    """Return what a script on the laptop prints last."""
    path = office.laptop.home / "script.py"
    path.write_text(text)
    path.chmod(0o644)
    done = await office.laptop.run([office.laptop.python, str(path)])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


async def test_a_cluster_object_is_what_dask_users_know():
    """Shows: E2, U5."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.master(
            "shell", more=["--engine", "command", "--min", "0", "--max", "0"]
        )
        told = await run_script(office, SYNC)

    assert (told["name"], told["asynchronous"]) == ("new", False)
    # without the link, by it, and from then on; websockets of nobody, others and ours
    assert told["door"] == [403, 303, 200, 403, 403, 101]
    assert told["closed"]
    assert (told["sum"], told["squares"]) == (6, [0, 1, 4, 9, 16])
    assert told["repr"].startswith("AemeshCluster(new, 'tls://127.0.0.1:")
    assert "workers=1, threads=1, memory=" in told["repr"]
    assert "AemeshCluster" in told["html"]
    assert {"Cluster", "Scheduler"} <= told["logs"].keys()
    assert len(told["logs"]) == 4
    assert all(told["logs"].values())
    assert (sorted(told["groups"]), told["left"]) == (["new", "shell"], ["shell"])
    assert "its engine is command" in told["other"]


async def test_a_group_that_is_there_is_scaled_and_left_as_it_was():
    """Shows: E6, U5."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.master("A")
        await office.joined("office-1", "office-2")
        cluster = await run_script(office, ASYNCHRONOUS)
        group = await run_script(office, GROUP)

    assert (cluster["sum"], cluster["status"]) == (6, "running")
    settings = {"optimization.fuse.active": "true"}
    assert cluster["demand"] == [[1, 1, 7, settings]]
    assert cluster["after"] == [[1, None, 1, {}]]
    assert (group["powers"], group["calls"]) == ([32, 9], 3)
    assert group["error"] == "ZeroDivisionError"
    assert group["demand"] == [0, 2]
