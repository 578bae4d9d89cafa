"""What each kernel operation costs: instructions counted in a real kernel, times one of two scales."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from klrubench.errors import ParameterError, UnknownNameError
from klrubench.machine.kernel import version_tuple

if TYPE_CHECKING:
    from klrubench.machine.schema import CostEntry, CostTable, UnitEntry

MAX_NS = 1e12

_CHANGE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e[+-]?[0-9]{1,2})?)\s*(x|ns|us|ms|s)")
_UNIT_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True)
class Cost:
    """The cost of one kernel operation, resolved for a machine.

    Attributes:
        name: what mechanisms charge it by (`walk_pte`).
        ns: nanoseconds an operation, after any change that was asked for.
        instructions: counted or assumed instructions an operation (None: given in time).
        low_ns, high_ns: what can be defended; not moved by a change.
        source: where the number comes from.
        own_ns: the machine's own value, before any change.
        meaning: which operation, in a few words.
        unit: the scale it uses (`stream`, `miss`; empty: given in time).
    """

    name: str
    ns: float
    instructions: float | None
    low_ns: float
    high_ns: float
    source: str
    own_ns: float
    meaning: str = ""
    unit: str = ""

    @property
    def factor(self) -> float:
        """`ns` over the machine's own value: 1.0 when unchanged, infinite when the own value is 0."""
        if self.ns == self.own_ns:
            return 1.0
        return self.ns / self.own_ns if self.own_ns else math.inf

    def changed(self, change: str) -> Cost:
        """This cost scaled (`2x`, relative to what it is now) or set (`300ns`, `1.5us`).

        Raises:
            ParameterError: the text is neither, or the result exceeds 1000 s.
        """
        match = _CHANGE.fullmatch(str(change).strip())
        if match is None:
            raise ParameterError(f"cost {self.name}={change!r}: write a factor such as 2x or a time such as 300ns")
        number, unit = float(match[1]), match[2]
        ns = self.ns * number if unit == "x" else number * _UNIT_NS[unit]
        if not ns <= MAX_NS:
            raise ParameterError(f"cost {self.name}={change!r}: more than {MAX_NS:g} ns")
        return replace(self, ns=ns)


def changed_costs(base: Mapping[str, Cost], changes: Mapping[str, str]) -> dict[str, Cost]:
    """`base` with `changes` (`{"pghot_record": "2x"}`) made.

    Raises:
        UnknownNameError: no such cost.
        ParameterError: a change that cannot be read.
    """
    result = dict(base)
    for name, change in changes.items():
        check_cost_name(name, base)
        result[name] = result[name].changed(change)
    return result


def check_cost_name(name: str, known: Iterable[str]) -> None:
    """Raise UnknownNameError unless `name` is a cost."""
    known = set(known)
    if name not in known:
        raise UnknownNameError("cost", name, known)


def resolve_costs(default: CostTable, own: CostTable, kernel: str) -> dict[str, Cost]:
    """The costs of a machine: the default table with the machine's `own` scales and entries in place of the default's.

    Raises:
        UnknownNameError: an entry of `own` that the default table does not have.
        ParameterError: an entry outside its own range.
    """
    costs = {}
    for name in own.cost:
        check_cost_name(name, default.cost)
    for name, entry in default.cost.items():
        chosen = own.cost.get(name, entry)
        override = own.unit.get(chosen.unit) if chosen.unit else None
        unit = override or (default.unit.get(chosen.unit) if chosen.unit else None)
        # A range in time that belongs to the default scale says nothing about another one.
        keep_range = override is None or name in own.cost
        costs[name] = _resolved(name, chosen, unit, kernel, keep_range, chosen.meaning or entry.meaning or "")
    return costs


def _resolved(name: str, entry: CostEntry, unit: UnitEntry | None, kernel: str, keep_range: bool, meaning: str) -> Cost:
    instructions = _instructions(entry, kernel)
    if unit is None or instructions is None:
        ns = low = high = float(entry.ns or 0.0)
    else:
        ns, low, high = (instructions * scale for scale in unit.scales())
    if keep_range:
        low = low if entry.low_ns is None else entry.low_ns
        high = high if entry.high_ns is None else entry.high_ns
    if not low <= ns <= high:
        raise ParameterError(f"cost.{name}: {ns:g} ns is outside its range {low:g}-{high:g} ns")
    return Cost(name, ns, instructions, low, high, entry.source, ns, meaning, entry.unit or "")


def _instructions(entry: CostEntry, kernel: str) -> float | None:
    for version in sorted(entry.before, key=version_tuple):
        if version_tuple(kernel) < version_tuple(version):
            return entry.before[version]
    return entry.instructions
