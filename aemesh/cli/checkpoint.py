"""``aemesh commit`` and ``aemesh resume``: checkpoints of commands of ``aemesh map``.

Typed within a command, on a worker.  The state is a folder, $AEMESH_CHECKPOINT.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from aemesh.cli import ui
from aemesh.client.item import Item, this_item
from aemesh.errors import SettingsError, UsageError
from aemesh.host.folderzip import unzip_untrusted, zip_folder

_VARIABLE = "AEMESH_CHECKPOINT"
# For a shell's `if aemesh resume`; no error has it.
_NOTHING = 10


@click.command()
def commit() -> int:
    """Keep the folder $AEMESH_CHECKPOINT as the state of this item.

    For commands of `aemesh map --key`: cut off, the item goes on from its last one, by
    `aemesh resume`. Outside of one it does nothing.
    """
    item, folder = _here()
    if item is None:
        return 0
    if not folder.is_dir():
        msg = f"there is no folder {folder}"
        raise UsageError(msg, hint="`aemesh resume` makes it")
    item.save(zip_folder(folder))
    return 0


@click.command()
def resume() -> int:
    """Fill the folder $AEMESH_CHECKPOINT as it was at the last `aemesh commit`.

    The exit code is 0 if there was one; else it is 10, and the folder is empty.
    """
    item, folder = _here()
    state = None if item is None else item.saved()
    try:
        if state is None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _NOTHING
        unzip_untrusted(state, folder)
    except OSError as error:
        msg = f"{folder} cannot be filled"
        hint = "it must be a folder that we may replace, with room for the state"
        raise SettingsError(msg, why=error.strerror, hint=hint) from error
    return 0


def _here() -> tuple[Item | None, Path]:
    """Return the item that this is a part of, and the folder of its state."""
    item = this_item()
    named = os.environ.get(_VARIABLE)
    if named is None:
        msg = "where is the state?"
        raise UsageError(
            msg,
            why=f"${_VARIABLE} is not set: this is no command that aemesh started",
        )
    if item is None:
        ui.say("nothing is kept here: this is no item of a run with a key")
    return item, Path(named)
