"""A Kerberos site in the lab: a KDC on one host, its users and services on others."""

from __future__ import annotations

import shutil

import pytest

from aemesh.testing import kdc as kdcs
from aemesh.testing.kdc import open_kdc
from aemesh.testing.lab import open_lab
from aemesh.testing.lab_needs import program
from tests.lab.office import LAB

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
