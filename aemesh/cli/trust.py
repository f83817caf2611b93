"""``aemesh trust``: see and decide who is trusted, beside a running agent or without.

It works on the files of the state directory; a running worker or master watches
them.  A machine that is both keeps two sets: as a master it remembers workers, as a
worker it remembers masters.  ``--role`` is the role of the *other* side.
"""

from __future__ import annotations

import click

from aemesh.cli.trust_accept import accept
from aemesh.cli.trust_audit import audit
from aemesh.cli.trust_export import export
from aemesh.cli.trust_import import import_
from aemesh.cli.trust_refuse import forget, revoke
from aemesh.cli.trust_show import list_, show
from aemesh.cli.trust_token import token
from aemesh.cli.trust_verify import verify


@click.group()
def trust() -> None:
    """See and decide who is trusted."""


for _command in (
    *(list_, show, accept, verify, revoke, forget, export, import_, audit),
    token,
):
    trust.add_command(_command)
