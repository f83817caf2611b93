"""The proofs between HELLO and the verdicts: Kerberos, a join token, a code.

Which come is settled by both HELLOs, so that nobody waits for what does not come:

- mode gss: Kerberos, and nothing else.
- mode leap: a join token if the worker has one of this master's; else a code if one
  side does not know the other.  The naive code is a hash of both keys, and somebody
  in between tries keys until four words are equal.  So the master commits to a nonce
  before it sees the worker's, and reveals it after (Vaudenay, CRYPTO 2005): whoever
  stands between has one guess in 2**40 for each meeting that a person looks at.

Every proof is bound to the connection, so none can be carried to another one.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import (
    BadMessage,
    BugError,
    RefusedError,
    UnreachableError,
    quoted,
)
from aemesh.model.trust import Decision, Mode, Proof, Reason, Role, TokenProof, Verdict
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose, nonce_untrusted
from aemesh.protocol.joining import is_proof, proof
from aemesh.protocol.pairing import code, commitment, is_commitment

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.net.doorman import GssParty, MakeGss, Proofs
    from aemesh.net.talk import Talk


async def prove(  # noqa: PLR0913 - what a handshake has, by name
    talk: Talk,
    proofs: Proofs,
    *,
    asks: frozenset[Proof],
    purpose: Purpose,
    nonce: bytes,
    gss: MakeGss | None,
) -> None:
    """Go through the proofs that both HELLOs call for; `asks` are the peer's.

    What they come to is in `talk.peer`.  Raises `RefusedError`, `BadMessage`,
    `PeerError` or `UnreachableError`.
    """
    peer, ours = talk.peer, talk.machine.ours
    if purpose is Purpose.STREAM or peer.mode is not ours.mode:
        return  # the link has proved it already, or the verdict is no anyhow
    wanted = asks | talk.machine.asks
    if ours.mode is Mode.GSS:
        if gss is None:
            msg = "mode gss without GSS-API"
            raise BugError(msg)
        party = gss(peer, talk.machine.binding)
        await _kerberos(talk, party, first=ours.role is Role.MASTER)
    elif ours.mode is Mode.LEAP and Proof.JOIN in wanted:
        await _join(talk, proofs)
    elif ours.mode is Mode.LEAP and Proof.PAIR in wanted:
        await _pair(talk, proofs, nonce)


async def _pair(talk: Talk, proofs: Proofs, nonce: bytes) -> None:
    """Make the code that both sides show."""
    machine = talk.machine
    if Proof.PAIR in machine.asks:
        refusal = proofs.begin_pairing(talk.peer)
        if refusal is not None:
            await _refuse(talk, refusal)
    if machine.ours.role is Role.MASTER:
        await talk.prove(wire.Pair(commit=commitment(nonce).hex()))
        theirs = await _hear_nonce(talk)
        await talk.prove(wire.Pair(nonce=nonce.hex()))
        machine.learn(code=_code(talk, nonce, theirs))
        return
    committed = (await talk.hear_proof(wire.Pair)).commit
    if committed is None:
        msg = "expected a commitment, got a nonce"
        raise BadMessage(msg)
    await talk.prove(wire.Pair(nonce=nonce.hex()))
    revealed = await _hear_nonce(talk)
    if not is_commitment(_digest_untrusted(committed), revealed):
        msg = "the peer did not keep to its commitment: somebody may stand between"
        raise BadMessage(msg)
    machine.learn(code=_code(talk, revealed, nonce))


async def _hear_nonce(talk: Talk) -> bytes:
    body = await talk.hear_proof(wire.Pair)
    if body.nonce is None:
        msg = "expected a nonce, got a commitment"
        raise BadMessage(msg)
    return nonce_untrusted(body.nonce)


def _code(talk: Talk, nonce_master: bytes, nonce_worker: bytes) -> str:
    machine = talk.machine
    ours: KeyId = machine.ours.tls_key_id
    theirs = machine.meeting.leaf.key_id
    master, worker = (
        (ours, theirs) if machine.ours.role is Role.MASTER else (theirs, ours)
    )
    return code(
        fp_master=master,
        fp_worker=worker,
        nonce_master=nonce_master,
        nonce_worker=nonce_worker,
    )


async def _join(talk: Talk, proofs: Proofs) -> None:
    """Spend a token's secret on each other; who has it not learns nothing of it."""
    machine = talk.machine
    if machine.ours.role is Role.MASTER:
        await _admit_joiner(talk, proofs)
        return
    token = proofs.join_token()
    # That it is this master's is why we ask; no other one is shown anything of it.
    if token is None or Proof.JOIN not in machine.asks:
        msg = "the master asks for a join token, and we have none of its own"
        raise BadMessage(msg)
    mac = proof(token.secret, machine.binding, Role.WORKER)
    await talk.prove(wire.Join(token=token.id, mac=mac.hex()))
    answer = await talk.hear_proof(wire.Join)
    if answer.mac is None:
        machine.learn(token=TokenProof(token.id, Reason.TOKEN_UNKNOWN))
    elif not _is_proof(answer, token.secret, talk, Role.MASTER):
        machine.learn(token=TokenProof(token.id, Reason.TOKEN_KEY))
    else:
        machine.learn(token=TokenProof(token.id))


async def _admit_joiner(talk: Talk, proofs: Proofs) -> None:
    machine = talk.machine
    body = await talk.hear_proof(wire.Join)
    secret = proofs.token_secret(body.token)
    # One answer for an id that is not there and for a secret that is wrong.
    if secret is None or not _is_proof(body, secret, talk, Role.WORKER):
        machine.learn(token=TokenProof(body.token, Reason.TOKEN_UNKNOWN))
        await talk.prove(wire.Join(token=body.token))
        return
    machine.learn(token=proofs.token_proof(body.token, talk.peer))
    mac = proof(secret, machine.binding, Role.MASTER)
    await talk.prove(wire.Join(token=body.token, mac=mac.hex()))


def _is_proof(body: wire.Join, secret: bytes, talk: Talk, role: Role) -> bool:
    given = b"" if body.mac is None else _digest_untrusted(body.mac)
    return is_proof(given, secret, talk.machine.binding, role)


def _digest_untrusted(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        msg = f"expected 32 bytes of hex, got {quoted(text)}"
        raise BadMessage(msg) from None


async def _kerberos(talk: Talk, party: GssParty, *, first: bool) -> None:
    """Exchange GSS-API tokens until both sides are content."""
    token = await _step(talk, party, None) if first else None
    for _ in range(limits.PROOFS):
        if token is not None:
            await talk.prove(wire.Gss(token=base64.b64encode(token).decode()))
        if party.complete:
            talk.machine.learn(principal=party.principal)
            return
        theirs = await talk.hear_proof(wire.Gss)
        token = await _step(talk, party, _token_untrusted(theirs.token))
    msg = f"Kerberos did not end after {limits.PROOFS} steps"
    raise BadMessage(msg)


async def _step(talk: Talk, party: GssParty, token: bytes | None) -> bytes | None:
    """Take one step; the peer is told why there is no further one."""
    try:
        return await party.step(token)
    except (RefusedError, UnreachableError) as exc:
        await talk.refuse(Verdict(Decision.NO, Reason.PRINCIPAL, exc.what))
        raise


def _token_untrusted(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        msg = f"{quoted(text)} is no token of GSS-API"
        raise BadMessage(msg) from None


async def _refuse(talk: Talk, verdict: Verdict) -> None:
    """Say no now, and raise it."""
    await talk.refuse(verdict)
    peer = talk.peer
    msg = f"{peer.role.value} {peer.name} is refused"
    raise RefusedError(msg, why=f"{verdict.reason.value}, {verdict.detail}")
