"""``aemesh trust token``: give out join tokens, see who used them, take them back.

It works on the files of the master's state directory, beside a running master or
without.  A token is printed once, when it is made, and never again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from aemesh import limits
from aemesh.cli import ui
from aemesh.cli.options import JOIN_VARIABLE, json_option, state_option
from aemesh.cli.settings import typed
from aemesh.cli.spans import shown_span, span
from aemesh.errors import UnknownNameError, UsageError, quoted
from aemesh.host.statedir import state_folder, state_root
from aemesh.host.trust import tokens
from aemesh.host.trust.auditlog import AuditLog, Change, local_user
from aemesh.model.jointoken import JoinToken
from aemesh.model.trust import Reason, Role, Terms
from aemesh.policy.tokens import TokenRecord, ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# As in a trust file, where a comma or a quote would end the pattern.
_PATTERN = re.compile(r"!?[A-Za-z0-9_.@*?-]{1,64}", re.ASCII)
_STATES = {
    None: "open",
    Reason.REVOKED: "revoked",
    Reason.TOKEN_EXPIRED: "expired",
    Reason.TOKEN_SPENT: "spent",
}


def _patterns(
    what: str,
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[str, ...]]:
    """Return a callback that checks patterns of names of `what`."""

    def check(
        _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
    ) -> tuple[str, ...]:
        for text in given:
            if not _PATTERN.fullmatch(text):
                expected = "1 to 64 of A-Z a-z 0-9 _ . @ - * ?, or ! in front of them"
                msg = f"pattern of {what} {quoted(text)}: expected {expected}"
                raise UsageError(msg)
        if len(given) > limits.TOKEN_PATTERNS:
            most = limits.TOKEN_PATTERNS
            msg = f"{len(given)} patterns of {what}: expected at most {most}"
            raise UsageError(msg)
        return given

    return check


def _valid_after(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    after = span(text)
    if after > limits.TOKEN_CAP_AFTER:
        most = shown_span(limits.TOKEN_CAP_AFTER)
        msg = f"a token for {text}: expected at most {most}"
        raise UsageError(msg, hint="for longer, certify workers: `--auth x509`")
    return after


@click.group(invoke_without_command=True)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns("groups"),
    help="Who joins serves this group only; several times: these. Without it: any.",
)
@click.option(
    "--count",
    type=click.IntRange(1, limits.TOKEN_COUNT),
    default=1,
    show_default=True,
    help="How many workers may join by it.",
)
@click.option(
    "--for",
    "valid_after",
    metavar="SPAN",
    default="1h",
    show_default=True,
    callback=_valid_after,
    help="How long it can be used: 30s, 10m, 1h, 7d.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="PATTERN",
    callback=_patterns("names"),
    help="Only workers of these names may join. Without it: any.",
)
@state_option
@json_option
@click.pass_context
def token(ctx: click.Context, /, **offered: Any) -> None:  # noqa: ANN401 - click's
    """Make a join token, by which workers and this master trust each other.

    The token is the one line on standard output. Give it to a worker by a way that
    nobody else reads, as `aemesh worker --join @FILE` or in $AEMESH_JOIN: other users
    of a machine see what stands on its command lines. Who has the token can join.
    """
    if ctx.invoked_subcommand is None:
        _make(**offered)
        return
    for name in offered:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            inner = ctx.invoked_subcommand
            msg = f"options in front of `{inner}` are for a new token"
            raise UsageError(msg, hint=f"`{ctx.command_path} {inner} --help`")


@token.command("list")
@state_option
@json_option
def list_(state: str | None, *, as_json: bool) -> None:
    """List the tokens, without their secrets, and who used them."""
    folder, now = _folder(state), _now()
    found = tokens.list_tokens(folder)
    if as_json:
        for one in found:
            ui.write_json(_shown(one, now))
        return
    if not found:
        ui.say("no join token was given out")
        return
    heads = ("ID", "STATE", "USED", "GROUPS", "NAMES", "UNTIL", "BY")
    ui.table(heads, (_row(one, now) for one in found))


@token.command()
@click.argument("token_id", metavar="ID")
@state_option
def revoke(token_id: str, state: str | None) -> None:
    """Let the token ID introduce nobody any more. Who joined by it stays known."""
    folder, id_ = _folder(state), _id_of(token_id)
    if not tokens.revoke_token(folder, id_):
        kind, known = "join token", [one.id for one in tokens.list_tokens(folder)]
        raise UnknownNameError(kind, id_, known)
    _note(folder, "revoke-token", id_)
    ui.say(f"revoked join token {id_}")


def _id_of(text: str) -> str:
    """Return the id of a token, given as such or within the whole token.

    A whole one is parsed, so that no message can repeat its secret.
    """
    if text.strip().upper().startswith("AEM1-"):
        with typed():
            return JoinToken.parse_untrusted(text).id
    return text.lower()


def _make(  # noqa: PLR0913 - one for each option
    *,
    state: str | None,
    as_json: bool,
    groups: tuple[str, ...],
    names: tuple[str, ...],
    count: int,
    valid_after: float,
) -> None:
    # Only here: to list and to revoke, nobody has to wait for what reads a key.
    from aemesh.cli.node import node_name  # noqa: PLC0415
    from aemesh.host.keys.keystore import load_or_make  # noqa: PLC0415

    folder = state_folder(Role.MASTER, state)
    issuer = load_or_make(folder, node_name(None)).key_id
    offer = tokens.TokenOffer(
        valid_after=valid_after, count=count, terms=Terms(groups=groups), names=names
    )
    now = _now()
    made = tokens.issue(folder, offer, issuer=issuer, now=now)
    groups_said = f", group {','.join(groups)}" if groups else ""
    detail = f"{made.id}, for {count}{groups_said}, {shown_span(valid_after)}"
    _note(folder, "give-token", detail)
    if as_json:
        (record,) = (one for one in tokens.list_tokens(folder) if one.id == made.id)
        ui.write_json({"token": str(made), **_shown(record, now)})
    else:
        ui.write(str(made))
    _explain(made.id, offer)


def _explain(id_: str, offer: tokens.TokenOffer) -> None:
    """Say what a token allows and how it is used, without saying it again."""
    who = "one worker" if offer.count == 1 else f"{offer.count} workers"
    named = f" named {' or '.join(offer.names)}" if offer.names else ""
    where = " or ".join(offer.terms.groups) or "any"
    span_ = shown_span(offer.valid_after)
    ui.say(f"join token {id_} lets {who}{named} join, group {where}, for {span_}")
    ui.say(f"on the worker: `aemesh worker --join @FILE`, or ${JOIN_VARIABLE}")


def _note(folder: Path, action: str, detail: str) -> None:
    """Write into the audit log what was done to a token; it has no key yet."""
    change = Change(action, Role.WORKER, "", "", detail)
    AuditLog(folder).write_change(change, by=local_user(), now=_now())


def _folder(state: str | None) -> Path:
    return state_root(state) / Role.MASTER.value


def _shown(record: TokenRecord, now: float) -> dict[str, object]:
    return {
        "id": record.id,
        "state": _STATES[ended(record, now=now)],
        "role": record.role.value,
        "count": record.count,
        "groups": list(record.terms.groups),
        "names": list(record.names),
        "issued_at": record.issued_at,
        "expires_at": record.expires_at,
        "used_by": [
            {"name": use.name, "key": str(use.key_id), "at": use.at}
            for use in record.used_by
        ],
    }


def _row(record: TokenRecord, now: float) -> tuple[str, ...]:
    return (
        record.id,
        _STATES[ended(record, now=now)],
        f"{len(record.used_by)}/{record.count}",
        ",".join(record.terms.groups) or "any",
        ",".join(record.names) or "any",
        ui.moment(record.expires_at),
        ",".join(use.name for use in record.used_by),
    )


def _now() -> float:
    return datetime.now(UTC).timestamp()
