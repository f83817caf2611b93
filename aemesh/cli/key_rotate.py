"""``aemesh key rotate``: a new key for a role, told to its peers before it is used."""

from __future__ import annotations

import click

from aemesh.cli import ui
from aemesh.cli.options import assent_option, json_option, state_option
from aemesh.errors import KeyFileError, RefusedError
from aemesh.host.keys.keystore import KEY_FILE, load_key
from aemesh.host.keys.nextkey import NextKey, make_next, put_in_place, read_next
from aemesh.host.statedir import held_state, state_folder
from aemesh.host.trust import trustfiles
from aemesh.model.trust import KnownPeer, Role


@click.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="Whose key it is: this machine's worker, or its master.",
)
@click.option(
    "--finish", is_flag=True, help="Use the next key from now on; the role must rest."
)
@assent_option("--force", "force", "With --finish: even if a peer has not taken it.")
@state_option
@json_option
def rotate(
    role: str, state: str | None, *, finish: bool, force: bool, as_json: bool
) -> None:
    """Make a next key and offer it to all who trust the present one.

    Peers take it over a link that the present key has proved; a running role offers it
    by itself.  When all have it, stop the role and run this with --finish.
    """
    whose = Role(role)
    folder = state_folder(whose, state)
    if load_key(folder / KEY_FILE) is None:
        msg = f"no key in {folder}"
        raise KeyFileError(msg, hint=f"the first `aemesh {role}` makes one")
    if finish:
        with held_state(whose, state):
            _finish(whose, state, force=force)
        return
    following = make_next(folder, role)
    _show(whose, following, _missing(whose, state, following), as_json=as_json)


def _finish(whose: Role, state: str | None, *, force: bool) -> None:
    folder = state_folder(whose, state)
    following = read_next(folder, whose.value)
    if following is not None and not force:
        missing = _missing(whose, state, following)
        if missing:
            names = ", ".join(str(peer.name) for peer in missing)
            msg = f"{len(missing)} peers have not taken the next key"
            hint = "start the role until they have, or give --force: they will refuse"
            raise RefusedError(msg, why=names, hint=hint)
    put_in_place(folder)
    ui.say(f"the {whose.value} has its next key; the one before is {KEY_FILE}.old")


def _missing(
    whose: Role, state: str | None, following: NextKey
) -> tuple[KnownPeer, ...]:
    """Return the peers that we know and that do not have our next key yet."""
    book = trustfiles.read_book(state_folder(whose, state), whose.other)
    return tuple(p for p in book.known if not following.is_taken_by(p.key.key_id))


def _show(
    whose: Role, following: NextKey, missing: tuple[KnownPeer, ...], *, as_json: bool
) -> None:
    key_id = following.public.key_id
    fields = {
        "role": whose.value,
        "next": str(key_id),
        "words": key_id.words,
        "taken by": str(len(following.taken)),
        "missing": ", ".join(str(peer.name) for peer in missing),
    }
    ui.records([fields], as_json=as_json)
    if not missing:
        again = f"aemesh key rotate --role {whose.value} --finish"
        ui.say(f"every peer has it: stop the {whose.value}, then `{again}`")
