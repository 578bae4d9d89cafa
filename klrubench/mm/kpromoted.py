"""kpromoted: the thread that pops pghot's heap and migrates, 1024 records a wake, every 20 ms plus its work.

Source: pghot RFC v2, 20250910144653.212066-1-bharata@amd.com (one thread for each top-tier node with CPUs). Whatever is
popped is forgotten, promoted or not. An empty heap lets the thread sleep through wakes that would find nothing;
it comes back on its own grid. As posted the folios of a wake are isolated first and pass the gate on one count of free
pages; here each is asked for and moved by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import reader
from klrubench.engine.jit import njit_source
from klrubench.engine.kthread import FLUSHES, JIFFIES, PARK, REQUEST, SLEEP, charged, charged_moves
from klrubench.mm.migrate import FLUSH_PAGES

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.pghot import Pghot
    from klrubench.simulate import System

SLEEP_MS = 20
BATCH = 1024

# the thread's own words: memory and store, node, rounding of the batch at scale, whether it has slept once, since when
# it sleeps through wakes (-1: it does not), wakes and those whose batch was full
P_MM, P_STORE, P_NODE, P_FOLD, P_HZ, P_SLEEP, P_CARRY, P_SLEPT, P_ASLEEP_FROM, P_WAKES, P_FULL, P_WORDS = range(12)
COSTS = ("kpromoted_page", "migrate_2m", "kpromoted_pop")
C_PAGE, C_HUGE, C_POP = range(len(COSTS))

kpromoted_at: Any = reader(
    "KpromotedThread",
    row=(np.int64, 1), events=(np.int64, 1), price_ps=(np.float64, 1), own=(np.int64, 1), rules=(np.int64, 1),
)  # fmt: skip


@njit_source
def next_budget(own: np.ndarray) -> Int:
    """Records that may be popped in a wake, at scale; what is left of a record goes to the next wake."""
    full = BATCH + own[P_CARRY]
    own[P_CARRY] = full % own[P_FOLD]
    return full // own[P_FOLD]


@njit_source
def charged_round(t: Any, budget: int, popped: int, folios: int, pages: int) -> Int:
    """Count a wake; the picoseconds that it took."""
    own, events, price = t.own, t.events, t.price_ps
    own[P_WAKES] += 1
    own[P_FULL] += popped == budget
    moved = charged_moves(events, price, C_PAGE, C_HUGE, folios, pages, own[P_FOLD])
    t.row[FLUSHES] = (pages * own[P_FOLD] + FLUSH_PAGES - 1) // FLUSH_PAGES
    return np.int64(np.rint(moved + charged(events, price, C_POP, popped - folios, own[P_FOLD])))


@njit_source
def rest(t: Any, queued: int, done_ps: int) -> None:
    """Sleep, or sleep through wakes while the heap is empty."""
    t.own[P_SLEPT] = 1
    t.row[REQUEST], t.row[JIFFIES] = SLEEP, t.own[P_SLEEP]
    if queued == 0:
        t.row[REQUEST], t.own[P_ASLEEP_FROM] = PARK, done_ps


class Kpromoted:
    """One kpromoted thread of `node` (posted default target: node 0)."""

    metadata_bytes = 0

    def __init__(self, pghot: Pghot, node: int = 0) -> None:
        self.pghot, self.node = pghot, node

    def attach(self, system: System) -> None:
        """Start the thread."""
        self.system = system
        system.budget(BATCH, 0, "kpromoted batch")
        own = np.zeros(P_WORDS, np.int64)
        own[[P_MM, P_STORE, P_NODE]] = system.mm.address, self.pghot.arrays.address, self.node
        own[[P_FOLD, P_HZ, P_SLEEP]] = system.fold, system.machine.hz, system.timer_jiffies(SLEEP_MS)
        own[P_ASLEEP_FROM] = -1
        self._own = own.data
        self.thread = system.kernel_thread("kpromoted", self.pghot.kpromoted_turn, COSTS, [own, self.pghot.rules])
        self.pghot.waiting.append(self)

    def kick(self) -> None:
        """The heap is no longer empty: be there at the next of the wakes that were slept through."""
        own, since = self._own, self._own[P_ASLEEP_FROM]
        if since < 0:
            return
        period_ps = self.system.timer_ms(SLEEP_MS) * 1_000_000_000
        missed = max(0, self.system.now_ps - since) // period_ps + 1
        self.system.wake_kernel_thread(self.thread, since + missed * period_ps)
        own[P_WAKES] += max(0, missed - 1)
        own[P_ASLEEP_FROM] = -1

    def bound(self) -> dict[str, float]:
        """Share of wakes whose batch was full."""
        name = "kpromoted" if self.node == self.system.default_target else f"kpromoted{self.node}"
        wakes, full = self._own[P_WAKES], self._own[P_FULL]
        return {name: full / wakes if wakes else 0.0}
