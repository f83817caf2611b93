"""``aemesh trust verify``: compare later what was accepted without comparing."""

from __future__ import annotations

import click

from aemesh.cli import ui
from aemesh.cli.options import state_option
from aemesh.cli.trust_rows import Row, all_rows, called, one_key, record, role_option
from aemesh.errors import BadMessage, RefusedError, UsageError, quoted
from aemesh.host.trust import trustfiles
from aemesh.model.key import KeyId
from aemesh.model.words import WORDS

_SHOWN = ("role", "name", "key", "words", "via", "added", "last")
_WHERE = "`aemesh key show` there prints it"


@click.command()
@click.argument("who")
@click.argument("told", nargs=-1, metavar="[FINGERPRINT | WORDS]")
@role_option
@state_option
def verify(
    who: str, told: tuple[str, ...], role: str | None, state: str | None
) -> None:
    """Compare the key of WHO with what its machine says of itself.

    Without FINGERPRINT it is shown, and you are asked whether the machine shows the
    same.  Words alone tell keys apart; only a fingerprint proves one.
    """
    known = [row for row in all_rows(state, role) if row.state == "known"]
    row = one_key(called(known, who, "peer"), who)
    shown = row.shown()
    ui.fields({name: shown[name] for name in _SHOWN if shown[name]})
    if not (_is_proved(row, told) or _is_confirmed(row, told)):
        msg = f"{row.name} is not verified"
        hint = f"if the keys differ: aemesh trust revoke {row.id}"
        raise RefusedError(msg, why="nobody said that both are the same", hint=hint)
    _mark(row)


def _is_proved(row: Row, told: tuple[str, ...]) -> bool:
    """Whether `told` is the fingerprint; raise `RefusedError` if it is another's."""
    text = " ".join(told)
    assert row.key_id is not None, "a known row has a key"
    if not text:
        return False
    if text.startswith("SHA256:"):
        try:
            given = KeyId.parse_untrusted(text)
        except BadMessage as error:
            raise UsageError(error.what, hint=_WHERE) from None
        if given != row.key_id:
            _refuse(row, text)
        return True
    words = text.lower().replace("-", " ").split()
    if len(words) != 4 or not set(words) <= set(WORDS):
        msg = f"{quoted(text)} is neither a fingerprint SHA256:… nor four words"
        raise UsageError(msg, hint=_WHERE)
    if "-".join(words) != row.key_id.words:
        _refuse(row, text)
    # Forty bits: who has time makes a key with these words (model.words).
    return False


def _is_confirmed(row: Row, told: tuple[str, ...]) -> bool:
    """Whether a person says on the terminal that the fingerprints are the same."""
    if not ui.can_ask():
        if told:
            msg = "the words are the same, but words alone prove no key"
        else:
            msg = f"with what is the key of {row.name} to be compared?"
        hint = f"aemesh trust verify {row.id} SHA256:… ({_WHERE})"
        raise UsageError(msg, hint=hint)
    import trio  # noqa: PLC0415

    return trio.run(ui.ask, f"Does `aemesh key show` on {row.name} show this key?")


def _refuse(row: Row, told: str) -> None:
    """Say loudly that what is stored here is not what the machine has."""
    ui.alarm(
        f"{row.name} HAS ANOTHER KEY THAN THE ONE THAT IS TRUSTED HERE\n"
        f"trusted here since {row.added or 'an unknown day'}, via {row.via}:\n"
        f"    {row.key_id}\n"
        f"you were told:\n"
        f"    {told}\n"
        "Somebody may have stood between at the first meeting."
    )
    msg = f"{row.name} has another key than you were told"
    raise RefusedError(msg, hint=f"refuse it for good: aemesh trust revoke {row.id}")


def _mark(row: Row) -> None:
    assert row.key_id is not None, "a known row has a key"
    if trustfiles.verify(row.folder, row.role, row.key_id):
        record(row, "verify", f"was via={row.via}")
        ui.say(f"verified {row.described}")
    else:
        ui.say(f"{row.described} was verified already")
