"""kmigrated: the thread of each lower-tier node that looks for ready records, frame by frame, and migrates what it finds.

Source: pghot v3 and v5, 20251110052343.208768-1-bharata@amd.com, 20260129144043.231636-1-bharata@amd.com. Recorders set a flag and never wake the thread: it
looks at the flag each 100 ms, and as long as the flag is set again while it works it does not sleep. v3 walks all frames of the node, v5
only sections (32768 frames) that are flagged hot. The order is that of frames, not of hotness: where the top tier is short of room the lowest
frames win. A record is zeroed when it is taken, promoted or not.
At scale a section has fewer pages, so a hot one among them is rarer: gating saves more of the walk than at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from klrubench.mm.pghot_map import MapPghot, migrate_ready

if TYPE_CHECKING:
    from klrubench.simulate import System

SLEEP_MS = 100
# between two looks at the clock (ours), full size: some 30 ms of frames walked past, 4 ms of records that the gate turned away (kswapd must
# get its turn before it has freed all that lies between two watermarks, or the gate would turn away too many)
STEP_FRAMES, STEP_RECORDS = 1 << 22, 1 << 13


class Kmigrated:
    """One kmigrated thread, of lower-tier node `node`."""

    metadata_bytes = 0

    def __init__(self, pghot: MapPghot, node: int) -> None:
        self.pghot, self.node, self.carry = pghot, node, 0
        self.worked_ps = 0.0

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
        """One walk over the node's frames, with a look at the clock after each batch."""
        pghot, mm = self.pghot, system.mm
        first, last = pghot.sections[self.node]
        state, most, reach = pghot.arrays.state[self.node], max(1, STEP_RECORDS // system.fold), max(1, STEP_FRAMES // system.fold)
        state[:] = first, -1, 0
        while state[0] < last:
            budget, self.carry = system.budget(pghot.form.batch, self.carry, "kmigrated batch")
            steps, taken, folios, pages, flushes = migrate_ready(
                pghot.arrays, mm, self.node, last, budget, most, reach, system.jiffies, pghot.rules, system.fold
            )
            before = self.thread.spent_ps
            system.charge_moves("kpromoted_page", folios, pages)
            system.charge(kpromoted_pop=taken - folios, kmigrated_pfn=steps)
            system.flush_tlb(flushes, system.fold)
            self.worked_ps += self.thread.spent_ps - before
            yield

    def bound(self) -> dict[str, float]:
        """Share of the run in which the thread was at work: at 1 it is what promotion waits for."""
        name = "kmigrated" if self.node == self.system.machine.lower_nodes[0] else f"kmigrated{self.node}"
        return {name: min(1.0, self.worked_ps / self.system.now_ps) if self.system.now_ps else 0.0}
