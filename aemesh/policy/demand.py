"""Whether what a group asks for can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import UsageError
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
    return demand


def _check(name: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"a group cannot have a {name} of {value}"
        raise UsageError(msg, why=f"expected {least} to {most}")
