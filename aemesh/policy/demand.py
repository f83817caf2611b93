"""Whether what a group asks for can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, UsageError
from aemesh.model.names import module_untrusted, setting_untrusted
from aemesh.policy.require import parse_requirement

if TYPE_CHECKING:
    from aemesh.model.group import Demand


def check_demand(demand: Demand) -> Demand:
    """Return `demand` if it makes sense; raises `UsageError`."""
    most = limits.GROUP_WORKERS
    _check("min", demand.min, least=0, most=most)
    if demand.max is not None:
        _check("max", demand.max, least=0, most=most)
        if demand.max < demand.min:
            msg = f"a group cannot have a max of {demand.max} and a min of {demand.min}"
            raise UsageError(msg, hint="set both with --min and --max, or --max none")
    _check("weight", demand.weight, least=1, most=limits.GROUP_WEIGHT)
    if not 0.0 <= demand.wait_after <= limits.GROUP_WAIT_CAP_AFTER:
        msg = f"a group cannot wait {demand.wait_after:g} s"
        raise UsageError(msg, why=f"at most {limits.GROUP_WAIT_CAP_AFTER:g} s")
    parse_requirement(demand.require)
    _check_setup(demand)
    return demand


def _check_setup(demand: Demand) -> None:
    """Look at names and numbers; what a setting means its engine knows."""
    try:
        for module in demand.preload:
            module_untrusted(module)
        for name in demand.settings:
            setting_untrusted(name)
    except BadMessage as error:
        raise UsageError(error.what) from None
    _check("number of modules", len(demand.preload), least=0, most=limits.PRELOADS)
    most = limits.ENGINE_SETTINGS
    _check("number of settings", len(demand.settings), least=0, most=most)
    for name, value in demand.settings.items():
        if len(value) > limits.ENGINE_SETTING_LENGTH or not value.isprintable():
            msg = f"the value of {name} cannot be used"
            why = f"expected up to {limits.ENGINE_SETTING_LENGTH} printable characters"
            raise UsageError(msg, why=why)


def _check(name: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"a group cannot have a {name} of {value}"
        raise UsageError(msg, why=f"expected {least} to {most}")
