"""Join tokens, site certificates and a new key, on real hosts and by the commands."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from aemesh.testing.lab import wait_for
from tests.lab.office import LAB, open_office, state

if TYPE_CHECKING:
    from aemesh.testing.lab import Host
    from tests.lab.office import Office

pytestmark = LAB


async def type_at(office: Office, name: str, *words: str, **options):
    """Run ``aemesh …`` on a host; return what it came to."""
    host = office.host(name)
    return await host.run([*host.aemesh, *words], **options)


def put(host: Host, name: str, text: str, *, mode: int = 0o600) -> str:
    """Leave a file in a host's home; return its path there."""
    path = host.home / name
    path.write_text(text)
    path.chmod(mode)
    status = host.home.stat()
    os.chown(path, status.st_uid, status.st_gid)
    return str(path)


async def test_a_token_admits_machines_without_a_question_and_into_its_group():
    """Shows: T6; Threat: 52."""
    names = ["laptop", "office-1", "office-2", "stranger"]
    async with open_office(names) as office:
        master = await office.start(
            "laptop", "master", "--group", "A", "--group", "B", terminal=True
        )
        await master.wait_said("is master of A, B", within=40)
        events = office.events = await office.follow()
        made = await type_at(
            office, "laptop", "trust", "token", "--group", "B", "--for", "1h"
        )
        token = made.stdout.strip()
        file = put(office.host("office-1"), "token", token + "\n")
        one = await office.start(
            "office-1", "worker", "--cores", "1", "--join", f"@{file}"
        )
        joined = await events.wait("worker.joined", worker="office-1")
        spent = await office.start(
            "office-2", "worker", "--cores", "1", env={"AEMESH_JOIN": token}
        )
        await spent.wait_said("token-spent")
        here = (state(office.laptop, "master") / "known_workers").read_text()
        there = (state(office.host("office-1"), "worker") / "known_masters").read_text()

        # It trusts exactly that master: another one is refused, and stays a stranger.
        await one.end(signal.SIGINT)
        (state(office.host("office-1"), "worker") / "known_masters").unlink()
        again = await office.start(
            "office-1", "worker", "--cores", "1", "--join", f"@{file}"
        )
        await office.start("stranger", "master", "--group", "X", "--accept-new")
        await again.wait_said("token-key", within=40)
        # The same key may use its token again.
        await events.wait("worker.joined", worker="office-1", after=joined.number)
        listed = await office.ask("trust", "token", "list")
        logs = [agent.said for agent in office.agents]
        audit = (state(office.laptop, "master") / "audit.log").read_text()

    assert made.stdout.count("\n") == 1
    assert joined.group == "B"
    assert "wants to join" not in master.said, "nobody is asked"
    assert "via=token:" in here
    assert "mode=token" in here
    assert "groups=B" in here
    assert "via=token:" in there
    assert len(listed) == 1
    secret = token.rpartition("-")[2]
    assert all(secret not in said for said in (*logs, audit, json.dumps(listed)))


async def test_a_site_with_certificates_asks_nobody_and_takes_one_back():
    """Shows: T3; Threat: 42, 44."""
    names = ["laptop", "office-1", "office-2"]
    async with open_office(names) as office:
        laptop = office.laptop
        ca = str(laptop.home / "ca")
        await type_at(office, "laptop", "ca", "init", ca, "--site", "lab")
        for role, name, where in (
            ("master", "desk", "laptop"),
            ("worker", "office-1", "office-1"),
        ):
            csr = (await type_at(office, where, "key", "csr", "--role", role)).stdout
            request = put(laptop, f"{name}.csr", csr)
            out = str(laptop.home / f"{name}.crt")
            await type_at(
                office,
                "laptop",
                *("ca", "issue", "--dir", ca, "--role", role, name),
                *("--csr", request, "--out", out),
            )
            await install(office, where, role, laptop.home / f"{name}.crt")
        worker = await office.start(
            "office-1", "worker", "--cores", "1", "--auth", "x509"
        )
        pinned = await office.worker("office-2")
        master = await office.start(
            "laptop", "master", "--group", "A", "--auth", "x509", terminal=True
        )
        await master.wait_said("desk is master of A", within=40)
        events = office.events = await office.follow()
        await events.wait("worker.joined", worker="office-1")
        refused = await events.wait("worker.unlinked", worker="office-2")
        await type_at(
            office,
            "laptop",
            *("ca", "revoke", "--dir", ca, "--role", "worker", "office-1"),
        )
        crl = (laptop.home / "ca" / "keys" / "crl.pem").read_text()
        (state(laptop, "master") / "x509" / "crl.pem").write_text(crl)
        lost = await events.wait("worker.lost", worker="office-1")
        asked, linked, refusing = (one.said for one in (master, worker, pinned))

    assert "trust it?" not in asked
    assert "linked to master desk" in linked
    assert "linked" not in refusing
    assert "office-2" in refused.text
    assert "revoked" in lost.text


async def install(office: Office, where: str, role: str, certificate) -> None:
    """Carry a certificate and the site's public files to a host, and install them."""
    host = office.host(where)
    site = office.laptop.home / "ca" / "keys"
    place = host.home / "from-the-site"
    place.mkdir(exist_ok=True)
    for file in site.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    mine = put(host, "mine.crt", certificate.read_text(), mode=0o644)
    await type_at(
        office, where, "key", "install", "--role", role, mine, "--site", str(place)
    )


async def test_a_key_is_changed_and_nobody_is_asked_again():
    """Shows: T1, T4; Threat: 30."""
    async with open_office(["laptop", "office-1"]) as office:
        worker = await office.worker("office-1")
        await office.master("A")
        await office.joined("office-1")
        events = office.events
        assert events is not None
        before = await office.view("office-1")

        await type_at(office, "office-1", "key", "rotate", "--role", "worker")
        book = state(office.laptop, "master") / "known_workers"
        await wait_for(
            lambda: len(book.read_text().splitlines()) == 2,
            within=20,
            what="the next key",
        )
        both = book.read_text().splitlines()
        early = await type_at(
            office,
            "office-1",
            *("key", "rotate", "--role", "worker", "--finish"),
            check=False,
        )
        await worker.end(signal.SIGINT)
        await type_at(
            office, "office-1", "key", "rotate", "--role", "worker", "--finish"
        )
        seen = events.last
        await office.start("office-1", "worker", "--cores", "1")
        await events.wait("worker.joined", worker="office-1", after=seen)
        after = book.read_text().splitlines()
        shown = [one for one in await office.ask("workers") if one["group"] == "A"]

    assert early.returncode == 3, "it runs"
    assert len(both) == 2
    assert len(after) == 1
    assert after[0].split()[2] == both[1].split()[2]
    assert [one["key"] for one in shown] != [before["key"]]
