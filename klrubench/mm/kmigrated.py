"""kmigrated: the thread of each lower-tier node that looks for ready records, frame by frame, and migrates the folios.

Source: pghot v3 and v5, 20251110052343.208768-1-bharata@amd.com, 20260129144043.231636-1-bharata@amd.com. Recorders set
a flag and never wake the thread: it looks at the flag each 100 ms, and as long as the flag is set again while it works
it does not sleep. v3 walks all frames of the node, v5 only sections (32768 frames) that are flagged hot. The order is
that of frames, not of hotness: where the top tier is short of room the lowest frames win. A record is zeroed when it is
taken, promoted or not.
At scale a section has fewer pages, so a hot one among them is rarer: gating saves more of the walk than at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.mm.migrate import slice_ps
from klrubench.mm.pghot_map import MapPghot, migrate_ready

if TYPE_CHECKING:
    from klrubench.simulate import System

SLEEP_MS = 100


class Kmigrated:
    """One kmigrated thread, of lower-tier node `node`."""

    metadata_bytes = 0

    def __init__(self, pghot: MapPghot, node: int) -> None:
        self.pghot, self.node, self.worked_ps = pghot, node, 0.0

    def attach(self, system: System) -> None:
        """Start the thread at a random phase of its period."""
        self.system = system
        self.thread = system.daemon("kmigrated", self.run, phase_ms=SLEEP_MS)

    def run(self, system: System) -> Iterator[Any]:
        """The thread."""
        active = self.pghot.arrays.active
        while True:
            if active[self.node]:
                active[self.node] = 0
                yield from self.walk(system)
            else:
                yield system.sleep_ms(SLEEP_MS)

    def walk(self, system: System) -> Iterator[Any]:
        """One walk over the node's frames, in slices between which others run."""
        pghot, mm, fold = self.pghot, system.mm, system.fold
        first, last = pghot.sections[self.node]
        state = pghot.arrays.state[self.node]
        state[:] = first, -1, 0
        names = ("kmigrated_pfn", "kpromoted_pop", "kpromoted_page", "migrate_2m")
        price = np.array([*(system.cost_ps(name) for name in names), slice_ps(system)], np.int64)
        while state[0] < last:
            now = system.jiffies
            steps, taken, folios, pages, flushes = migrate_ready(
                pghot.arrays, mm, self.node, last, price, now, pghot.rules, fold
            )
            before = self.thread.spent_ps
            system.charge_moves("kpromoted_page", folios, pages)
            system.charge(kpromoted_pop=taken - folios, kmigrated_pfn=steps)
            system.flush_tlb(flushes, fold)
            self.worked_ps += self.thread.spent_ps - before
            yield

    def bound(self) -> dict[str, float]:
        """Share of the run in which the thread was at work: at 1 it is what promotion waits for."""
        name = "kmigrated" if self.node == self.system.machine.lower_nodes[0] else f"kmigrated{self.node}"
        return {name: min(1.0, self.worked_ps / self.system.now_ps) if self.system.now_ps else 0.0}
