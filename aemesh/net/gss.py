"""Kerberos in one handshake: tokens that prove a principal, bound to the connection.

The master initiates with the ticket of its user, the worker accepts with its keytab;
both prove themselves (mutual).  Each party is fed the other's token and says what to
send, until it is complete and names the peer:

    party = initiator(target=service_of(name), binding=binding)
    token = await party.step(None)

Kerberos knows nothing of TLS: whoever stands between could hand the tokens on.  So
they carry `binding`, a hash of both keys and nonces, and an acceptor takes none
without it.  libkrb5 leaves that open: bindings that differ are an error, but an
initiator without any is let in and only lacks a flag (RFC 4121, 4.1.1).

The worker's principal is ``aemesh/NAME@REALM`` with the name of its HELLO, so that the
KDC vouches for the very name it goes by; no DNS has a say in it.

This file alone imports gssapi, and only once Kerberos is asked for: it needs a C
library that most machines lack.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    RefusedError,
    SettingsError,
    UnreachableError,
    quoted,
)
from aemesh.net import gss_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import ModuleType

    from gssapi.raw import (
        AcceptSecContextResult,
        Creds,
        GSSError,
        IntEnumFlagSet,
        Name,
        SecurityContext,
    )

    from aemesh.model.names import NodeName
    from aemesh.net.gss_reasons import Told

T = TypeVar("T")

SERVICE = "aemesh"
# A line of gss_principals starts with one, so none may have a blank in it.
_PRINCIPAL = re.compile(r"[!-~]{1,256}")
# A replay cache whatever the environment says: KRB5RCACHENAME=none: turns it off.
_REPLAY_CACHE = "dfl:"

# Calls that wait for a KDC keep their thread when we have given up on them; with
# threads of their own they cannot take those of files and names.
_THREADS = trio.CapacityLimiter(limits.GSS_THREADS)


def service_of(name: NodeName) -> str:
    r"""Return the service principal of a worker, without its realm: ``aemesh/NAME``.

    An @ in the name is written \@: it starts no realm of the worker's own choice.
    """
    return f"{SERVICE}/{name}".replace("@", "\\@")


def initiator(
    *, target: str, binding: bytes, ccache: Path | str | None = None
) -> Initiator:
    """Return a master's party, which proves its user and expects `target`.

    Without `ccache` it uses the user's own credential cache.  A target without a realm
    is one of our default realm.
    """
    return Initiator(_library(), target=target, binding=binding, ccache=ccache)


def acceptor(
    *, service: str, binding: bytes, keytab: Path | str | None = None
) -> Acceptor:
    """Return a worker's party, which proves that it is `service` by its keytab.

    Without `keytab` it uses the default one, or that of KRB5_KTNAME.
    """
    return Acceptor(_library(), service=service, binding=binding, keytab=keytab)


async def check_user(ccache: Path | str | None = None) -> str:
    """Return the principal of the user's ticket, or raise `SettingsError`.

    For the start of a master: a message then is worth more than one in a handshake.
    """
    library = _library()
    what = "this master cannot use Kerberos"
    work = partial(_ticket_of, library, ccache)
    return await _at_start(work, what, gss_reasons.INITIATOR)


async def check_keytab(service: str, keytab: Path | str | None = None) -> None:
    """Raise `SettingsError` unless the keytab has a key of `service`; for a start."""
    library = _library()
    what = f"this worker cannot use Kerberos as {quoted(service)}"
    work = partial(_service, library, service, keytab)
    await _at_start(work, what, gss_reasons.ACCEPTOR)


class _Step(NamedTuple):
    """What a step came to: the token to send, and the peer if it is known now."""

    token: bytes | None
    principal: str = ""


class _Party(ABC):
    """One side of one handshake; after an error it is good for nothing."""

    def __init__(self, library: ModuleType, binding: bytes) -> None:
        self.principal = ""
        self.complete = False
        self._library = library
        self._bindings = library.ChannelBindings(application_data=binding)
        self._broken = False
        self._rounds = 0

    def __repr__(self) -> str:
        """Show who is at the other end, or how far we are."""
        state = self.principal if self.complete else f"round {self._rounds}"
        return f"<{type(self).__name__} {state}>"

    async def step(self, token: bytes | None) -> bytes | None:
        """Take the peer's token, None before its first; return ours, None if done.

        Raises `BadMessage` for what is no token at this point, `RefusedError` if
        Kerberos or we do not accept it, `UnreachableError` if no KDC answers.
        """
        self._check(token)
        self._rounds += 1
        self._broken = True  # also if we are cancelled while the library works
        with trio.move_on_after(limits.GSS_AFTER):
            done = await _in_thread(partial(self._told, token))
            # Here, not in the thread: one that was given up on completes nothing.
            self._broken = False
            self.principal, self.complete = done.principal, bool(done.principal)
            return done.token
        raise UnreachableError(
            self._what(),
            why=f"Kerberos did not answer within {limits.GSS_AFTER:g} s",
            hint="look whether the KDC of /etc/krb5.conf can be reached",
        )

    def _check(self, token: bytes | None) -> None:
        if self.complete or self._broken or self._rounds >= limits.GSS_ROUNDS:
            msg = "a Kerberos token after the last one"
            raise BadMessage(msg)
        if token is not None and not 0 < len(token) <= limits.GSS_TOKEN_BYTES:
            msg = (
                f"a Kerberos token of {len(token)} bytes: "
                f"expected 1 to {limits.GSS_TOKEN_BYTES}"
            )
            raise BadMessage(msg)
        if (token is None) is not self._speaks_now():
            msg = "a Kerberos token where none, or none where one was expected"
            raise BadMessage(msg)

    def _told(self, token: bytes | None) -> _Step:
        # Within the thread: the library keeps its sentences for the thread that failed.
        try:
            return self._advance(token)
        except self._library.GSSError as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: GSSError) -> AemeshError:
        told = gss_reasons.told(self._reasons(), exc.maj_code, exc.min_code)
        if told is None:
            return RefusedError(self._what(), why=_sentence(exc))
        return told.kind(self._what(), why=told.why, hint=told.hint)

    @abstractmethod
    def _speaks_now(self) -> bool:
        """Whether this step is the one that starts, without a token."""

    @abstractmethod
    def _what(self) -> str:
        """What an error of this side says went wrong."""

    @abstractmethod
    def _reasons(self) -> Mapping[int, Told]:
        """What this side says of the library's errors."""

    @abstractmethod
    def _advance(self, token: bytes | None) -> _Step:
        """Do one step; it blocks."""


class Initiator(_Party):
    """The master's side: speaks first, and knows whom it expects."""

    def __init__(
        self,
        library: ModuleType,
        *,
        target: str,
        binding: bytes,
        ccache: Path | str | None,
    ) -> None:
        super().__init__(library, binding)
        self._target = target
        self._ccache = ccache
        self._credentials: Creds | None = None
        self._context: SecurityContext | None = None

    def _speaks_now(self) -> bool:
        return self._rounds == 0

    def _what(self) -> str:
        return f"Kerberos did not bring us to {quoted(self._target)}"

    def _reasons(self) -> Mapping[int, Told]:
        return gss_reasons.INITIATOR

    def _advance(self, token: bytes | None) -> _Step:
        library = self._library
        flag = library.RequirementFlag
        # No delegation: a worker gets no ticket that it could use as our user.
        wanted = [flag.mutual_authentication, flag.replay_detection, flag.integrity]
        target = _name(library, self._target)
        if self._credentials is None:
            self._credentials = _user(library, self._ccache)
        done = library.init_sec_context(
            target,
            self._credentials,
            self._context,
            library.MechType.kerberos,
            wanted,
            None,
            self._bindings,
            token,
        )
        self._context = done.context
        if done.more_steps:
            return _Step(done.token)
        return _Step(done.token, self._proved(target, done.flags))

    def _proved(self, target: Name, flags: IntEnumFlagSet) -> str:
        """Return who the peer proved to be: the target and nobody else."""
        library = self._library
        if library.RequirementFlag.mutual_authentication not in flags:
            raise RefusedError(self._what(), why="the worker did not prove itself")
        asked = library.inquire_context(self._context, target_name=True)
        proved = _principal(library, asked.target_name)
        full = library.canonicalize_name(target, library.MechType.kerberos)
        if proved != _principal(library, full):
            why = f"the worker proved to be {quoted(proved)}"
            raise RefusedError(self._what(), why=why)
        return proved


class Acceptor(_Party):
    """The worker's side: takes one token, and answers it if all is right."""

    def __init__(
        self,
        library: ModuleType,
        *,
        service: str,
        binding: bytes,
        keytab: Path | str | None,
    ) -> None:
        super().__init__(library, binding)
        self._service = service
        self._keytab = keytab

    def _speaks_now(self) -> bool:
        return False

    def _what(self) -> str:
        return f"a master did not prove itself to {quoted(self._service)}"

    def _reasons(self) -> Mapping[int, Told]:
        return gss_reasons.ACCEPTOR

    def _advance(self, token: bytes | None) -> _Step:
        library = self._library
        keys = _service(library, self._service, self._keytab)
        done = library.accept_sec_context(token, keys, None, self._bindings)
        if done.delegated_creds is not None:
            # Nobody asked for them; released, they are gone from memory too.
            library.release_cred(done.delegated_creds)
        self._check_flags(done)
        return _Step(done.token, _principal(library, done.initiator_name))

    def _check_flags(self, done: AcceptSecContextResult) -> None:
        flag = self._library.RequirementFlag
        if flag.channel_bound not in done.flags:
            raise RefusedError(self._what(), why="it sent no channel bindings")
        if done.more_steps or flag.mutual_authentication not in done.flags:
            raise RefusedError(self._what(), why="it did not ask for a mutual proof")


# --- the library's own things ----------------------------------------------------


def _library() -> ModuleType:
    try:
        from gssapi import raw  # noqa: PLC0415 - needs a C library, see above
    except ImportError as exc:
        what = "Kerberos needs the package gssapi"
        hint = "pip install 'aemesh[gssapi]' (on Debian first: libkrb5-dev, gcc)"
        raise SettingsError(what, why=str(exc), hint=hint) from exc
    library: ModuleType = raw
    return library


def _name(library: ModuleType, principal: str) -> Name:
    kind = library.NameType.kerberos_principal
    return library.import_name(principal.encode(), kind)


def _principal(library: ModuleType, name: Name) -> str:
    """Return a name as in a trust file; another realm may have odder ones."""
    shown = library.display_name(name).name.decode("utf-8", "replace")
    if not _PRINCIPAL.fullmatch(shown):
        why = f"the principal {quoted(shown)} is none that a trust file can hold"
        what = "Kerberos proved a principal that we do not take"
        raise RefusedError(what, why=why)
    return str(shown)


def _user(library: ModuleType, ccache: Path | str | None) -> Creds:
    return _credentials(library, {"ccache": ccache}, usage="initiate")


def _service(library: ModuleType, service: str, keytab: Path | str | None) -> Creds:
    # By its name: a token for another key of the same keytab is not for us.
    store = {"keytab": keytab, "rcache": _REPLAY_CACHE}
    name = _name(library, service)
    return _credentials(library, store, usage="accept", name=name)


def _credentials(
    library: ModuleType,
    store: dict[str, Path | str | None],
    *,
    usage: str,
    name: Name | None = None,
) -> Creds:
    given = {
        key.encode(): str(value).encode()
        for key, value in store.items()
        if value is not None
    }
    # Kerberos alone: no negotiation of mechanisms, which could only weaken it.
    mechanisms = [library.MechType.kerberos]
    if not given:
        return library.acquire_cred(name, mechs=mechanisms, usage=usage).creds
    return library.acquire_cred_from(given, name, mechs=mechanisms, usage=usage).creds


def _ticket_of(library: ModuleType, ccache: Path | str | None) -> str:
    found = library.inquire_cred(_user(library, ccache))
    return _principal(library, found.name)


def _sentence(exc: GSSError) -> str:
    """Return what the library says, quoted: a peer's words may be in it."""
    said = exc.get_all_statuses(exc.min_code, False) if exc.min_code else [str(exc)]
    return quoted(", ".join(said))


# --- waiting ---------------------------------------------------------------------


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_THREADS)


async def _at_start(work: Callable[[], T], what: str, reasons: Mapping[int, Told]) -> T:
    """Do what a handshake will; an error there is one of the settings."""
    library = _library()

    def done() -> T:
        try:
            return work()
        except library.GSSError as exc:
            known = gss_reasons.told(reasons, exc.maj_code, exc.min_code)
            why, hint = (known.why, known.hint) if known else (_sentence(exc), None)
            raise SettingsError(what, why=why, hint=hint) from exc

    with trio.move_on_after(limits.GSS_AFTER):
        return await _in_thread(done)
    why = f"the credentials could not be read within {limits.GSS_AFTER:g} s"
    raise SettingsError(what, why=why)
