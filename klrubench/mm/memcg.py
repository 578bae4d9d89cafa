"""Timers of memcgs: one thread that visits each memcg at an interval of its own.

The klruscand patch names intervals by memcg as future work and leaves the how open. Here the thread sleeps until the
earliest memcg is due and visits those that are; a period runs from start to start, and what was missed is not caught
up, as with the posted interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from klrubench.errors import ParameterError

if TYPE_CHECKING:
    from klrubench.simulate import System

PS_PER_MS = 1_000_000_000
LEAST_MS, MOST_MS = 10.0, 60_000.0


class MemcgTimers:
    """When each memcg is due for its next visit; all are at the start.

    Args:
        system: names and counts the memcgs.
        interval_ms: period of every memcg that `intervals` does not name.
        intervals: `NAME=MS/NAME=MS`, or the periods of the first memcgs in order, `MS/MS`.
    Raises:
        ParameterError: `intervals` names no memcg of the workload, or no time within 10 .. 60000 ms.
    """

    def __init__(self, system: System, interval_ms: float, intervals: str = "") -> None:
        self.system = system
        self.interval_ms = intervals_of(system.memcgs, interval_ms, intervals)
        self.began_ps = [system.now_ps] * len(self.interval_ms)
        self.due_ps, self.visited_ps = list(self.began_ps), list(self.began_ps)

    def due(self) -> list[int]:
        """The memcgs whose time has come; their next period begins now."""
        now = self.system.now_ps
        found = [memcg for memcg, at in enumerate(self.due_ps) if at <= now]
        for memcg in found:
            self.began_ps[memcg] = now
            self.set(memcg, self.interval_ms[memcg])
        return found

    def set(self, memcg: int, interval_ms: float) -> None:
        """Change a memcg's period, the one under way included."""
        self.interval_ms[memcg] = interval_ms
        self.due_ps[memcg] = self.began_ps[memcg] + round(interval_ms * PS_PER_MS)

    def begin(self, memcg: int) -> float:
        """Its visit begins now, after those of the memcgs before it; ms since its visit before that one began."""
        before, now = self.visited_ps[memcg], self.system.now_ps
        self.visited_ps[memcg] = self.began_ps[memcg] = now
        return (now - before) / PS_PER_MS

    def sleep(self) -> Any:
        """What the thread yields to sleep until the next memcg is due."""
        return self.system.until_ps(min(self.due_ps))


def intervals_of(memcgs: Sequence[str], interval_ms: float, text: str) -> list[float]:
    """The period of each memcg in ms; raises as `MemcgTimers`."""
    found = dict.fromkeys(memcgs, float(interval_ms))
    parts = [part for part in text.split("/") if part]
    if len(parts) > len(memcgs):
        raise ParameterError(f"intervals={text}: {len(parts)} intervals for {len(memcgs)} memcgs ({', '.join(memcgs)})")
    for memcg, part in zip(memcgs, parts, strict=False):
        name, equals, value = part.partition("=")
        found[_known(name, memcgs, text) if equals else memcg] = _milliseconds(value if equals else part, text)
    return list(found.values())


def _known(name: str, memcgs: Sequence[str], text: str) -> str:
    if name not in memcgs:
        raise ParameterError(f"intervals={text}: no memcg '{name}' here; there are {', '.join(memcgs)}")
    return name


def _milliseconds(value: str, text: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not LEAST_MS <= found <= MOST_MS:
        legal = f"{LEAST_MS:g}-{MOST_MS:g} ms; write kv=500/idle=10000, or 500/10000"
        raise ParameterError(f"intervals={text}: '{value}' is no time of {legal}")
    return found
