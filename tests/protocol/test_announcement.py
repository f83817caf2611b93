"""The TXT form of announcements: one spelling, signed, and small."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from aemesh import limits
from aemesh.errors import BadMessage, BugError
from aemesh.model.address import Address
from aemesh.model.key import PublicKey
from aemesh.model.machine import Announcement
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.protocol.announcement import (
    announced_addresses,
    claims_untrusted,
    decode_untrusted,
    encode,
    instance_name,
    service_type,
    signed_bytes,
    txt_bytes,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "announcement.json"
KEY = SigningKey(bytes(range(32)))
PUBLIC = PublicKey(bytes(KEY.verify_key))
INSTANCE = instance_name(PUBLIC.key_id)
PLAIN = Announcement(
    role=Role.WORKER,
    name=NodeName("office-3"),
    key=PUBLIC,
    mode=Mode.LEAP,
    cores=8,
    memory=16 * 1024**3,
    addresses=(Address("10.0.0.3", 7472), Address("fe80::3", 7472)),
    signed_at=1_800_000_000,
    expires_at=1_800_086_400,
    run="AAECAwQFBgc",
)
LONGEST = replace(
    PLAIN,
    name=NodeName("n" * 64),
    mode=Mode.TOKEN,
    cores=99_999,
    memory=99_999_999 * 1024**2,
    signed_at=9_999_999_998 - 86_400,
    expires_at=9_999_999_999,
)

# IPv4-mapped ones are left out, see `announced_addresses`.
ADDRESSES = (
    st.ip_addresses()
    .filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None)
    .map(str)
)


def sign(message: bytes) -> bytes:
    return KEY.sign(message).signature


def wire(announcement: Announcement) -> dict[bytes, bytes | None]:
    txt = encode(announcement, sign=sign)
    return {key.encode(): value.encode() for key, value in txt.items()}


def resigned(**changes: str) -> dict[bytes, bytes | None]:
    """An announcement with other fields, signed by the key all the same."""
    txt = encode(PLAIN, sign=sign) | changes
    raw = sign(signed_bytes(Role.WORKER, INSTANCE, txt))

    txt["s"] = base64.b64encode(raw).decode().rstrip("=")
    return {key.encode(): value.encode() for key, value in txt.items()}


def test_an_announcement_comes_back_as_it_went() -> None:
    assert decode_untrusted(Role.WORKER, INSTANCE, wire(PLAIN)) == PLAIN


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("role", Role)
def test_every_role_and_mode_can_be_announced(role: Role, mode: Mode) -> None:
    announcement = replace(PLAIN, role=role, mode=mode)

    assert decode_untrusted(role, INSTANCE, wire(announcement)) == announcement


def test_the_longest_announcement_is_smaller_than_promised() -> None:
    many = [Address(f"192.168.{200 + n}.{100 + n}", 65535) for n in range(20)]
    longest = replace(LONGEST, addresses=announced_addresses(many))

    assert len(longest.addresses) == 7
    assert txt_bytes(wire(longest)) < limits.TXT_BYTES
    assert decode_untrusted(Role.WORKER, INSTANCE, wire(longest)) == longest


def test_the_longest_ipv6_announcement_is_smaller_than_promised() -> None:
    full = "fd12:3456:789a:bcde:f123:4567:89ab:cde"
    many = [Address(f"{full}{n}", 65535) for n in range(8)]
    longest = replace(LONGEST, addresses=announced_addresses(many))

    assert len(longest.addresses) == 2
    assert txt_bytes(wire(longest)) < limits.TXT_BYTES


def test_private_ipv4_goes_first_then_ula_then_link_local() -> None:
    hosts = [
        "fe80::1%eth0",
        "127.0.0.1",
        "169.254.1.1",
        "8.8.8.8",
        "fd00::1",
        "192.168.0.1",
        "10.0.0.2",
        "10.0.0.2",
    ]

    chosen = announced_addresses(Address(host, 7472) for host in hosts)

    assert [address.host for address in chosen] == [
        "10.0.0.2",
        "192.168.0.1",
        "fd00::1",
        "169.254.1.1",
        "fe80::1",
        "127.0.0.1",
        "8.8.8.8",
    ]


def test_the_order_of_addresses_does_not_depend_on_how_they_are_found() -> None:
    addresses = [Address(f"10.0.{n}.1", 7472) for n in range(12)]

    assert announced_addresses(addresses) == announced_addresses(reversed(addresses))


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        (Address("10.0.0.2", 7472), Address("10.0.0.1", 7472)),
        (Address("10.0.0.1", 7472), Address("10.0.0.2", 7473)),
        (Address("fe80::1%eth0", 7472),),
    ],
)
def test_what_cannot_be_announced_is_our_bug(addresses: tuple[Address, ...]) -> None:
    with pytest.raises(BugError):
        encode(replace(PLAIN, addresses=addresses), sign=sign)


@pytest.mark.parametrize("key", "vnkimcrpatxs")
def test_every_field_that_is_changed_is_noticed(key: str) -> None:
    changed = replace(
        PLAIN,
        name=NodeName("office-4"),
        key=PublicKey(bytes(SigningKey(b"\1" * 32).verify_key)),
        mode=Mode.OPEN,
        cores=9,
        memory=17 * 1024**3,
        addresses=(Address("10.0.0.4", 7473),),
        signed_at=PLAIN.signed_at + 1,
        expires_at=PLAIN.expires_at + 1,
        run="BwYFBAMCAQA",
    )
    other = wire(changed) | {b"v": b"2"}

    tampered = wire(PLAIN) | {key.encode(): other[key.encode()]}

    assert tampered != wire(PLAIN)
    with pytest.raises(BadMessage):
        decode_untrusted(Role.WORKER, INSTANCE, tampered)


@pytest.mark.parametrize("key", "vnkimcrpatxs")
@pytest.mark.parametrize("value", [None, b"", b"\xff\x00", b"9" * 200])
def test_every_field_that_is_missing_or_junk_is_noticed(
    key: str, value: bytes | None
) -> None:
    with pytest.raises(BadMessage):
        decode_untrusted(Role.WORKER, INSTANCE, wire(PLAIN) | {key.encode(): value})


@pytest.mark.parametrize("run", ["", "AAECAwQFBgc=", "x", "AAECAwQFBgcI"])
def test_a_process_without_a_run_of_its_own_is_our_bug(run: str) -> None:
    with pytest.raises(BugError):
        encode(replace(PLAIN, run=run), sign=sign)


def test_an_announcement_of_another_role_is_refused() -> None:
    with pytest.raises(BadMessage, match="not signed"):
        decode_untrusted(Role.MASTER, INSTANCE, wire(PLAIN))


def test_an_announcement_under_another_name_is_refused() -> None:
    other = instance_name(PublicKey(bytes(32)).key_id)

    with pytest.raises(BadMessage, match="does not belong"):
        decode_untrusted(Role.WORKER, other, wire(PLAIN))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v", "01"),
        ("n", "a b"),
        ("n", "..\x1b[2J"),
        ("i", "AAECAwQFBg"),
        ("i", "AAECAwQFBgd"),
        ("i", "AAECAwQFBgc="),
        ("m", "none"),
        ("m", "LEAP"),
        ("c", "+8"),
        ("c", "08"),
        ("c", "1_0"),
        ("c", "-1"),
        ("r", "1.5"),
        ("p", "0"),
        ("p", "65536"),
        ("a", "10.0.0.3,10.0.0.3"),
        ("a", "10.0.0.3,"),
        ("a", "10.0.0.03"),
        ("a", "FE80::1"),
        ("a", "fe80:0::1"),
        ("a", "fe80::1%eth0"),
        ("a", "office-3.local"),
        ("a", "::ffff:10.0.0.3"),
        ("a", "::ffff:a00:3"),
        ("a", ",".join(f"10.0.0.{n}" for n in range(9))),
        ("x", "1800000000"),
        ("x", "1799999999"),
        ("x", "1900000000"),
    ],
)
def test_only_one_spelling_is_taken_even_if_it_is_signed(key: str, value: str) -> None:
    with pytest.raises(BadMessage):
        decode_untrusted(Role.WORKER, INSTANCE, resigned(**{key: value}))


def test_a_second_spelling_of_the_signature_is_refused() -> None:
    txt = wire(PLAIN)
    signature = txt[b"s"]
    assert signature is not None

    for spelling in (signature + b"==", signature[:-1] + b"B", b" " + signature):
        with pytest.raises(BadMessage):
            decode_untrusted(Role.WORKER, INSTANCE, txt | {b"s": spelling})


def test_a_key_of_small_order_signs_nothing() -> None:
    # The neutral element: with it many signatures "hold" in careless libraries.
    raw = b"\1" + b"\0" * 31
    weak = replace(PLAIN, key=PublicKey(raw))
    txt = encode(weak, sign=lambda _: raw + b"\0" * 32)

    with pytest.raises(BadMessage):
        decode_untrusted(
            Role.WORKER,
            instance_name(weak.key.key_id),
            {key.encode(): value.encode() for key, value in txt.items()},
        )


def test_keys_that_we_do_not_know_are_ignored_up_to_a_size() -> None:
    txt = wire(PLAIN) | {b"z": b"later", b"flag": None}
    assert decode_untrusted(Role.WORKER, INSTANCE, txt) == PLAIN

    with pytest.raises(BadMessage, match="the limit is"):
        decode_untrusted(Role.WORKER, INSTANCE, txt | {b"y": b"y" * 1300})


def test_nothing_in_an_announcement_names_a_user() -> None:
    assert set(encode(PLAIN, sign=sign)) == set("vnkimcrpatxs")


@given(st.dictionaries(st.binary(max_size=4), st.none() | st.binary(max_size=99)))
def test_random_txt_raises_nothing_but_bad_message(
    txt: dict[bytes, bytes | None],
) -> None:
    with pytest.raises(BadMessage):
        decode_untrusted(Role.WORKER, INSTANCE, txt)


def test_what_is_not_believed_is_shown_as_it_claims_to_be() -> None:
    srv = (Address("10.0.0.66", 7472), Address("10.0.0.3", 7472))

    claims = claims_untrusted(wire(PLAIN) | {b"s": b"x"}, srv)

    assert (claims.name, claims.key_id) == ("office-3", PUBLIC.key_id)
    assert claims.addresses == ("10.0.0.3:7472", "[fe80::3]:7472", "10.0.0.66:7472")


@given(
    st.dictionaries(
        st.sampled_from([b"n", b"k", b"p", b"a"]), st.none() | st.binary(max_size=999)
    )
)
def test_claims_of_junk_are_few_short_and_printable(
    txt: dict[bytes, bytes | None],
) -> None:
    claims = claims_untrusted(txt)

    assert claims.name.isprintable()
    assert len(claims.name) < 1000
    assert len(claims.addresses) <= limits.ANNOUNCED_ADDRESSES
    assert "".join(claims.addresses).isprintable()


def test_claims_have_no_address_with_a_scope_for_it_may_be_anything() -> None:
    txt = {b"p": b"7472", b"a": b"fe80::1%\x1b[2J,10.0.0.66"}

    assert claims_untrusted(txt).addresses == ("10.0.0.66:7472",)


@given(
    st.sampled_from("vnkimcrpatxs"),
    st.binary(max_size=200) | st.text(max_size=60).map(str.encode),
)
def test_one_random_field_raises_nothing_but_bad_message(
    key: str, value: bytes
) -> None:
    txt = wire(PLAIN)
    if txt[key.encode()] == value:
        return

    with pytest.raises(BadMessage):
        decode_untrusted(Role.WORKER, INSTANCE, txt | {key.encode(): value})


@given(
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", fullmatch=True),
    cores=st.integers(0, 99_999),
    mebibytes=st.integers(0, 99_999_999),
    port=st.integers(1, 65535),
    ips=st.lists(ADDRESSES, min_size=1, max_size=12),
    signed_at=st.integers(0, 9_999_000_000_000).map(lambda ms: ms / 1000),
    hold=st.integers(1, int(limits.ANNOUNCEMENT_CAP_AFTER)),
)
def test_whatever_can_be_announced_comes_back(
    name: str,
    cores: int,
    mebibytes: int,
    port: int,
    ips: list[str],
    signed_at: float,
    hold: int,
) -> None:
    announcement = replace(
        PLAIN,
        name=NodeName(name.strip()),
        cores=cores,
        memory=mebibytes * 1024**2,
        addresses=announced_addresses(Address(ip, port) for ip in ips),
        signed_at=signed_at,
        expires_at=int(signed_at) + hold,
    )

    assert txt_bytes(wire(announcement)) < limits.TXT_BYTES
    assert decode_untrusted(Role.WORKER, INSTANCE, wire(announcement)) == announcement


@pytest.mark.parametrize(
    "vector", json.loads(VECTORS.read_text()), ids=lambda v: v["description"]
)
def test_vectors(vector: dict[str, object]) -> None:
    given_, expected = vector["input"], vector["expect"]
    assert isinstance(given_, dict)
    assert isinstance(expected, dict)
    role = Role(given_["role"])
    txt = {key.encode(): value.encode() for key, value in given_["txt"].items()}

    if "refused" in expected:
        with pytest.raises(BadMessage) as caught:
            decode_untrusted(role, given_["instance"], txt)
        assert expected["refused"] in caught.value.what
        return
    told = decode_untrusted(role, given_["instance"], txt)

    signed = signed_bytes(role, given_["instance"], given_["txt"])
    assert signed.hex() == expected["signed"]
    assert service_type(role) == expected["service_type"]
    assert str(told.key.key_id) == expected["fingerprint"]
    assert [str(address) for address in told.addresses] == expected["addresses"]
    assert (told.name, told.mode.value) == (expected["name"], expected["mode"])
    assert (told.cores, told.memory) == (expected["cores"], expected["memory"])
    assert told.run == expected["run"]
