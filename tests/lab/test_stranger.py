"""A stranger on the same network: sees what is public, gets nothing, breaks nothing."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from aemesh.testing.lab import wait_for
from aemesh.testing.lab_avahi import open_avahi
from tests.lab.office import LAB, open_office

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.testing.lab import Host
    from tests.lab.office import Office

pytestmark = LAB

SERVICE = "_aemesh-worker._tcp"
NAMES = ["office-1", "office-2"]

# A certificate authority of the stranger's own, a key that it signed, and nothing.
CLIENT = """
import asyncio, datetime, json, sys, ssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client, Security

def make(name, issuer=None, by=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder().subject_name(subject)
        .issuer_name(issuer or subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), True)
        .sign(by or key, hashes.SHA256())
    )
    return key, built, subject

def write(path, *parts):
    with open(path, "wb") as file:
        for part in parts:
            if hasattr(part, "private_bytes"):
                file.write(part.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ))
            else:
                file.write(part.public_bytes(serialization.Encoding.PEM))

ca_key, ca, ca_name = make("group A")
key, cert, _ = make("client 1", ca_name, ca_key)
write("ca.pem", ca); write("key.pem", key); write("cert.pem", cert)

async def speak(host, port, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain("cert.pem", "key.pem")
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(b"x" * 100)
            return (await reader.read(100)).hex() or "closed"
    except (OSError, ssl.SSLError) as error:
        return type(error).__name__
    except TimeoutError:
        return "silence"

async def plain(host, port):
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write((2**40).to_bytes(8, "little") * 100)
            return (await reader.read(100)).hex() or "closed"
    except OSError as error:
        return type(error).__name__
    except TimeoutError:
        return "silence"

async def connect(security, address):
    async with Client(address, security=security, timeout=3, asynchronous=True):
        return "connected"

def client(security, address):
    try:
        return asyncio.run(connect(security, address))
    except (OSError, TypeError):  # TypeError: without a certificate it does not start
        return "refused"

said = {}
for host, port in json.loads(sys.argv[1]):
    place = f"{host}:{port}"
    said[f"nothing {place}"] = asyncio.run(speak(host, port, False))
    said[f"other CA {place}"] = asyncio.run(speak(host, port, True))
    said[f"plain {place}"] = asyncio.run(plain(host, port))
address = sys.argv[2]
own = Security(tls_ca_file="ca.pem", tls_client_cert="cert.pem",
               tls_client_key="key.pem", require_encryption=True)
bare = Security(tls_ca_file="ca.pem", require_encryption=True)
said["client own"] = client(own, address)
said["client bare"] = client(bare, address)
said["client plain"] = client(None, address.replace("tls://", "tcp://"))
said["client none"] = client(None, address)
print(json.dumps(said))
"""

# On the laptop itself, with all that its owner has: the certificate of A opens no B.
OTHER_GROUP = """
import sys, aemesh
from distributed import Client, Security
with aemesh.connect("A") as a, aemesh.connect("B") as b:
    own, other = a.environment(), b.environment()
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    security = Security(
        tls_ca_file=own[tls + "CA_FILE"],
        tls_client_cert=own[tls + "CLIENT__CERT"],
        tls_client_key=own[tls + "CLIENT__KEY"],
        require_encryption=True,
    )
    for env in (own, other):
        try:
            with Client(env["DASK_SCHEDULER_ADDRESS"], security=security, timeout=5):
                print("connected")
        except OSError:
            print("refused")
"""

# What strangers, scanners and broken programs say at a port.
GARBAGE = """
import json, os, socket, ssl, sys

def hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()

pieces = [os.urandom(4096), b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", hello(), b"",
          b"\\x00" * 4096, b"\\xff" * 8, b"[" * 30000]
told = 0
for protocol, host, port in json.loads(sys.argv[1]):
    for piece in pieces:
        try:
            if protocol == "udp":
                kind = socket.AF_INET6 if ":" in host else socket.AF_INET
                with socket.socket(kind, socket.SOCK_DGRAM) as one:
                    one.sendto(piece[:1400], (host, port))
            else:
                with socket.create_connection((host, port), timeout=1) as one:
                    one.sendall(piece)
                    one.shutdown(socket.SHUT_WR)
                    one.recv(100)
            told += 1
        except OSError:
            pass
print(told)
"""

# Announces a worker's name, then takes it back: with other data, from elsewhere.
FORGER = """
import json, socket, sys
from zeroconf import ServiceInfo, Zeroconf
kind = "_aemesh-worker._tcp.local."
forged = json.loads(sys.argv[1])
zeroconf = Zeroconf()
infos = [
    ServiceInfo(
        kind, name + "." + kind, port=7472, server="liar.local.",
        addresses=[socket.inet_aton(sys.argv[2])], properties=properties,
    )
    for name, properties in forged
]
for info in infos:
    zeroconf.register_service(info, cooperating_responders=True)
print("announced", flush=True)
input()
for info in infos:
    zeroconf.unregister_service(info)
print("taken back", flush=True)
input()
"""


async def test_a_stranger_sees_workers_and_gets_nothing(muons: Path, counts: str):
    """Shows: T10; Threat: 74, 75; the analysis goes on as if nobody was there."""
    async with open_office(["laptop", *NAMES, "stranger"]) as office:
        for name in NAMES:
            await office.worker(name)
        await office.master("A", "B")
        await office.joined(*NAMES)
        assert office.events is not None
        groups = {name: (await office.view(name))["group"] for name in NAMES}
        stranger = office.host("stranger")

        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.05)
        sockets = await all_sockets(office)
        told = await run_script(stranger, GARBAGE, sockets)
        analysis.check_runs()
        tls = [(h, p) for protocol, h, p in sockets if protocol == "tcp" and p != 7472]
        address = f"tls://{office.laptop.ipv4}:{tls[0][1]}"
        tried = json.loads(await run_script(stranger, CLIENT, tls, address))
        other_group = await run_script(office.laptop, OTHER_GROUP)
        result = await analysis.wait()
        after = await all_sockets(office)

    assert sorted(groups.values()) == ["A", "B"]
    assert len(tls) == 4  # two heads, two workers
    assert int(told) > 3 * len(sockets)
    good = {"closed", "SSLError", "ConnectionResetError", "silence"}
    served = {k: v for k, v in tried.items() if not k.startswith("client")}
    assert {k: v for k, v in served.items() if v not in good} == {}
    assert {v for k, v in served.items() if not k.startswith("plain")} <= good - {
        "silence"
    }
    clients = {how: tried[f"client {how}"] for how in ("own", "bare", "none", "plain")}
    assert set(clients.values()) == {"refused"}
    assert other_group.split() == ["connected", "refused"]
    assert result["counts_sha256"] == counts
    assert after == sockets
    kinds = {one.kind for one in office.events.seen}
    assert not kinds & {
        "worker.lost",
        "worker.suspect",
        "engine.broken",
        "engine.report",
    }


async def test_a_browser_sees_workers_and_a_foreign_master_is_refused():
    """Shows: D3."""
    async with open_office(["laptop", *NAMES, "stranger"]) as office:
        for name in NAMES:
            await office.worker(name)
        await office.master("A")
        await office.joined(*NAMES)
        async with open_avahi(office.host("stranger")) as avahi:
            lines = await avahi.browse(SERVICE)
        foreign = await office.start(
            "stranger", "master", "--group", "X", "--accept-new"
        )
        await foreign.wait_said("is master of", within=40)
        events = await office.follow(name="stranger")
        for name in NAMES:
            await events.wait("worker.unlinked", worker=name)
        shown = await office.ask("workers", name="stranger")
        group = await office.host("stranger").run(
            [*office.laptop.aemesh, "group", "list", "--json"]
        )
        requests = [await office.ask("trust", "list", name=name) for name in NAMES]
        mine = await office.ask("workers")

    seen = {(s[2], s[3]) for line in lines if (s := line.split(";"))[0] == "="}
    instances = {name for _, name in seen}
    assert len(instances) == 2
    assert seen == {(p, name) for p in ("IPv4", "IPv6") for name in instances}
    addresses = {s[7] for line in lines if (s := line.split(";"))[0] == "="}
    for name in NAMES:
        host = office.host(name)
        assert addresses & {host.ipv4, host.ipv6}
    assert {one["name"]: one["group"] for one in shown} == dict.fromkeys(NAMES)
    assert all("belongs to another master" in one["note"] for one in shown)
    assert json.loads(group.stdout)["members"] == []
    for rows in requests:
        assert [(r["state"], r["name"]) for r in rows] == [
            ("known", "laptop"),
            ("pending", "stranger"),
        ]
    assert [(one["state"], one["group"]) for one in mine] == [("leased", "A")] * 2


async def test_a_forged_announcement_and_a_forged_goodbye_change_nothing():
    """Shows: D2; Threat: 59, 60."""
    async with open_office(["laptop", *NAMES, "stranger"]) as office:
        for name in NAMES:
            await office.worker(name)
        await office.master("A")
        await office.joined(*NAMES)
        assert office.events is not None
        stranger, last = office.host("stranger"), office.events.last
        async with open_avahi(stranger) as avahi:
            lines = await avahi.browse(SERVICE)
        forged = list(forgeries(lines))
        before = await office.ask("workers")

        argv = [stranger.python, "-c", FORGER, json.dumps(forged), stranger.ipv4]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        async with stranger.open_process(argv, **pipes) as forger:
            assert forger.stdin is not None
            assert forger.stdout is not None
            assert await forger.stdout.receive_some() == b"announced\n"
            imposter = await office.events.wait("discovery.imposter")
            told = await wait_for(
                lambda: imposters(office), within=15, what="a word on imposters"
            )
            await forger.stdin.send_all(b"\n")
            assert await forger.stdout.receive_some() == b"taken back\n"
        # A goodbye takes effect a second after it (RFC 6762, section 10.1): two
        # rounds of what the office does show that nothing did.
        for _ in range(2):
            said = await office.laptop.run(
                [
                    *office.laptop.aemesh,
                    "exec",
                    "--group",
                    "A",
                    "--",
                    "sh",
                    "-c",
                    "sleep 1; hostname",
                ]
            )
            assert sorted(said.stdout.splitlines()) == [f"{n}: {n}" for n in NAMES]
        after = await office.ask("workers")

    assert "is not believed" in imposter.text
    assert {one["name"] for one in told} == set(NAMES)
    same = ("name", "key", "state", "trust", "group", "generation", "address", "since")
    assert [[one[k] for k in same] for one in after] == [
        [one[k] for k in same] for one in before
    ]
    assert [(one["state"], one["group"]) for one in after] == [("leased", "A")] * 2
    kinds = {one.kind for one in office.events.seen if one.number > last}
    assert kinds == {"discovery.imposter"}


async def all_sockets(office: Office) -> list[tuple[str, str, int]]:
    """Return every port of the office as a stranger reaches it, the laptop's first."""
    found = set()
    for host in office.lab.hosts[:-1]:
        for one in await host.listeners():
            for address in (host.ipv4, host.ipv6):
                if one.address in ("*", address):
                    found.add((host.name, one.protocol, address, one.port))
    order = [host.name for host in office.lab]
    ranked = sorted(found, key=lambda one: (order.index(one[0]), one))
    return [one[1:] for one in ranked]


async def run_script(host: Host, script: str, *words: Any) -> str:
    """Run a Python script on a host; return what it printed."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in words]
    return (await host.run([host.python, "-c", script, *texts], within=90)).stdout


def forgeries(lines: list[str]) -> list[tuple[str, dict[str, str]]]:
    """Return each worker's name with its own data, but for one word."""
    found = {}
    for line in lines:
        fields = line.split(";", 9)
        if fields[0] != "=":
            continue
        words = [word.split("=", 1) for word in fields[9].strip('"').split('" "')]
        properties = dict(words)
        cores = next(key for key in ("c", "cores") if key in properties)
        found[fields[3]] = {**properties, cores: "64"}
    return list(found.items())


async def imposters(office: Office) -> list[dict[str, Any]]:
    """Return the workers that are said to have imposters, once both are."""
    shown = await office.ask("workers")
    found = [one for one in shown if "imposter" in one["note"]]
    return found if len(found) == len(NAMES) else []
