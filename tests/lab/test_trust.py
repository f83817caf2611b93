"""Trust on first use as people meet it: with a terminal, without one, at its end."""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, TIMES, open_office, state

if TYPE_CHECKING:
    from aemesh.testing.lab import Host
    from tests.lab.office import Agent, Office

pytestmark = LAB

# How long the other side takes to go on, once a person said yes.
GOES_ON_WITHIN = 1.0
CHANGED = "REMOTE IDENTIFICATION HAS CHANGED"
OPEN = "OPEN: nobody is authenticated"
IDENTITY = r'(?P<key>SHA256:\S+) — both sides show "(?P<words>\S+)"'
QUESTION = r"trust it\? \[y/N\] "


async def test_without_a_terminal_a_request_waits_until_it_is_accepted():
    """Shows: T1, T4, T7; and that a revoked worker is parted with at once."""
    async with open_office(["laptop", "office-1"]) as office:
        worker = await office.start("office-1", "worker", "--cores", "1")
        await office.start("laptop", "master", "--group", "A")
        await office.agents[-1].wait_said("is master of", within=40)
        events = office.events = await office.follow()
        await events.wait("trust.request", worker="office-1")
        there = await listed(office, "office-1")
        here = await listed(office, "laptop")
        waiting = await office.view("office-1")

        await accept(office, "laptop", "office-1")
        assert not events.find("worker.joined")
        accepted_at = await accept(office, "office-1", "laptop")
        await worker.wait_said("linked to master laptop")
        linked = time.monotonic() - accepted_at
        await office.joined("office-1")
        joined = time.monotonic() - accepted_at
        TIMES.append(
            f"accepted: linked after {linked:.3f} s, serves after {joined:.3f} s"
        )
        after = [await listed(office, name) for name in ("laptop", "office-1")]

        revoke = await office.laptop.run(
            [*office.laptop.aemesh, "trust", "revoke", "office-1"]
        )
        revoked_at = time.monotonic()
        lost = await events.wait("worker.lost", worker="office-1")
        parted = lost.read_at - revoked_at
        TIMES.append(f"revoked: parted after {parted:.3f} s")
        refused = await events.wait("worker.unlinked", after=lost.number)
        gone = await office.view("office-1")

    assert [(one["state"], one["name"], one["role"]) for one in there] == [
        ("pending", "laptop", "master")
    ]
    assert [(one["state"], one["name"], one["role"]) for one in here] == [
        ("pending", "office-1", "worker")
    ]
    assert waiting["group"] is None
    assert waiting["state"] == "linked"
    assert linked < GOES_ON_WITHIN
    assert [[one["state"] for one in rows] for rows in after] == [["known"], ["known"]]
    assert "revoked worker key" in revoke.stderr
    assert parted < GOES_ON_WITHIN
    assert gone["group"] is None
    assert gone["trust"] != "trusted"
    assert "revoked" in refused.text


async def test_on_a_terminal_each_side_asks_and_no_means_no():
    """Shows: T1, U1."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        one = await office.start("office-1", "worker", "--cores", "1", terminal=True)
        two = await office.worker("office-2")
        master = await office.start("laptop", "master", "--group", "A", terminal=True)
        await master.wait_said("is master of", within=40)
        events = office.events = await office.follow()

        question = (
            r"(office-\d) wants to join: SHA256:\S+ — both sides show \"\S+\"; "
            r"trust it\? \[y/N\] $"
        )
        for turn in (1, 2):
            # Both are asked about, one at a time.
            asked = await master.wait_said(question)
            name = asked.group(1)
            assert master.terminal is not None
            await master.terminal.type("y\n" if name == "office-1" else "n\n")
            if turn == 1:
                other = "office-2" if name == "office-1" else "office-1"
                await master.wait_said(rf"{other} wants to join: .*; {QUESTION}$")
        wish = r"laptop at \S+ wants to use this machine"
        await one.wait_said(rf"{wish}: {IDENTITY}; {QUESTION}$")
        assert one.terminal is not None
        await one.terminal.type("y\n")
        await office.joined("office-1")
        refused = await office.view("office-2")

        assert refused["trust"] == "declined"
        assert not events.find("worker.joined", worker="office-2")
        assert names(await listed(office, "laptop")) == ["office-1"]
        assert (
            "office-2"
            not in (state(office.laptop, "master") / "known_workers").read_text()
        )
        assert names(await listed(office, "office-2")) == []
        assert "linked to master" not in two.said


async def test_a_changed_key_is_refused_on_both_sides_and_loudly():
    """Shows: T4; Threat: 21, 22, 23."""
    async with open_office(["laptop", "office-1", "office-2", "stranger"]) as office:
        workers = {n: await office.worker(n) for n in ("office-1", "office-2")}
        master = await office.master("A")
        await office.joined(*workers)
        assert office.events is not None
        book = known(office.laptop, "master")

        # 23: the worker is set up anew, under its old name.
        assert await workers["office-1"].end(signal.SIGINT) == 0
        shutil.rmtree(state(office.host("office-1")))
        again = await office.worker("office-1")
        await master.wait_said(CHANGED)
        await again.wait_said("refuses us: it knows our name with another key")
        shown = [
            one for one in await office.ask("workers") if one["name"] == "office-1"
        ]
        assert "key-changed" in {one["trust"] for one in shown}
        assert known(office.laptop, "master") == book
        assert known(office.host("office-1"), "worker") == ""

        # 22: another master, under another name, at a worker that has one.
        await office.start("stranger", "master", "--group", "X", "--accept-new")
        stranger = office.agents[-1]
        await stranger.wait_said("is master of", within=40)
        foreign = await office.follow(name="stranger")
        await foreign.wait("worker.unlinked", worker="office-2")
        other = await office.view("office-2", name="stranger")
        assert other["trust"] != "trusted"
        assert "belongs to another master" in other["note"]
        (request,) = pending(await listed(office, "office-2"))
        assert (request["name"], request["via"]) == ("stranger", "owned")
        assert not foreign.find("worker.joined", worker="office-2")
        assert await stranger.end(signal.SIGINT) == 0

        # 21: another master, under the name of the known one.
        before = known(office.host("office-2"), "worker")
        # Tried again when trust changed over there, but not in a circle.
        assert workers["office-2"].said.count("master stranger is refused") < 5
        assert await master.end(signal.SIGINT) == 0
        shutil.rmtree(state(office.laptop))
        imposter = await office.master("A")
        await workers["office-2"].wait_said(CHANGED)
        await imposter.wait_said("refuses us: it knows our name with another key")
        assert known(office.host("office-2"), "worker") == before
        assert not office.events.find("worker.joined", worker="office-2")


async def test_keys_that_were_given_on_the_command_line_are_trusted_unasked():
    """Shows: T1."""
    async with open_office(["laptop", "office-1"]) as office:
        keys = {}
        for name, role in (("laptop", "master"), ("office-1", "worker")):
            # A first start makes the key; its owner reads it out to the other.
            once = await office.start(name, role)
            await once.wait_said("key SHA256:", within=40)
            public = state(office.host(name), role) / "id_ed25519.pub"
            await wait_for(public.exists, within=10, what="a key")
            await once.end(signal.SIGINT)
            (shown,) = await office.ask("key", "show", name=name)
            keys[role] = shown["key"]

        await office.worker("office-1", "--trust-master", keys["master"])
        await office.start(
            "laptop", "master", "--group", "A", "--trust-worker", keys["worker"]
        )
        await office.agents[-1].wait_said("is master of", within=40)
        office.events = await office.follow()
        await office.joined("office-1")
        lines = [await listed(office, name) for name in ("laptop", "office-1")]

        assert [[one["via"] for one in rows] for rows in lines] == [["flag"], ["flag"]]


async def test_open_mode_needs_both_sides_and_a_private_network():
    """Shows: T2; Threat: 45, 48."""
    names_ = ["laptop", "office-1", "office-2", "office-3"]
    async with open_office(names_) as office:
        one = await office.worker("office-1", "--insecure-open")
        await office.worker("office-2")
        master = await office.start(
            "laptop", "master", "--group", "A", "--insecure-open"
        )
        await master.wait_said("is master of", within=40)
        office.events = await office.follow()
        await office.joined("office-1")
        await office.events.wait("worker.unlinked", worker="office-2")
        leap = await office.view("office-2")
        await master.wait_said(OPEN)
        await one.wait_said(OPEN)
        assert leap["group"] is None
        assert leap["trust"] == "mode"
        assert known(office.laptop, "master") == ""
        assert await master.end(signal.SIGINT) == 0

        # The other way round: an open worker, and a master that is not.
        before = office.events.last
        cautious = await office.master("A")
        await office.joined("office-2", after=before)
        await office.events.wait("worker.unlinked", worker="office-1", after=before)
        shown = await office.view("office-1")
        assert shown["trust"] == "mode"
        assert not office.events.find("worker.joined", worker="office-1", after=before)
        await cautious.end(signal.SIGINT)

        public = office.host("office-3")
        link = ["ip", "link", "add", "br-1", "type", "veth", "peer", "name", "br-2"]
        await public.run(link, root=True)
        # On the bridge of an emulator as well: we would listen there all the same.
        for address, port, role in (
            ("8.8.8.8", "eth0", "worker"),
            ("8.8.4.4", "lo", "master"),
            ("2001:4860::8888", "br-1", "worker"),
        ):
            where = [f"{address}/{128 if ':' in address else 32}", "dev", port]
            await public.run(["ip", "addr", "add", *where], root=True)
            argv = [*public.aemesh, role, "--insecure-open"]
            done = await public.run(argv, check=False, within=20)
            assert done.returncode == 3
            assert f"{address} is public" in done.stderr
            await public.run(["ip", "addr", "del", *where], root=True)
        assert await public.listeners() == []


async def test_each_side_shows_the_other_sides_key_and_a_no_leaves_nothing_behind():
    """Shows: T1, T5; Threat: 26."""
    async with open_office(["laptop", "office-1"]) as office:
        ends = {"laptop": ("master", "--group", "A"), "office-1": ("worker",)}
        agents = {
            name: await office.start(name, *words, terminal=True)
            for name, words in ends.items()
        }
        asked = rf"(?:laptop|office-1) .*: {IDENTITY}; {QUESTION}"
        shown = {n: await one.wait_said(asked, within=40) for n, one in agents.items()}
        keys = {name: (await office.ask("key", "show", name=name))[0] for name in ends}
        events = await office.follow()

        await press(agents["office-1"], "n\n")
        refused = await events.wait("worker.unlinked", worker="office-1")
        stored = [known(office.host(name), words[0]) for name, words in ends.items()]
        asked_there = pending(await listed(office, "office-1"))
        # The question over here is still open, and nothing waits for its answer.
        await press(agents["laptop"], "n\n")
        await no_request(office, "laptop")
        stored += [known(office.host(name), words[0]) for name, words in ends.items()]

    for name, other in (("laptop", "office-1"), ("office-1", "laptop")):
        assert shown[name].group("key") == keys[other]["key"]
    words = {one.group("words") for one in shown.values()}
    assert len(words) == 1, "both terminals show the same four words"
    assert len(words.pop().split("-")) == 4
    assert "a person said no" in refused.text
    assert asked_there == []
    assert stored == [""] * 4
    assert not events.find("worker.joined")


async def test_an_owned_worker_goes_to_another_master_once_its_owner_accepts_it():
    """Shows: T4, T7; Threat: 22."""
    async with open_office(["laptop", "office-1", "stranger"]) as office:
        worker = await office.worker("office-1")
        first = await office.master("A")
        await office.joined("office-1")
        assert await first.end(signal.SIGINT) == 0
        await worker.wait_said("left group A")

        await office.master("X", name="stranger")
        events = office.events
        assert events is not None
        told = await events.wait("worker.unlinked", worker="office-1")
        assert not events.find("worker.joined")
        accepted_at = await accept(office, "office-1", "stranger")
        await worker.wait_said("linked to master stranger")
        linked = time.monotonic() - accepted_at
        joined = await events.wait("worker.joined", worker="office-1")
        TIMES.append(
            f"an owned worker, accepted: linked after {linked:.3f} s, "
            f"serves after {joined.read_at - accepted_at:.3f} s"
        )
        masters = names(await listed(office, "office-1"))

        host = office.host("office-1")
        await host.run([*host.aemesh, "trust", "forget", "stranger"])
        forgot_at = time.monotonic()
        lost = await events.wait("worker.lost", worker="office-1")
        TIMES.append(f"forgotten: parted after {lost.read_at - forgot_at:.3f} s")
        left = await listed(office, "office-1")

    assert "belongs to another master" in told.text
    assert linked < GOES_ON_WITHIN
    assert masters == ["laptop", "stranger"]
    assert lost.read_at - forgot_at < GOES_ON_WITHIN
    assert "trust was withdrawn" in lost.text
    assert names(left) == ["laptop"]
    assert [row["name"] for row in pending(left)] == ["stranger"]


async def test_only_the_words_of_this_start_make_a_node_open():
    """Shows: T2; Threat: 48; neither a variable nor a file does."""
    async with open_office(["laptop", "office-1"]) as office:
        hints = {
            f"{prefix}{name}": "1"
            for prefix in ("", "AEMESH_", "AEMESH_MASTER_", "AEMESH_WORKER_")
            for name in ("INSECURE_OPEN", "OPEN", "MODE")
        }
        text = 'insecure_open = true\ninsecure-open = true\nmode = "open"\n'
        for host in office.lab:
            for folder in (state(host), host.home / ".config/aemesh", host.home):
                await host.run(["mkdir", "-p", "-m", "700", str(folder)])
                for name in ("config", "settings", "aemesh", ".aemesh"):
                    file = str(folder / f"{name}.toml")
                    await host.run(["tee", file], stdin=text)

        # Where settings are read from it is an error, and nobody starts.
        for name, role in (("office-1", "worker"), ("laptop", "master")):
            refused = await office.start(name, role)
            assert await refused.wait() == 3, refused.said
            assert "insecure_open" in refused.said
        for host in office.lab:
            await host.run(["rm", f"{host.home}/.config/aemesh/config.toml"])

        shut = [
            await office.start("office-1", "worker", "--cores", "1", env=hints),
            await office.start("laptop", "master", env=hints),
        ]
        await shut[1].wait_said("is master of", within=40)
        events = await office.follow()
        await events.wait("trust.request", worker="office-1")
        (status,) = await office.ask("status")
        waiting = pending(await listed(office, "office-1"))
        said = [one.said for one in shut]
        codes = [await one.end(signal.SIGINT) for one in shut]

        opened = [
            await office.start("office-1", "worker", "--cores", "1", "--insecure-open"),
            await office.start("laptop", "master", "--insecure-open"),
        ]
        await opened[1].wait_said("is master of", within=40)
        after = events.last
        events = await office.follow()
        joined = await events.wait("worker.joined", worker="office-1", after=after)
        (open_status,) = await office.ask("status")
        stored = known(office.laptop, "master")
        stored += known(office.host("office-1"), "worker")
        for one in opened:
            await one.wait_said(OPEN)

    assert status["mode"] == "leap"
    assert [row["name"] for row in waiting] == ["laptop"]
    assert not any(OPEN in one for one in said)
    assert codes == [0, 0]
    assert open_status["mode"] == "open"
    assert joined.group == "default"
    assert stored == ""


async def listed(office: Office, name: str) -> list[dict[str, Any]]:
    """Return what `aemesh trust list` shows on a host."""
    return await office.ask("trust", "list", name=name)


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Return whom the rows are about and trusted."""
    return [row["name"] for row in rows if row["state"] == "known"]


def pending(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of those who wait."""
    return [row for row in rows if row["state"] == "pending"]


async def no_request(office: Office, name: str) -> None:
    """Wait until nobody waits for trust on a host."""

    async def look() -> bool:
        return not pending(await listed(office, name))

    await wait_for(look, within=5, what=f"an empty list on {name}")


async def press(agent: Agent, keys: str) -> None:
    """Type at the terminal of an agent."""
    assert agent.terminal is not None
    await agent.terminal.type(keys)


def known(host: Host, role: str) -> str:
    """Return the trust file of a role on a host."""
    file = state(host, role) / (
        "known_workers" if role == "master" else "known_masters"
    )
    return file.read_text() if file.exists() else ""


async def accept(office: Office, name: str, peer: str) -> float:
    """Accept who waits there; return when the command had ended."""
    host = office.host(name)
    await host.run([*host.aemesh, "trust", "accept", peer])
    return time.monotonic()
