"""kpromoted: the thread that pops pghot's heap and migrates, 1024 records a wake, every 20 ms plus its work.

Source: pghot RFC v2, 20250910144653.212066-1-bharata@amd.com (one thread for each top-tier node with CPUs). Whatever is
popped is forgotten, promoted or not. An empty heap lets the thread sleep through wakes that would find nothing;
it comes back on its own grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from klrubench.mm.migrate import FLUSH_FOLIOS
from klrubench.mm.pghot import Pghot

if TYPE_CHECKING:
    from klrubench.simulate import System

SLEEP_MS = 20
BATCH = 1024


class Kpromoted:
    """One kpromoted thread of `node` (posted default target: node 0)."""

    metadata_bytes = 0

    def __init__(self, pghot: Pghot, node: int = 0) -> None:
        self.pghot, self.node = pghot, node
        self.wakes = self.full = self.carry = 0

    def attach(self, system: System) -> None:
        """Start the thread at a random phase of its period."""
        self.system = system
        self.asleep_from_ps = -1
        self.thread = system.daemon("kpromoted", self.run)
        self.pghot.waiting.append(self)

    def kick(self) -> None:
        """The heap is no longer empty: be there at the next of the wakes that were slept through."""
        if self.asleep_from_ps < 0:
            return
        period = self.system.timer_ms(SLEEP_MS)
        missed = max(0, self.system.now_ps - self.asleep_from_ps) // (period * 1_000_000_000) + 1
        self.system.wake(self.thread, self.asleep_from_ps + missed * period * 1_000_000_000)
        self.wakes += max(0, missed - 1)
        self.asleep_from_ps = -1

    def run(self, system: System) -> Iterator[Any]:
        """The thread."""
        p = self.pghot.arrays
        while True:
            if p.heap_n[self.node] == 0:
                self.asleep_from_ps = system.now_ps + round(self.thread.spent_ps)
                yield system.parked
            else:
                yield system.sleep_ms(SLEEP_MS)
            budget, self.carry = system.budget(BATCH, self.carry, "kpromoted batch")
            popped, folios, pages = self.pghot.pop(self.node, budget)
            self.wakes += 1
            self.full += popped == budget
            system.charge_moves("kpromoted_page", folios, pages)
            system.charge(kpromoted_pop=popped - folios)
            system.flush_tlb(folios, FLUSH_FOLIOS)

    def bound(self) -> dict[str, float]:
        """Share of wakes whose batch was full."""
        name = "kpromoted" if self.node == self.system.default_target else f"kpromoted{self.node}"
        return {name: self.full / self.wakes if self.wakes else 0.0}
