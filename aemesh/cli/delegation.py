"""Options by which a user hands the own X.509 identity on, and what becomes of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aemesh import limits
from aemesh.cli import ui
from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from aemesh.model.view import Delegate

_F = TypeVar("_F", bound=Callable[..., Any])
_SPAN = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def delegate_options(command: _F) -> _F:
    """Add ``--delegate SPAN`` and ``--delegate-from FILE``."""
    for add in (
        click.option(
            "--delegate-from",
            metavar="FILE",
            help="Your certificate and key, if not where tools of grids keep them.",
        ),
        click.option(
            "--delegate",
            metavar="SPAN",
            help="Hand your X.509 identity on to jobs, for at most 12h each.",
        ),
    ):
        command = add(command)
    return command


def span(text: str) -> float:
    """Return the seconds of ``8h``, ``90m``, ``3600s``; raises `UsageError`."""
    match = _SPAN.fullmatch(text)
    if match is None or int(match[1]) == 0:
        msg = f"expected a span like 8h or 90m, got {quoted(text)}"
        raise UsageError(msg)
    return int(match[1]) * _SECONDS[match[2]]


def wish_of(life: str | None, source: str | None) -> Delegate | None:
    """Return what the options ask for; asks for a passphrase, on a terminal only."""
    if life is None and source is None:
        return None
    # cryptography's x509 is loaded only where an identity is handed on.
    from aemesh.host.site.usercredential import (  # noqa: PLC0415
        find_credential,
        needs_passphrase,
        read_credential,
    )
    from aemesh.model.view import Delegate  # noqa: PLC0415

    if life is None:
        msg = "--delegate-from needs --delegate, which says for how long"
        raise UsageError(msg)
    life_after = span(life)
    if life_after > limits.DELEGATION_CAP_AFTER:
        hours = limits.DELEGATION_CAP_AFTER / 3600
        msg = f"credentials are not delegated for {life}"
        why = f"at most {hours:g} hours are, for they cannot be called back"
        raise UsageError(msg, why=why)
    path = find_credential(
        source,
        os.environ,
        home=Path.home(),
        temporary=Path("/tmp"),  # noqa: S108 - where tools of grids put it
    )
    passphrase = _passphrase(path) if needs_passphrase(path) else ""
    read_credential(path, passphrase=passphrase)  # what is wrong is told here
    return Delegate(life_after=life_after, source=str(path), passphrase=passphrase)


def _passphrase(path: Path) -> str:
    if not ui.can_ask():
        msg = f"the key of {path} needs a passphrase"
        why = "it is asked for on a terminal only"
        hint = "make a proxy of it with your grid's tools"
        raise UsageError(msg, why=why, hint=hint)
    asked: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return asked
