"""kmigrated: the thread of each lower-tier node that looks for ready records, frame by frame, and migrates the folios.

Source: pghot v3 and v5, 20251110052343.208768-1-bharata@amd.com, 20260129144043.231636-1-bharata@amd.com. Recorders set
a flag and never wake the thread: it looks at the flag each 100 ms, and as long as the flag is set again while it works
it does not sleep. v3 walks all frames of the node, v5 only sections (32768 frames) that are flagged hot. The order is
that of frames, not of hotness: where the top tier is short of room the lowest frames win. A record is zeroed when it is
taken, promoted or not. Not modelled: the knobs kmigrated_sleep_ms and kmigrated_batch_nr (both stand at their
defaults), enabled_sources, target_nid. A folio passes the gate and moves by itself; a batch is what shares a flush.
At scale a section has fewer pages, so a hot one among them is rarer: gating saves more of the walk than at full size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import reader
from klrubench.engine.jit import njit_inline
from klrubench.engine.kthread import FLUSHES, JIFFIES, REQUEST, SLEEP, charged, charged_moves, jiffies_at
from klrubench.mm.migrate import slice_ps
from klrubench.mm.pghot_map import AT_FRAME, AT_SECTION, IN_BATCH, MapPghot, _migrate_ready, map_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.simulate import System

SLEEP_MS = 100


# its own words: where the memory and the store are, its node and first and last sections, what it is at
M_MM, M_STORE, M_NODE, M_FIRST, M_LAST, M_FOLD, M_HZ, M_SLEEP, M_WALKING, M_WORDS = range(10)
COSTS = ("kpromoted_page", "migrate_2m", "kpromoted_pop", "kmigrated_pfn")
C_PAGE, C_HUGE, C_POP, C_PFN = range(len(COSTS))

kmigrated_at: Any = reader(
    "KmigratedThread",
    row=(np.int64, 1), events=(np.int64, 1), price_ps=(np.float64, 1), own=(np.int64, 1), slice_price=(np.int64, 1),
    rules=(np.int64, 1), worked_ps=(np.float64, 1),
)  # fmt: skip


@njit_inline
def migrated_slice(t: Any, jiffies: int) -> float:
    """A slice of a walk; the picoseconds that it takes."""
    own, events, price = t.own, t.events, t.price_ps
    steps, taken, folios, pages, flushes = _migrate_ready(
        own[M_STORE], own[M_MM], own[M_NODE], own[M_LAST], t.slice_price, jiffies, t.rules, own[M_FOLD]
    )
    moved = charged_moves(events, price, C_PAGE, C_HUGE, folios, pages, own[M_FOLD])
    looked = charged(events, price, C_POP, taken - folios, own[M_FOLD])
    looked += charged(events, price, C_PFN, steps, own[M_FOLD])
    t.row[FLUSHES] = flushes
    return moved + looked


def kmigrated_turn(context: int, unused: int, now_ps: int) -> Int:
    """A slice of a walk over the node's frames; when it is through, the next one, or sleep if nothing was recorded."""
    t = kmigrated_at(context)
    own = t.own
    p = map_at(own[M_STORE])
    state = p.state[own[M_NODE]]
    while True:
        if not own[M_WALKING]:
            if not p.active[own[M_NODE]]:
                t.row[REQUEST], t.row[JIFFIES] = SLEEP, own[M_SLEEP]
                return 0
            p.active[own[M_NODE]] = 0
            state[AT_SECTION], state[AT_FRAME], state[IN_BATCH] = own[M_FIRST], -1, 0
            own[M_WALKING] = 1
        if state[AT_SECTION] < own[M_LAST]:
            spent = migrated_slice(t, jiffies_at(now_ps, own[M_HZ]))
            t.worked_ps[0] += spent
            return np.int64(np.rint(spent))
        own[M_WALKING] = 0


class Kmigrated:
    """One kmigrated thread, of lower-tier node `node`."""

    metadata_bytes = 0

    def __init__(self, pghot: MapPghot, node: int) -> None:
        self.pghot, self.node, self.worked_ps = pghot, node, np.zeros(1)

    def attach(self, system: System) -> None:
        """Start the thread at a random phase of its period."""
        self.system = system
        pghot, own = self.pghot, np.zeros(M_WORDS, np.int64)
        own[[M_MM, M_STORE, M_NODE]] = system.mm.address, pghot.arrays.address, self.node
        own[[M_FIRST, M_LAST]] = pghot.sections[self.node]
        own[[M_FOLD, M_HZ, M_SLEEP]] = system.fold, system.machine.hz, system.timer_jiffies(SLEEP_MS)
        names = ("kmigrated_pfn", "kpromoted_pop", "kpromoted_page", "migrate_2m")
        price = np.array([*(system.cost_ps(name) for name in names), slice_ps(system)], np.int64)
        arrays = [own, price, pghot.rules, self.worked_ps]
        system.kernel_thread("kmigrated", kmigrated_turn, COSTS, arrays, phase_ms=SLEEP_MS)

    def bound(self) -> dict[str, float]:
        """Share of the run in which the thread was at work: at 1 it is what promotion waits for."""
        name = "kmigrated" if self.node == self.system.machine.lower_nodes[0] else f"kmigrated{self.node}"
        worked = float(self.worked_ps[0])
        return {name: min(1.0, worked / self.system.now_ps) if self.system.now_ps else 0.0}
