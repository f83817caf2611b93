"""Who may take over what a master left, and what a rogue worker can say about it."""

from __future__ import annotations

import msgspec
import pytest
import trio

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.master.authority import GroupAuthority
from aemesh.master.kept import GroupRecord, encode, read_estates_untrusted
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.policy.lease import Tenancy
from aemesh.protocol import wire
from aemesh.protocol.keeperword import keeper_untrusted, statement
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.worker.held import Held
from aemesh.worker.notebook import Notebook

WORKER, MASTER, HEIR, OTHER = (KeyId(bytes([n]) * 32) for n in range(4))
A = GroupName("A")
PLACE, KEEPER = Address("192.0.2.1", 7473), KeyId(bytes([9]) * 32)


def held_tenancy() -> Tenancy:
    tenancy = Tenancy(WORKER)
    tenancy.assign(MASTER, A, 1, heirs=frozenset({HEIR}), kept_after=60.0)
    return tenancy


@pytest.mark.parametrize(
    ("master", "group", "generation", "holder_is_here"),
    [
        (OTHER, "A", 1, False),  # trusted by the worker perhaps, but no heir
        (HEIR, "A", 1, True),  # the master is there
        (HEIR, "B", 1, False),
        (HEIR, "A", 2, False),
        (MASTER, "A", 0, False),
    ],
)
def test_a_lease_is_adopted_by_nobody_else(master, group, generation, holder_is_here):
    """Threat: a trusted master that wants the workers of another one."""
    tenancy = held_tenancy()
    before = tenancy.lease

    with pytest.raises(RefusedError):
        tenancy.adopt(
            master, GroupName(group), generation, holder_is_here=holder_is_here
        )

    assert tenancy.lease == before


def test_an_heir_that_adopted_is_the_master_and_the_old_one_is_not():
    tenancy = held_tenancy()

    tenancy.adopt(HEIR, A, 1, holder_is_here=False)

    tenancy.check()
    assert tenancy.holds(HEIR, 1).kept_after == 60.0
    with pytest.raises(RefusedError):
        tenancy.holds(MASTER, 1)
    with pytest.raises(RefusedError):
        tenancy.adopt(MASTER, A, 1, holder_is_here=False)


def test_a_lease_is_kept_no_longer_than_the_limit():
    tenancy = Tenancy(WORKER)

    lease = tenancy.assign(MASTER, A, 1, kept_after=1e9)

    assert lease.kept_after == limits.LEASE_KEPT_CAP_AFTER


def word(signer: Identity, **changed: object) -> wire.Keeper:
    said = wire.Keeper(
        address=str(PLACE),
        key=str(KEEPER),
        master=signer.public.raw,
        sig=signer.sign(statement(PLACE, KEEPER)),
    )
    return msgspec.structs.replace(said, **changed)


def test_the_word_for_a_keeper_is_the_masters():
    master = Identity.ephemeral("laptop")

    assert keeper_untrusted(word(master), master=master.key_id) == (PLACE, KEEPER)


@pytest.mark.parametrize(
    "changed",
    [
        {"address": "192.0.2.66:7473"},
        {"key": str(OTHER)},
        {"sig": bytes(64)},
        {"sig": b""},
        {"master": b""},
        {"master": bytes(32)},
        {"address": "nowhere"},
        {"key": "SHA256:short"},
    ],
)
def test_a_rogue_worker_cannot_send_an_heir_to_another_keeper(changed):
    """Threat: T5."""
    master = Identity.ephemeral("laptop")

    with pytest.raises(BadMessage):
        keeper_untrusted(word(master, **changed), master=master.key_id)


def test_the_word_of_another_master_is_none():
    master, rogue = Identity.ephemeral("laptop"), Identity.ephemeral("rogue")

    with pytest.raises(BadMessage):
        keeper_untrusted(word(rogue), master=master.key_id)


def open_keeper(nursery: trio.Nursery | None = None) -> tuple[Held, Notebook]:
    notebook = Notebook()
    tenancy = Tenancy(WORKER)
    held = Held(tenancy, MemoryJobs(), lambda _: None, notebook=notebook)
    held.crew = nursery
    return held, notebook


async def test_only_who_holds_the_keeper_reads_and_writes_there():
    """Threat: 79; the key of a group is among it."""
    held, _ = open_keeper()
    order = wire.Assign(group="heads", generation=1)
    await held.handle(MASTER, order)
    await held.handle(MASTER, wire.Keep(key="A", data="secret"))

    for body in (wire.Recall(), wire.Keep(key="A", data="mine")):
        with pytest.raises(RefusedError):
            await held.handle(OTHER, body)

    page = await held.handle(MASTER, wire.Recall())
    assert page == wire.Recalled(entries=(wire.Keep(key="A", data="secret"),))
    await held.handle(MASTER, wire.Release(generation=1, term_after=0.0))
    await held.handle(OTHER, wire.Assign(group="heads", generation=2))
    assert await held.handle(OTHER, wire.Recall()) == wire.Recalled()


async def test_a_worker_keeps_nothing_for_a_master():
    held = Held(Tenancy(WORKER), MemoryJobs(), lambda _: None)
    await held.handle(MASTER, wire.Assign(group="A", generation=1))

    with pytest.raises(RefusedError):
        await held.handle(MASTER, wire.Keep(key="A", data="x"))


def test_a_notebook_is_bounded_and_read_in_pages():
    notebook = Notebook()
    for number in range(limits.KEPT_ENTRIES):
        notebook.keep(f"{number:05}", "x")

    with pytest.raises(RefusedError):
        notebook.keep("one more", "x")

    seen: list[str] = []
    while page := notebook.page(seen[-1] if seen else "").entries:
        seen += (one.key for one in page)
    assert len(seen) == limits.KEPT_ENTRIES
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "entries",
    [
        [("A", "no record")],
        [("A", "{}")],
        [("a b", encode(GroupRecord("dask", "pem")))],
        [("A", encode(GroupRecord("dask", "pem", heads=("/etc",))))],
        [("A", encode(GroupRecord("dask", "pem"))), ("A/no key", "{}")],
    ],
)
def test_what_was_left_is_read_as_a_strangers(entries):
    with pytest.raises(BadMessage):
        read_estates_untrusted(entries)


def test_an_authority_that_was_left_is_a_key_with_its_certificate():
    one = GroupAuthority(A, now=1.8e9)
    two = GroupAuthority(A, now=1.8e9)
    again = GroupAuthority(A, now=1.9e9, kept=one.kept())

    assert again.certificate_pem == one.certificate_pem
    key = one.kept().removesuffix(one.certificate_pem)
    for text in ("", key, key + two.certificate_pem, one.certificate_pem):
        with pytest.raises(BadMessage):
            GroupAuthority(A, now=1.9e9, kept=text)
