"""A Kerberos site in the lab: a KDC on one host, its users and services on others."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from aemesh.testing import kdc as kdcs
from aemesh.testing.kdc import open_kdc
from aemesh.testing.lab import open_lab
from aemesh.testing.lab_needs import program
from tests.lab.office import LAB, open_office, state

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host

pytestmark = [
    *LAB,
    pytest.mark.skipif(bool(kdcs.missing()), reason=kdcs.missing()),
]

# The user's own interpreter: is the worker's service known, and is the keytab its own?
_PROVE = """
import sys, trio
from aemesh.net import gss

async def prove():
    service, keytab = sys.argv[1:]
    await gss.check_keytab(service, keytab)
    master = gss.initiator(target=service, binding=b"B")
    worker = gss.acceptor(service=service, binding=b"B", keytab=keytab)
    await master.step(await worker.step(await master.step(None)))
    print(worker.principal, master.principal)

trio.run(prove)
"""


async def test_a_user_logs_in_over_the_network_and_meets_a_service():
    pytest.importorskip("gssapi", reason="no gssapi here; `.ci/kerberos` adds it")
    async with open_lab(["site", "laptop"]) as lab:
        site, laptop = lab
        (site.folder / "kdc").mkdir()
        async with open_kdc(site.folder / "kdc", host=site) as kdc:
            await kdc.add_user("alice", "secret")
            keytab = await kdc.make_keytab("office.keytab", "aemesh/office-1")
            theirs = laptop.home / "office.keytab"
            shutil.copy(keytab, theirs)
            shutil.chown(theirs, laptop.uid, laptop.uid)
            env = kdc.settle(laptop)

            await laptop.run([program("kinit"), "alice"], stdin="secret", env=env)
            argv = [laptop.python, "-c", _PROVE, "aemesh/office-1", str(theirs)]
            done = await laptop.run(argv, env=env)

    assert done.stdout.split() == ["alice@EXAMPLE.ORG", "aemesh/office-1@EXAMPLE.ORG"]


async def test_a_site_with_kerberos_asks_nobody_and_refuses_who_is_not_listed():
    """Shows: T8; Threat: 57."""
    pytest.importorskip("gssapi", reason="no gssapi here; `.ci/kerberos` adds it")
    names = ["laptop", "office-1", "other", "site"]
    async with open_office(names) as office:
        site = office.host("site")
        (site.folder / "kdc").mkdir()
        async with open_kdc(site.folder / "kdc", host=site) as kdc:
            keytab = await kdc.make_keytab("office.keytab", "aemesh/office-1")
            worker_host = office.host("office-1")
            theirs = give(worker_host, "office.keytab", keytab.read_bytes())
            folder = state(worker_host, "worker")
            principals = b"alice@EXAMPLE.ORG groups=A\n"
            give(worker_host, "gss_principals", principals, folder=folder)
            env = kdc.settle(worker_host)
            worker = await office.start(
                *("office-1", "worker", "--cores", "1"),
                *("--auth", "gss", "--keytab", str(theirs)),
                env=env,
            )
            await worker.wait_said("offers 1 core")
            for host, user in (("other", "bob"), ("laptop", "alice")):
                await kdc.add_user(user, "secret")
                env = kdc.settle(office.host(host))
                argv = [program("kinit"), user]
                await office.host(host).run(argv, stdin="secret", env=env)
                await office.start(
                    *(host, "master", "--group", "A", "--group", "B", "--auth", "gss"),
                    env=env,
                )
                if user == "bob":
                    await worker.wait_said("bob@EXAMPLE.ORG is not in gss_principals")
            await office.agents[-1].wait_said("is master of A, B", within=40)
            events = office.events = await office.follow()
            joined = await events.wait("worker.joined", worker="office-1")
            known = (folder / "known_masters").read_text()

    assert joined.group == "A", "alice may use it for A only"
    assert "via=gss:alice@EXAMPLE.ORG" in known
    assert "bob" not in known


def give(host: Host, name: str, data: bytes, *, folder: Path | None = None) -> Path:
    """Put a private file of its user on a host."""
    place = folder or host.home
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for one in (place, place.parent):
        if one != host.home and host.home in one.parents:
            shutil.chown(one, host.uid, host.uid)
    path = place / name
    path.write_bytes(data)
    path.chmod(0o600)
    shutil.chown(path, host.uid, host.uid)
    return path
