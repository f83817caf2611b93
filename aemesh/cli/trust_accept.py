"""``aemesh trust accept``: let in who waits, under terms if the person wants some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aemesh.cli import ui
from aemesh.cli.options import assent_option, state_option
from aemesh.cli.spans import span
from aemesh.cli.trust_rows import (
    Row,
    all_rows,
    called,
    day,
    now,
    one_key,
    record,
    role_option,
)
from aemesh.errors import AemeshError, BadMessage, RefusedError, UsageError
from aemesh.host.trust import trustfiles
from aemesh.host.trust.pending import remove_request
from aemesh.host.trust.trustoptions import (
    EXPIRY,
    GROUPS,
    SOURCES,
    USERS,
    terms_untrusted,
    terms_words,
)
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that become the terms of the line."""
    for add in (
        click.option(
            "--expires",
            metavar="DATE",
            help="Until YYYYMMDD[HHMM[SS]][Z]; local time unless Z.",
        ),
        click.option(
            "--for", "valid_after", type=span, help="So long from now: 8h, 30d."
        ),
        click.option("--users", metavar="A,B", help="Only as these local users."),
        click.option("--from", "sources", metavar="NET,NET", help="Only from there."),
        click.option("--groups", metavar="A,B", help="Only in these groups."),
        click.option(
            "--observe",
            is_flag=True,
            help="It may ask this master how things are: `aemesh status --master`.",
        ),
    ):
        command = add(command)
    return command


@click.command()
@click.argument("who", required=False)
@assent_option("--all", "everybody", "Accept whoever waits now.")
@_terms_options
@role_option
@state_option
def accept(
    who: str | None,
    role: str | None,
    state: str | None,
    *,
    everybody: bool,
    observe: bool,
    **given: Any,  # noqa: ANN401 - what click read of the terms
) -> int:
    """Accept WHO waits: an id, a name or a fingerprint of `aemesh trust list`."""
    if (who is None) is not everybody:
        msg = "accept whom? one ID, NAME or fingerprint, or --all"
        raise UsageError(msg, hint="`aemesh trust list` shows who waits")
    terms = _terms(**given)
    waiting = [row for row in all_rows(state, role) if row.request is not None]
    if who is not None:
        row = one_key(called(waiting, who, "request"), who)
        _accept(row, terms, observe=observe)
        return 0
    if not waiting:
        ui.say("nobody waits")
    names = dict.fromkeys(row.name for row in waiting)
    codes = (_accept_name(waiting, name, terms, observe=observe) for name in names)
    return max(codes, default=0)


def _terms(
    groups: str | None,
    sources: str | None,
    users: str | None,
    expires: str | None,
    valid_after: float | None,
) -> Terms:
    if expires and valid_after is not None:
        msg = "--for and --expires say the same: give one of them"
        raise UsageError(msg)
    if valid_after is not None:
        expires = _end(valid_after)
    given = {GROUPS: groups, SOURCES: sources, USERS: users, EXPIRY: expires}
    try:
        return terms_untrusted(
            {n: text for n, text in given.items() if text is not None}
        )
    except BadMessage as error:
        raise UsageError(error.what) from None


def _end(valid_after: float) -> str:
    word = terms_words(Terms(expires_at=float(int(now() + valid_after))))[0]
    return word.partition("=")[2]


def _accept(row: Row, terms: Terms, *, observe: bool) -> None:
    peer = KnownPeer(
        name=NodeName(row.name),
        key=row.key,
        via="accept",
        added=day(now()),
        terms=terms,
        observe=observe,
    )
    shown = " ".join((*terms_words(terms), *(["observe=yes"] if observe else ())))
    if not trustfiles.add(row.folder, row.role, peer) and shown:
        msg = f"{row.name} is known already, not with {shown}"
        hint = f"`aemesh trust show {row.id}` names the line to edit"
        raise RefusedError(msg, hint=hint)
    remove_request(row.folder, row.id)
    record(row, "accept", shown)
    ui.say(f"accepted {row.described}" + (f", {shown}" if shown else ""))


def _accept_name(
    waiting: Sequence[Row], name: str, terms: Terms, *, observe: bool
) -> int:
    """Accept who waits under a name; one that cannot be does not stop the others."""
    try:
        row = one_key(called(waiting, name, "request"), name)
        _accept(row, terms, observe=observe)
    except AemeshError as error:
        return ui.error(error)
    return 0
