"""Attacks on the handshake: hand-made evil peers against the real ends.

The peers here speak TLS with `ssl` and make certificates with `cryptography`; of
aemesh they use only what writes bytes.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from aemesh import limits
from aemesh.errors import AemeshError, BadMessage, RefusedError, UnreachableError
from aemesh.host.keys.keystore import Identity
from aemesh.model.address import Address
from aemesh.model.trust import Role
from aemesh.net.link import Closed, Ending, open_link
from aemesh.net.shake import Channel
from aemesh.net.tcp import TcpNetwork
from aemesh.net.transport import Connection
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.preamble import MAGIC, encode_preamble, preamble_hash
from aemesh.protocol.strictjson import decode_untrusted
from aemesh.testing.nodes import NO, Node, connection_pair

EVIL = Identity.ephemeral("evil")
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
COMMAND = {"group": "A", "generation": 1}


# --- what an attacker has -----------------------------------------------------------


def evil_context(
    identity: Identity | None = EVIL,
    *,
    server: bool = False,
    alpn: tuple[str, ...] = ("aemesh/1",),
    pem: bytes = b"",
) -> ssl.SSLContext:
    """Return a context that checks nothing and shows this identity, or `pem`."""
    side = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if pem:
        fd = os.memfd_create("evil")
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{fd}")
    elif identity is not None:
        identity.load_into(context)
    return context


def certificate(key, *, signer=None, ca=False, digest=None) -> bytes:
    """Return a certificate of a key, DER, signed by itself or by a CA."""
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil CA")])
    leaf_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil")])
    name = ca_name if ca else leaf_name
    signed_by = name if signer is None else ca_name
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2040, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signer or key, digest)
        .public_bytes(Encoding.DER)
    )


def pem_of(key, der: bytes) -> bytes:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + ssl.DER_cert_to_PEM_cert(der).encode()


def frame(kind: str, body: dict[str, object]) -> bytes:
    data = msgspec.json.encode({"t": kind, "n": 1, "b": body})
    return encode_frame(data, limit=limits.FRAME_BYTES)


def hello(us: Identity, them: Identity, preamble: bytes, **changes: object) -> bytes:
    """Return a HELLO of a master, as it should be or changed."""
    body = wire.Hello(
        v=1,
        role="master",
        name="desk",
        mode="leap",
        me=str(us.key_id),
        you=str(them.key_id),
        pre=preamble_hash(preamble),
        nonce="0f" * 16,
        now=1_800_000_000.0,
    )
    return frame("hello", msgspec.to_builtins(body) | changes)


OK = frame("verdict", {"decision": "ok", "reason": "known"})


async def client_tls(
    stream: trio.abc.Stream,
    *,
    context: ssl.SSLContext | None = None,
    preamble: bytes | None = None,
) -> trio.SSLStream:
    """Say a preamble and do the TLS handshake as a client."""
    await stream.send_all(preamble or encode_preamble((EVIL.certificate,)))
    tls = trio.SSLStream(stream, context or evil_context(), server_side=False)
    await tls.do_handshake()
    return tls


async def rest(stream: trio.abc.Stream) -> bytes:
    """Return all that still comes."""
    data = b""
    with suppress(*GONE):
        while piece := await stream.receive_some(65536):
            data += piece
    return data


# --- what is attacked ---------------------------------------------------------------


@dataclass
class Victim:
    """A real node that accepts: what each connection came to, and what was asked."""

    node: Node
    errors: list[AemeshError] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    commands: list[object] = field(default_factory=list)
    ends: list[Closed] = field(default_factory=list)
    proved: list[bytes] = field(default_factory=list)
    done: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(0))

    async def handle(self, connection: Connection) -> None:
        """Own one connection; anything but our own errors fails the test."""
        try:
            await self._handle(connection)
        finally:
            self.done.release()

    async def _handle(self, connection: Connection) -> None:
        try:
            channel = await self.node.shaker.accept(connection)
        except AemeshError as exc:
            self.errors.append(exc)
            return
        self.channels.append(channel)
        self.proved.append(channel.stream.getpeercert(binary_form=True))
        async with open_link(channel, self.note) as link:
            self.ends.append(await link.wait_closed())

    async def note(self, _link, body):
        self.commands.append(body)
        return wire.Done()

    @asynccontextmanager
    async def attacked(self):
        """A fresh connection to the victim, in memory: the attacker's end."""
        near, far = connection_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle, far)
            with trio.fail_after(60):
                yield near.stream
                await trio.testing.wait_all_tasks_blocked()
                await trio.aclose_forcefully(near.stream)

    def expect_refusal(self, words: str, kind: type[AemeshError] = AemeshError):
        assert self.channels == []
        assert self.commands == []
        (error,) = self.errors
        assert isinstance(error, kind)
        assert words in str(error)
        assert str(error).isprintable()


@pytest.fixture
def worker() -> Victim:
    return Victim(Node.fresh(Role.WORKER))


@pytest.fixture
def master() -> Node:
    return Node.fresh(Role.MASTER)


async def connect_error(master: Node, connection: Connection, **options) -> AemeshError:
    options.setdefault("expected", None)
    with pytest.raises(AemeshError) as caught:
        await master.shaker.connect(connection, **options)
    return caught.value


async def relay(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    """Carry bytes one way until either end is gone, and end the other one."""
    with suppress(*GONE):
        while data := await source.receive_some(65536):
            await target.send_all(data)
    await trio.aclose_forcefully(target)


async def through(master: Node, worker: Victim, change, **options) -> AemeshError:
    """Have a master dial a worker through a man who changes the preamble."""
    near, entry = connection_pair()
    leaving, far = connection_pair()
    outcome = []

    async def dial():
        outcome.append(await connect_error(master, near, **options))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.handle, far)
        nursery.start_soon(dial)
        flight = await entry.stream.receive_some(100_000)
        length = len(encode_preamble((master.identity.certificate,)))
        assert flight.startswith(MAGIC)
        await leaving.stream.send_all(change(flight[:length]) + flight[length:])
        nursery.start_soon(relay, entry.stream, leaving.stream)
        nursery.start_soon(relay, leaving.stream, entry.stream)
    return outcome[0]


# --- the attacks --------------------------------------------------------------------


async def test_the_announced_key_of_another_proves_nothing(worker, master):
    """Threat: 1."""
    announced = encode_preamble((master.identity.certificate,))

    async with worker.attacked() as stream:
        with suppress(*GONE):
            tls = await client_tls(stream, preamble=announced)
            await tls.send_all(hello(EVIL, worker.node.identity, announced) + OK)
            await tls.send_all(frame("assign", COMMAND))
            await rest(tls)

    worker.expect_refusal("no channel to", UnreachableError)
    assert worker.node.doorman.judged == []


async def test_a_ca_in_the_preamble_does_not_let_in_what_it_signed(worker):
    """Threat: 2."""
    ca_key, key = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    ca = certificate(ca_key, ca=True)
    leaf = certificate(key, signer=ca_key)
    announced = encode_preamble((ca,))

    async with worker.attacked() as stream:
        context = evil_context(pem=pem_of(key, leaf))
        tls = await client_tls(stream, context=context, preamble=announced)
        with suppress(*GONE):
            await tls.send_all(frame("assign", COMMAND))
            await rest(tls)

    worker.expect_refusal("the TLS certificate is not the announced one", BadMessage)


async def test_a_man_who_replaces_the_announced_certificate_is_refused_by_both(
    worker, master
):
    """Threat: 3."""
    error = await through(
        master, worker, lambda _: encode_preamble((EVIL.certificate,))
    )

    assert isinstance(error, AemeshError)
    worker.expect_refusal("no channel to", UnreachableError)
    assert master.doorman.committed == worker.node.doorman.committed == []


async def test_a_man_in_the_middle_with_a_key_of_his_own_is_refused_by_both(
    worker, master
):
    """Threat: 3: he speaks TLS with both, and passes on what they say."""
    near, entry = connection_pair()
    async with trio.open_nursery() as nursery, worker.attacked() as leaving:
        nursery.start_soon(evil_server, entry.stream, evil_context(server=True), b"")
        error = await connect_error(master, near, expected=worker.node.identity.key_id)
        announced = encode_preamble((EVIL.certificate,))
        tls = await client_tls(leaving)
        me = {"me": str(master.identity.key_id)}
        await tls.send_all(hello(EVIL, worker.node.identity, announced, **me))
        await rest(tls)

    assert isinstance(error, RefusedError)
    assert "is not who was meant" in str(error)
    worker.expect_refusal("its own key", BadMessage)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (8, 1, "flags 1, expected 0"),
        (8, 128, "flags 128"),
        (9, 2, "is cut or too long"),
        (9, 0, "0 certificates"),
        (11, 0, "bytes behind"),
    ],
)
async def test_a_man_who_flips_a_byte_of_the_preamble_is_noticed(
    worker, master, at, value, words
):
    """Threat: 4."""

    def flip(preamble: bytes) -> bytes:
        return preamble[:at] + bytes((value,)) + preamble[at + 1 :]

    error = await through(master, worker, flip)

    assert isinstance(error, AemeshError)
    assert worker.channels == []
    assert isinstance(worker.errors[0], BadMessage)
    assert words in str(worker.errors[0]) or at == 11


async def test_a_man_who_adds_to_the_preamble_is_noticed_by_both(worker, master):
    """Threat: 4: TLS does not see it; the hash in HELLO does."""
    chain = (master.identity.certificate, EVIL.certificate)

    error = await through(master, worker, lambda _: encode_preamble(chain))

    worker.expect_refusal("the preamble was altered on the way", BadMessage)
    assert isinstance(error, AemeshError)
    assert master.doorman.committed == worker.node.doorman.committed == []


@pytest.mark.parametrize("claim", ["me", "you"])
async def test_a_hello_of_another_identity_than_tls_proved_is_refused(
    worker, master, claim
):
    """Threat: 5."""
    preamble = encode_preamble((EVIL.certificate,))
    lie = {claim: str(master.identity.key_id)}

    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(hello(EVIL, worker.node.identity, preamble, **lie) + OK)
        await tls.send_all(frame("assign", COMMAND))
        await rest(tls)

    worker.expect_refusal("TLS proved", BadMessage)
    assert worker.node.doorman.judged == []


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        evil_context().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "data",
    [
        client_hello(),
        b"GET / HTTP/1.1\r\nHost: lab-1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 5000,
        bytes(range(256)) * 20,
        b"AEMESH2\n\x00\x01\x00\x10" + b"x" * 16,
        b"x",
        b"",
    ],
    ids=["ClientHello", "HTTP", "SSH", "zeros", "bytes", "AEMESH2", "x", "nothing"],
)
async def test_what_is_no_preamble_is_closed_without_a_word(worker, data):
    """Threat: 7."""
    async with worker.attacked() as stream:
        await stream.send_all(data)
        await stream.send_stream.aclose()
        assert await rest(stream) == b""

    worker.expect_refusal("preamble", BadMessage)


async def test_what_is_no_preamble_is_closed_on_a_real_socket_as_well(worker):
    """Threat: 7."""
    async with trio.open_nursery() as nursery:
        address = await serve(nursery, worker)
        for data in (client_hello(), b"GET / HTTP/1.1\r\n\r\n", os.urandom(3000)):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(data)
            assert await rest(stream) == b""
            await stream.aclose()
            await worker.done.acquire()
        nursery.cancel_scope.cancel()

    assert [type(error) for error in worker.errors] == [BadMessage] * 3


async def serve(nursery: trio.Nursery, victim: Victim) -> Address:
    async def run(*, task_status):
        await TcpNetwork().serve(
            victim.handle, port=0, hosts=("127.0.0.1",), task_status=task_status
        )

    return Address("127.0.0.1", await nursery.start(run))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\x00\x01\xff\xff", "65535 bytes; the limit is 16384"),
        (b"\x00\x00\x00\x10", "0 certificates"),
        (b"\x00\x05\x00\x10", "5 certificates"),
        (b"\x00\x04\x00\x05", "5 bytes"),
    ],
)
async def test_lengths_that_are_wrong_are_refused_before_reading_further(
    worker, header, words
):
    """Threat: 8."""
    async with worker.attacked() as stream:
        await stream.send_all(MAGIC + header)  # and not one byte more
        assert await rest(stream) == b""

    worker.expect_refusal(words, BadMessage)


async def test_bytes_behind_the_last_certificate_are_refused(worker):
    """Threat: 8."""
    good = encode_preamble((EVIL.certificate,))
    body = good[12:] + b"\x00\x00\x00"

    async with worker.attacked() as stream:
        await stream.send_all(good[:10] + len(body).to_bytes(2, "big") + body)
        assert await rest(stream) == b""

    worker.expect_refusal("3 bytes behind the last certificate", BadMessage)


@pytest.mark.parametrize(
    "der",
    [
        b"\x30" * 400,
        os.urandom(400),
        EVIL.certificate + b"\x00",
        EVIL.certificate[:-1],
        EVIL.certificate.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"),
        EVIL.certificate.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f"),
        b"\x30\x83\x00" + EVIL.certificate[2:],
    ],
    ids=["nested", "random", "behind", "cut", "version", "algorithm", "BER"],
)
async def test_a_certificate_that_is_malformed_is_refused(worker, der):
    """Threat: 9."""
    async with worker.attacked() as stream:
        await stream.send_all(encode_preamble((der,)) + client_hello())
        assert await rest(stream) == b""

    worker.expect_refusal("certificate", BadMessage)


async def test_a_certificate_that_only_openssl_cannot_read_is_refused(worker):
    """Threat: 9: every one-byte change is refused with an error of ours."""
    good = EVIL.certificate
    for at in range(0, len(good), 7):
        der = good[:at] + bytes((good[at] ^ 0x11,)) + good[at + 1 :]
        async with worker.attacked() as stream:
            with suppress(*GONE):
                tls = await client_tls(stream, preamble=encode_preamble((der,)))
                await rest(tls)

    assert worker.channels == []
    assert len(worker.errors) == len(range(0, len(good), 7))


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())],
    ids=["RSA", "P-256"],
)
async def test_a_key_of_another_kind_is_refused_before_tls(worker, key):
    """Threat: 10."""
    der = certificate(key, digest=hashes.SHA256())

    async with worker.attacked() as stream:
        await stream.send_all(encode_preamble((der,)) + client_hello())
        assert await rest(stream) == b""

    worker.expect_refusal("expected an Ed25519 key", BadMessage)


@pytest.mark.parametrize("kind", ["RSA", "P-256"])
async def test_a_server_with_a_key_of_another_kind_is_refused(master, kind):
    """Threat: 10."""
    key = (
        rsa.generate_private_key(65537, 2048)
        if kind == "RSA"
        else ec.generate_private_key(ec.SECP256R1())
    )
    pem = pem_of(key, certificate(key, digest=hashes.SHA256()))

    error = await dial_evil(master, evil_context(server=True, pem=pem))

    assert isinstance(error, BadMessage)
    assert "expected an Ed25519 key" in str(error)


async def evil_server(stream, context, says: bytes) -> bytes:
    """Accept as a server that checks nothing, and return what the client said."""
    await read_preamble(stream)
    tls = trio.SSLStream(stream, context, server_side=True)
    with suppress(*GONE):
        await tls.do_handshake()
        await tls.send_all(says)
        return await rest(tls)
    return b""


async def read_preamble(stream) -> bytes:
    header = await exactly(stream, 12)
    return header + await exactly(stream, int.from_bytes(header[10:], "big"))


async def exactly(stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive_some(count - len(data))
    return data


async def dial_evil(master: Node, context, says: bytes = b"", **options) -> AemeshError:
    near, far = connection_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(evil_server, far.stream, context, says)
        return await connect_error(master, near, **options)


async def slowly(stream, data: bytes) -> None:
    with suppress(*GONE):
        for at in range(len(data)):
            await stream.send_all(data[at : at + 1])
            await trio.sleep(1)


GOOD = encode_preamble((EVIL.certificate,))


@pytest.mark.parametrize(
    ("before", "what", "within"),
    [
        (b"", "the preamble", limits.PREAMBLE_AFTER),
        (b"AEM", "the preamble", limits.PREAMBLE_AFTER),
        (GOOD[:12], "the preamble", limits.PREAMBLE_AFTER),
        (GOOD[:100], "the preamble", limits.PREAMBLE_AFTER),
        (GOOD, "TLS", limits.TLS_AFTER),
        (GOOD + client_hello()[:100], "TLS", limits.TLS_AFTER),
        (GOOD + client_hello(), "TLS", limits.TLS_AFTER),
    ],
)
async def test_a_silent_stranger_is_closed_at_the_deadline(
    worker, autojump_clock, before, what, within
):
    """Threat: 11."""
    start = trio.current_time()
    async with worker.attacked() as stream:
        await stream.send_all(before)
        await rest(stream)
        assert trio.current_time() - start == pytest.approx(within)

    worker.expect_refusal(f"{what} did not come within", UnreachableError)


@pytest.mark.parametrize(
    ("data", "what"),
    [(GOOD, "the preamble"), (GOOD[:12] + b"x" * 300, "the preamble")],
)
async def test_a_preamble_at_a_byte_a_second_is_closed_at_the_deadline(
    worker, autojump_clock, data, what
):
    """Threat: 11."""
    start = trio.current_time()
    async with worker.attacked() as stream:
        await slowly(stream, data)
        assert trio.current_time() - start < limits.PREAMBLE_AFTER + 2

    worker.expect_refusal(f"{what} did not come within", UnreachableError)


@pytest.mark.parametrize("says", ["nothing", "half", "a byte a second"])
async def test_a_slow_hello_is_closed_at_the_deadline(worker, autojump_clock, says):
    """Threat: 11."""
    start = trio.current_time()
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        data = hello(EVIL, worker.node.identity, GOOD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest, tls)
            if says == "half":
                await tls.send_all(data[: len(data) // 2])
            elif says != "nothing":
                await slowly(tls, data)
    assert trio.current_time() - start < limits.HELLO_AFTER + 3

    worker.expect_refusal("HELLO did not come within", UnreachableError)


@pytest.mark.parametrize("says", ["nothing", "a byte a second"])
async def test_a_slow_verdict_is_closed_long_before_a_person_could_decide(
    worker, autojump_clock, says
):
    """Threat: 11: bytes that come to nothing are silence."""
    start = trio.current_time()
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(hello(EVIL, worker.node.identity, GOOD))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest, tls)
            if says != "nothing":
                await slowly(tls, OK)
    assert trio.current_time() - start < limits.VERDICT_AFTER + 3

    worker.expect_refusal("nothing was heard for 5 s", UnreachableError)


@pytest.mark.parametrize("at", ["preamble", "hello", "verdict"])
async def test_a_server_that_falls_silent_holds_a_master_no_longer(
    master, autojump_clock, at
):
    """Threat: 11."""
    near, far = connection_pair()
    start = trio.current_time()

    async def serve_silence():
        preamble = await read_preamble(far.stream)
        if at == "preamble":
            return
        context = evil_context(server=True)
        tls = trio.SSLStream(far.stream, context, server_side=True)
        await tls.do_handshake()
        if at == "verdict":
            role = {"role": "worker"}
            await tls.send_all(hello(EVIL, master.identity, preamble, **role))
        await rest(tls)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_silence)
        error = await connect_error(master, near)

    assert isinstance(error, UnreachableError)
    assert trio.current_time() - start < 7


async def test_a_frame_of_2_gib_is_refused_without_reading_it(worker):
    """Threat: 12."""
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(b"\x80\x00\x00\x00" + b"x" * 1000)
        await rest(tls)

    worker.expect_refusal("a frame of 2147483648 bytes", BadMessage)


async def test_a_frame_of_2_gib_ends_a_link_as_well(worker):
    """Threat: 12."""
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(hello(EVIL, worker.node.identity, GOOD) + OK)
        await tls.send_all(b"\x7f\xff\xff\xff" + b"x" * 1000)
        await rest(tls)

    assert worker.ends[0].ending is Ending.BROKE_PROTOCOL
    assert worker.commands == []


async def test_a_second_connection_with_a_saved_session_proves_its_key_anew(worker):
    """Threat: 13."""
    context = evil_context()
    sessions = []
    for _ in range(2):
        async with worker.attacked() as stream:
            await stream.send_all(GOOD)
            tls = trio.SSLStream(stream, context, server_side=False)
            if sessions:
                tls.session = sessions[0]
            await tls.do_handshake()
            await tls.send_all(hello(EVIL, worker.node.identity, GOOD) + OK)
            await tls.receive_some(65536)
            await trio.testing.wait_all_tasks_blocked()
            sessions.append(tls.session)
            assert tls.session_reused is False

    assert [c.stream.session_reused for c in worker.channels] == [False, False]
    assert worker.proved == [EVIL.certificate, EVIL.certificate]
    assert not sessions[0].has_ticket


async def test_a_server_with_the_right_certificate_and_a_wrong_key_is_refused(master):
    """Threat: 14: the client checks no chain, and all the same every signature.

    OpenSSL lets a P-256 key stand beside the certificate of another: it believes the
    public half that is written in the key's file.
    """
    right, wrong = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    der = certificate(right, digest=hashes.SHA256())
    points = [
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for key in (wrong, right)
    ]
    forged = wrong.private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ).replace(*points)
    lines = ssl.DER_cert_to_PEM_cert(forged).replace("CERTIFICATE", "EC PRIVATE KEY")
    pem = lines.encode() + ssl.DER_cert_to_PEM_cert(der).encode()

    error = await dial_evil(master, evil_context(server=True, pem=pem))

    assert isinstance(error, UnreachableError)
    assert "BAD_SIGNATURE" in str(error)


def old_tls(*, server: bool) -> ssl.SSLContext:
    context = evil_context(server=server)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("context", "kind"),
    [
        (old_tls(server=False), UnreachableError),
        (evil_context(alpn=()), BadMessage),
        (evil_context(alpn=("aemesh/0", "h2")), BadMessage),
    ],
    ids=["TLS 1.2", "no ALPN", "other ALPN"],
)
async def test_a_client_of_other_tls_is_refused(worker, context, kind):
    """Threat: 15."""
    async with worker.attacked() as stream:
        with suppress(*GONE):
            tls = await client_tls(stream, context=context)
            await tls.send_all(hello(EVIL, worker.node.identity, GOOD) + OK)
            await rest(tls)

    worker.expect_refusal("", kind)


@pytest.mark.parametrize(
    ("context", "kind"),
    [
        (old_tls(server=True), UnreachableError),
        (evil_context(server=True, alpn=()), BadMessage),
        (evil_context(server=True, alpn=("h2",)), AemeshError),
    ],
    ids=["TLS 1.2", "no ALPN", "other ALPN"],
)
async def test_a_server_of_other_tls_is_refused(master, context, kind, autojump_clock):
    """Threat: 15."""
    error = await dial_evil(master, context, hello(EVIL, master.identity, b""))

    assert isinstance(error, kind)
    assert master.doorman.judged == []


async def test_who_has_a_workers_key_cannot_be_a_master_to_it(worker, master):
    """Threat: 16: the master speaks to the thief, who relays to the worker."""
    thief = worker.node.identity
    near, entry = connection_pair()
    heard = []

    async def stand_between(leaving):
        preamble = await read_preamble(entry.stream)
        tls = trio.SSLStream(
            entry.stream, evil_context(thief, server=True), server_side=True
        )
        await tls.do_handshake()
        theirs = await tls.receive_some(65536)  # the true master's HELLO
        for announced, shown in (
            (preamble, EVIL),  # with a key of his own in TLS
            (encode_preamble((EVIL.certificate,)), EVIL),
            (encode_preamble((thief.certificate,)), thief),
        ):
            async with worker.attacked() as out:
                with suppress(*GONE):
                    onward = await client_tls(
                        out, context=evil_context(shown), preamble=announced
                    )
                    await onward.send_all(theirs + OK + frame("assign", COMMAND))
                    heard.append(await rest(onward))
        await trio.aclose_forcefully(entry.stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_between, None)
        error = await connect_error(master, near, expected=thief.key_id)

    assert isinstance(error, AemeshError)
    assert worker.channels == []
    assert worker.commands == []
    assert len(worker.errors) == 3
    assert worker.node.doorman.judged == []


async def test_a_handshake_that_is_only_relayed_tells_the_man_between_nothing(
    worker, master
):
    """Threat: 16: a relay of bytes is a cable; what it sees is not readable."""
    near, entry = connection_pair()
    leaving, far = connection_pair()
    seen = bytearray()

    async def watch(source, target):
        while data := await source.receive_some(65536):
            seen.extend(data)
            await target.send_all(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.handle, far)
        nursery.start_soon(watch, entry.stream, leaving.stream)
        nursery.start_soon(watch, leaving.stream, entry.stream)
        channel = await master.shaker.connect(near, expected=None)
        await channel.stream.send_all(frame("assign", COMMAND))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert worker.commands == [wire.Assign(**COMMAND)]
    assert b"assign" not in seen
    assert b"verdict" not in seen
    assert worker.node.identity.certificate not in seen


@pytest.mark.parametrize("cut", [1, 4, 5, 20, -1])
async def test_half_a_command_is_not_done(worker, cut):
    """Threat: 17: the connection ends without the good-bye of TLS."""
    command = frame("assign", COMMAND)
    async with trio.open_nursery() as nursery:
        address = await serve(nursery, worker)
        stream = await trio.open_tcp_stream(address.host, address.port)
        tls = await client_tls(stream)
        await tls.send_all(hello(EVIL, worker.node.identity, GOOD) + OK)
        await tls.send_all(command[:cut])
        await stream.send_eof()
        await rest(stream)
        await worker.done.acquire()
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()

    assert worker.ends == [Closed(Ending.CLOSED)]
    assert worker.commands == []


async def test_a_cut_connection_is_not_taken_for_one_that_ended(worker):
    """Threat: 17."""
    near, far = connection_pair()
    channels = []

    async def accept():
        channels.append(await worker.node.shaker.accept(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        tls = await client_tls(near.stream)
        await tls.send_all(hello(EVIL, worker.node.identity, GOOD) + OK)
    await near.stream.send_stream.aclose()

    with pytest.raises(trio.BrokenResourceError):
        await channels[0].stream.receive_some(10)


async def test_no_command_goes_to_a_server_that_has_not_said_ok(master):
    """Threat: 18: to a TLS 1.3 client the handshake succeeds before it is refused."""
    near, far = connection_pair()
    heard = []

    async def reject():
        preamble = await read_preamble(far.stream)
        context = evil_context(server=True)
        tls = trio.SSLStream(far.stream, context, server_side=True)
        await tls.do_handshake()
        await tls.send_all(hello(EVIL, master.identity, preamble, role="worker"))
        await trio.testing.wait_all_tasks_blocked()  # all that the client says by now
        said = frame("verdict", {"decision": "no", "reason": "declined"})
        await tls.send_all(said)
        heard.append(await rest(tls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reject)
        error = await connect_error(master, near)

    assert isinstance(error, RefusedError)
    assert [envelope.t for envelope in envelopes(heard[0])] == ["hello", "verdict"]
    assert master.doorman.committed == []


async def test_no_command_goes_to_a_server_that_breaks_off_after_tls(master):
    """Threat: 18."""
    near, far = connection_pair()

    async def reject():
        await read_preamble(far.stream)
        context = evil_context(server=True)
        tls = trio.SSLStream(far.stream, context, server_side=True)
        await tls.do_handshake()
        await trio.aclose_forcefully(far.stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reject)
        error = await connect_error(master, near)

    assert isinstance(error, UnreachableError)
    assert master.doorman.judged == []


async def test_a_command_before_the_verdict_is_not_done(worker):
    """Threat: 18: the other way round; a worker that refuses takes no command."""
    worker.node.doorman.verdict = NO
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        said = hello(EVIL, worker.node.identity, GOOD) + OK
        await tls.send_all(said + frame("assign", COMMAND))
        heard = await rest(tls)

    worker.expect_refusal("")
    assert b'"ok"' not in heard


def envelopes(data: bytes) -> list[wire.Envelope]:
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        found.append(decode_untrusted(data[4:end], wire.Envelope))
        data = data[end:]
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 30_000,
        b'{"t":' * 10_000,
        b'{"t": "hello", "b": {"now": NaN}}',
        b'{"t": "hello", "b": {"now": 1e999}}',
        b'{"t": "hello", "n": ' + b"9" * 60_000 + b"}",
        b'{"t": "hell\xff"}',
        b'{"t": "\\ud800"}',
        b"[]",
        b"",
        b"\x00" * 100,
    ],
    ids=[
        "brackets",
        "braces",
        "NaN",
        "infinity",
        "60000 digits",
        "not UTF-8",
        "surrogate",
        "list",
        "empty",
        "zeros",
    ],
)
async def test_json_that_is_a_trap_is_refused(worker, body):
    """Threat: 19."""
    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(encode_frame(body, limit=limits.HELLO_BYTES))
        await rest(tls)

    worker.expect_refusal("", BadMessage)


@pytest.mark.parametrize("field_name", ["me", "role", "pre"])
async def test_a_hello_that_says_one_thing_twice_is_refused(worker, field_name):
    """Threat: 19b."""
    good = hello(EVIL, worker.node.identity, GOOD)[4:]
    twice = good.replace(
        f'"{field_name}":'.encode(), f'"{field_name}":"x","{field_name}":'.encode()
    )
    assert len(twice) > len(good)

    async with worker.attacked() as stream:
        tls = await client_tls(stream)
        await tls.send_all(encode_frame(twice, limit=limits.HELLO_BYTES))
        await rest(tls)

    worker.expect_refusal("names one key twice", BadMessage)
