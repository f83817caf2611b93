"""A master and a worker prove themselves by Kerberos: a real KDC, and both parties."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from aemesh.model.names import NodeName
from aemesh.net import gss
from aemesh.testing import kdc as kdcs
from aemesh.testing.kdc import Kdc, open_kdc, shift_clock

raw = pytest.importorskip("gssapi.raw", reason="no gssapi here; `.ci/kerberos` adds it")
pytestmark = pytest.mark.skipif(bool(kdcs.missing()), reason=kdcs.missing())

WORKER = gss.service_of(NodeName("office-1"))
BINDING = b"B of this connection".ljust(32)
OTHER_BINDING = b"B of another connection".ljust(32)
DAY = 86400


@dataclass
class Site:
    """A KDC, a worker's keytab and a master's user."""

    kdc: Kdc
    keytab: Path
    cache: Path

    def initiator(self, **changed) -> gss.Initiator:
        options = {"target": WORKER, "binding": BINDING, "ccache": self.cache}
        return gss.initiator(**{**options, **changed})

    def acceptor(self, **changed) -> gss.Acceptor:
        options = {"service": WORKER, "binding": BINDING, "keytab": self.keytab}
        return gss.acceptor(**{**options, **changed})


@pytest.fixture
async def site(tmp_path, monkeypatch):
    async with open_kdc(tmp_path) as kdc:
        for name, value in kdc.environment().items():
            monkeypatch.setenv(name, value)
        # What each party would take if it were not told: nothing.
        monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "nobody.cache"))
        monkeypatch.setenv("KRB5_KTNAME", str(tmp_path / "nobody.keytab"))
        monkeypatch.setenv("KRB5RCACHEDIR", str(tmp_path))
        await kdc.add_user("alice", "secret")
        keytab = await kdc.make_keytab("office-1.keytab", WORKER, "host/office-1")
        yield Site(kdc, keytab, await kdc.kinit("alice", "secret"))


async def shake(master: gss.Initiator, worker: gss.Acceptor) -> None:
    """Carry the tokens between both until each is complete."""
    asked = await master.step(None)
    answered = await worker.step(asked)
    assert await master.step(answered) is None


def token_by_hand(site: Site, *, binding: bytes | None, flags: list) -> bytes:
    """Return the first token of an initiator that is not ours."""
    store = {b"ccache": str(site.cache).encode()}
    bindings = raw.ChannelBindings(application_data=binding) if binding else None
    name = raw.import_name(WORKER.encode(), raw.NameType.kerberos_principal)
    done = raw.init_sec_context(
        name,
        raw.acquire_cred_from(store, usage="initiate").creds,
        mech=raw.MechType.kerberos,
        flags=flags,
        channel_bindings=bindings,
    )
    return done.token


# --- all is right ---------------------------------------------------------------------


async def test_both_prove_themselves_and_each_knows_the_other(site):
    """Shows: T8."""
    master, worker = site.initiator(), site.acceptor()

    await shake(master, worker)

    assert (master.complete, worker.complete) == (True, True)
    assert worker.principal == "alice@EXAMPLE.ORG"
    assert master.principal == "aemesh/office-1@EXAMPLE.ORG"


async def test_the_credentials_are_those_of_the_environment_by_default(
    site, monkeypatch
):
    monkeypatch.setenv("KRB5CCNAME", str(site.cache))
    monkeypatch.setenv("KRB5_KTNAME", str(site.keytab))
    master, worker = site.initiator(ccache=None), site.acceptor(keytab=None)

    await shake(master, worker)

    assert worker.principal == "alice@EXAMPLE.ORG"


async def test_a_user_of_another_realm_is_named_with_that_realm(site):
    await site.kdc.add_user("bob@OTHER.EXAMPLE", "secret")
    cache = await site.kdc.kinit("bob@OTHER.EXAMPLE", "secret")
    master, worker = site.initiator(ccache=cache), site.acceptor()

    await shake(master, worker)

    assert worker.principal == "bob@OTHER.EXAMPLE"


async def test_an_unlisted_user_is_named_for_the_policy_to_refuse(site):
    await site.kdc.add_user("mallory", "secret")
    cache = await site.kdc.kinit("mallory", "secret")
    master, worker = site.initiator(ccache=cache), site.acceptor()

    await shake(master, worker)

    assert worker.principal == "mallory@EXAMPLE.ORG"


async def test_a_name_with_an_at_stays_in_our_realm(site):
    service = gss.service_of(NodeName("office@OTHER.EXAMPLE"))
    keytab = await site.kdc.make_keytab("at.keytab", f"{service}@EXAMPLE.ORG")
    master = site.initiator(target=service)

    await shake(master, site.acceptor(service=service, keytab=keytab))

    assert master.principal == "aemesh/office\\@OTHER.EXAMPLE@EXAMPLE.ORG"


# --- bound to this connection ---------------------------------------------------------


async def test_an_initiator_without_channel_bindings_is_refused(site):
    """Threat: 54."""
    flags = [raw.RequirementFlag.mutual_authentication]
    token = token_by_hand(site, binding=None, flags=flags)
    worker = site.acceptor()

    with pytest.raises(RefusedError, match="no channel bindings"):
        await worker.step(token)

    assert (worker.complete, worker.principal) == (False, "")


async def test_a_token_that_is_bound_to_another_connection_is_refused(site):
    """Threat: 55."""
    token = await site.initiator(binding=OTHER_BINDING).step(None)
    worker = site.acceptor()

    with pytest.raises(RefusedError, match="bound to another connection"):
        await worker.step(token)

    assert not worker.complete


@pytest.mark.parametrize("environment", ["", "none:"])
async def test_a_token_is_good_once_whatever_the_environment_says(
    site, monkeypatch, environment
):
    """Threat: 56."""
    if environment:
        monkeypatch.setenv("KRB5RCACHENAME", environment)
    token = await site.initiator().step(None)
    await site.acceptor().step(token)

    with pytest.raises(RefusedError, match="used before"):
        await site.acceptor().step(token)


async def test_credentials_that_are_delegated_unasked_are_kept_nowhere(site):
    """Threat: 58."""
    cache = await site.kdc.kinit("alice", "secret", "-f")
    before = set(site.kdc.folder.iterdir())
    flag = raw.RequirementFlag
    token = token_by_hand(
        Site(site.kdc, site.keytab, cache),
        binding=BINDING,
        flags=[flag.mutual_authentication, flag.delegate_to_peer],
    )
    released = []

    class Watched:
        """The library, and what it is asked to release."""

        def __getattr__(self, name):
            return getattr(raw, name)

        def release_cred(self, credentials):
            raw.release_cred(credentials)
            released.append(credentials)

    worker = gss.Acceptor(
        Watched(), service=WORKER, binding=BINDING, keytab=site.keytab
    )
    await worker.step(token)

    (credentials,) = released
    # Nothing is left in there, and no other ticket can be found either.
    with pytest.raises(raw.GSSError):
        raw.inquire_cred(credentials)
    made = {file.name for file in set(site.kdc.folder.iterdir()) - before}
    assert all(name.endswith(".rcache2") for name in made)


async def test_our_master_delegates_nothing(site):
    cache = await site.kdc.kinit("alice", "secret", "-f")
    token = await site.initiator(ccache=cache).step(None)
    store = {b"keytab": str(site.keytab).encode()}
    keys = raw.acquire_cred_from(store, usage="accept").creds

    done = raw.accept_sec_context(
        token, keys, None, raw.ChannelBindings(application_data=BINDING)
    )

    assert raw.RequirementFlag.channel_bound in done.flags
    assert done.delegated_creds is None


async def test_a_master_that_wants_no_proof_of_us_is_refused(site):
    token = token_by_hand(site, binding=BINDING, flags=[raw.RequirementFlag.integrity])

    with pytest.raises(RefusedError, match="mutual proof"):
        await site.acceptor().step(token)


# --- somebody else --------------------------------------------------------------------


async def test_a_ticket_for_another_service_of_the_same_keytab_is_refused(site):
    token = await site.initiator(target="host/office-1").step(None)

    with pytest.raises(RefusedError, match="another service"):
        await site.acceptor().step(token)


async def test_an_answer_from_another_meeting_proves_nothing(site):
    asked = await site.initiator().step(None)
    master = site.initiator()
    await master.step(None)
    answered = await site.acceptor().step(asked)

    with pytest.raises(RefusedError, match="did not prove itself"):
        await master.step(answered)

    assert (master.complete, master.principal) == (False, "")


async def test_a_keytab_that_is_older_than_the_key_is_told(site):
    stale = site.kdc.folder / "stale.keytab"
    stale.write_bytes(site.keytab.read_bytes())
    await site.kdc.renew_key(WORKER)
    token = await site.initiator().step(None)

    with pytest.raises(RefusedError, match="another key than the KDC") as caught:
        await site.acceptor(keytab=stale).step(token)

    assert "ktadd" in caught.value.hint


async def test_a_name_that_no_kdc_vouches_for_is_told(site):
    with pytest.raises(RefusedError, match="does not know this service"):
        await site.initiator(target="aemesh/nobody").step(None)


async def test_a_realm_that_ours_does_not_know_is_told(site):
    with pytest.raises(RefusedError, match="does not know this service"):
        await site.initiator(target="aemesh/office-1@NOWHERE.EXAMPLE").step(None)


# --- clocks ---------------------------------------------------------------------------


async def test_an_expired_ticket_says_run_kinit(site):
    late = shift_clock(site.cache, 2 * DAY)

    with pytest.raises(RefusedError, match="expired") as caught:
        await site.initiator(ccache=late).step(None)

    assert caught.value.hint == "run `kinit`"


async def test_a_clock_that_is_wrong_is_told_by_the_worker(site):
    # Its tickets are there already: else the KDC would have complained first.
    await site.initiator().step(None)
    fast = shift_clock(site.cache, 1000)
    token = await site.initiator(ccache=fast).step(None)

    with pytest.raises(RefusedError, match="differ too much") as caught:
        await site.acceptor().step(token)

    assert "NTP" in caught.value.hint


# --- nothing to prove with ------------------------------------------------------------


async def test_without_a_ticket_a_master_says_run_kinit(site):
    with pytest.raises(RefusedError, match="no Kerberos ticket") as caught:
        await site.initiator(ccache=site.kdc.folder / "none.cache").step(None)

    assert caught.value.hint == "run `kinit`"


async def test_without_a_keytab_a_worker_says_how_to_make_one(site):
    token = await site.initiator().step(None)
    worker = site.acceptor(keytab=site.kdc.folder / "none.keytab")

    with pytest.raises(RefusedError, match="keytab") as caught:
        await worker.step(token)

    assert "--keytab FILE" in caught.value.hint


async def test_a_start_tells_what_a_handshake_would(site):
    assert await gss.check_user(site.cache) == "alice@EXAMPLE.ORG"
    await gss.check_keytab(WORKER, site.keytab)

    for check, hint in [
        (gss.check_user(site.kdc.folder / "none.cache"), "kinit"),
        (gss.check_user(shift_clock(site.cache, 2 * DAY)), "kinit"),
        (gss.check_keytab("aemesh/office-2", site.keytab), "ktadd"),
        (gss.check_keytab(WORKER, site.kdc.folder / "none.keytab"), "ktadd"),
    ]:
        with pytest.raises(SettingsError) as caught:
            await check
        assert hint in caught.value.hint


async def test_a_kdc_that_is_down_is_unreachable(site, tmp_path, monkeypatch):
    nobody = tmp_path / "nobody.conf"
    nobody.write_text(site.kdc.config.read_text().replace(f":{site.kdc.port}", ":1"))
    monkeypatch.setenv("KRB5_CONFIG", str(nobody))

    with pytest.raises(UnreachableError, match="no KDC of the realm answers"):
        await site.initiator().step(None)


async def test_a_kdc_that_says_nothing_is_given_up_on(site, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "GSS_AFTER", 0.2)
    with trio.socket.socket() as mute:
        await mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        nobody = tmp_path / "mute.conf"
        config = site.kdc.config.read_text()
        config = config.replace(f":{site.kdc.port}", f":{port}")
        # By TCP alone, which it accepts and then leaves unread.
        config = config.replace(
            "[libdefaults]", "[libdefaults]\n  udp_preference_limit = 1"
        )
        nobody.write_text(config)
        monkeypatch.setenv("KRB5_CONFIG", str(nobody))
        master = site.initiator()

        with pytest.raises(UnreachableError, match="did not answer within"):
            await master.step(None)
        with pytest.raises(BadMessage):
            await master.step(b"late")


# --- strangers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [None, b"", b"x" * (limits.GSS_TOKEN_BYTES + 1)],
    ids=["none", "empty", "too long"],
)
async def test_what_is_no_token_is_refused_before_the_library_sees_it(site, token):
    with pytest.raises(BadMessage):
        await site.acceptor().step(token)


async def test_bytes_that_are_no_token_are_refused(site):
    good = await site.initiator().step(None)
    cut = [good[:end] for end in range(1, len(good), 29)]
    for token in (b"GET / HTTP/1.1", b"\x60" * 40000, good[:-1] + b"\0", *cut):
        with pytest.raises(RefusedError):
            await site.acceptor().step(token)


async def test_a_party_takes_no_token_after_its_last(site):
    master, worker = site.initiator(), site.acceptor()
    await shake(master, worker)

    for party in (master, worker):
        with pytest.raises(BadMessage):
            await party.step(b"more")


async def test_a_party_that_was_refused_takes_no_second_try(site):
    worker = site.acceptor()
    with pytest.raises(RefusedError):
        await worker.step(b"nonsense")

    with pytest.raises(BadMessage):
        await worker.step(await site.initiator().step(None))


async def test_an_error_shows_no_token_and_no_key(site):
    keytab = site.keytab.read_bytes()
    token = await site.initiator(target="host/office-1").step(None)

    with pytest.raises(AemeshError) as caught:
        await site.acceptor().step(token)

    shown = repr(caught.value.fields()).encode()
    assert token.hex().encode() not in shown
    assert keytab[-32:].hex().encode() not in shown
