"""Whose identity each group's jobs get, and what a script put aside for its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aemesh.host.site.usercredential import read_credential
from aemesh.master.delegation import Delegation, check_life, check_mode
from aemesh.model.view import Delegate, DelegationView

if TYPE_CHECKING:
    from aemesh.master.group import Group
    from aemesh.model.names import GroupName


class Delegations:
    """The wishes of a master's user, by group; `default` is for groups without one."""

    def __init__(self, mode: str, default: Delegation | None) -> None:
        self._mode = mode
        self._default = default
        self._wished: dict[GroupName, Delegation | None] = {}
        # What a script with an identity of its own has put aside for its time.
        self._aside: dict[GroupName, Delegation | None] = {}

    def __repr__(self) -> str:
        return f"<Delegations of {len(self._wished)} groups>"

    def of(self, group: GroupName) -> Delegation | None:
        """Return what a new life of a group begins with."""
        return self._wished.get(group, self._default)

    def forget(self, group: GroupName) -> None:
        """The group is closed for good."""
        self._wished.pop(group, None)
        self._aside.pop(group, None)

    def read(self, wish: Delegate) -> Delegation | None:
        """Return what a wish is for, None for nobody; raises `SettingsError`."""
        if wish.life_after <= 0:
            return None
        check_mode(self._mode)
        check_life(wish.life_after)
        credential = read_credential(Path(wish.source), passphrase=wish.passphrase)
        return Delegation(credential, wish.life_after)

    def fulfil(self, group: Group, wish: Delegate) -> DelegationView:
        """Hand the identity on to a group's jobs from now on, or stop that."""
        if wish.lasting or wish.life_after > 0:
            delegation = self.read(wish)
        else:
            delegation = self._aside.pop(group.name, group.delegation)
        if not wish.lasting and wish.life_after > 0:
            self._aside.setdefault(group.name, group.delegation)
        self._wished[group.name] = delegation
        group.delegate(delegation)
        if delegation is None:
            return DelegationView(group=group.name)
        credential = delegation.credential
        return DelegationView(
            group=group.name,
            subject=credential.subject,
            life_after=delegation.life_after,
            until=credential.certificates[0].not_valid_after_utc.timestamp(),
        )
