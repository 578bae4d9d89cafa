"""Where the pages lay that were worth a place in DRAM, from one window of the truth to the next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import NODE_MASK
from klrubench.engine.jit import njit
from klrubench.mm.state import TIER, VMA_END, VMA_LEAF_ORDER, VMA_START
from klrubench.simulate.truth import window_counts

if TYPE_CHECKING:
    from klrubench.simulate.system import System


SUMS = (
    "misses", "best", "held", "came", "lost", "stayed", "entered_pages", "untouched_pages", "below_median_pages",
    "gone_pages",
)  # fmt: skip
MISSES, BEST, HELD, CAME, LOST, STAYED, ENTERED, UNTOUCHED, BELOW_MEDIAN, GONE = range(len(SUMS))


@njit
def account_window(
    pte: np.ndarray,
    top: np.ndarray,
    real: np.ndarray,
    size: np.ndarray,
    counts: np.ndarray,
    best: np.ndarray,
    index: int,
    median: float,
    before: np.ndarray,
    entered: np.ndarray,
    ever: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add a window to `sums` (i64, by `SUMS`) and bring `before`, `entered` and `ever` (bool a page) up to date.

    Args:
        top: bool a node, on the top tier. real, size, counts, best: a page; bit `index` of `best` is for this window.
        median: of the counts of all pages.
    """
    for page in range(len(pte)):
        if not real[page]:
            continue
        now, was, count = top[pte[page] & np.uint8(NODE_MASK)], before[page], np.int64(counts[page])
        sums[MISSES] += count
        if (best[page] >> np.uint32(index)) & np.uint32(1):
            sums[BEST] += count
            sums[(HELD if now else LOST) if was else (CAME if now else STAYED)] += count
        if entered[page]:
            sums[ENTERED] += size[page]
            sums[UNTOUCHED] += size[page] * (count == 0)
            sums[BELOW_MEDIAN] += size[page] * (count == 0 or count < median)
            sums[GONE] += size[page] * (not now)
        entered[page] = now and not was
        ever[page] = ever[page] or now
        before[page] = now


class Residency:
    """Looks at every page's node at the bounds of the truth's windows (about 10 s each) and compares.

    What moves up and down again inside one window is not seen here; `promoted_again` counts it.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.counts = window_counts(system)
        self.real = np.zeros(len(system.mm.pte), bool)
        self.size = np.zeros(len(system.mm.pte), np.int64)  # 4 KiB pages a leaf, 0 where an id stands for nothing
        for first, last, order in system.mm.vma[:, [VMA_START, VMA_END, VMA_LEAF_ORDER]]:
            self.real[first:last], self.size[first:last] = True, 1 << order
        self.before = self.on_top()
        self.ever, self.entered = self.before.copy(), np.zeros(len(self.real), bool)
        self.sums = np.zeros(len(SUMS), np.int64)
        feed = system.tenants[0].feed
        self.medians = feed.medians if len(system.tenants) == 1 else {}
        for index in range(1, feed.windows()):
            system.at_touch(feed.window_start(index), partial(self.end_window, index - 1))

    def on_top(self) -> np.ndarray:
        """bool a page: on the top tier now."""
        mm = self.system.mm
        return np.asarray((mm.node[mm.pte & NODE_MASK, TIER] == 0) & self.real)

    def end_window(self, index: int) -> None:
        """Account the window that ends now."""
        mm, counts = self.system.mm, self.counts[index]
        top = mm.node[:, TIER] == 0
        median = self.median(index) if self.entered.any() else 0.0
        account_window(
            mm.pte, top, self.real, self.size, counts, mm.best, index, median, self.before, self.entered, self.ever,
            self.sums,
        )  # fmt: skip

    def median(self, index: int) -> float:
        """Median of a window's counts; of a lone tenant it is looked up for all policies that run its stream."""
        if index not in self.medians:
            self.medians[index] = float(np.median(self.counts[index][self.real]))
        return self.medians[index]

    def result(self) -> dict[str, float]:
        """Sums over the run, full size.

        misses: touches that miss the CPU cache; best: those of them to pages that are among the best for DRAM in that
        window and the two after it. held, came, lost, stayed: `best` by where those pages lay at the window's start
        and end (DRAM both times; promoted in it; demoted in it; below both times). entered_pages: pages that came
        to DRAM in one window and were there at its end; untouched_, below_median_: those not touched in the next
        window, or (with those) less than the median page; gone_: those demoted again by its end. last_best_pages,
        last_never_pages: the best of the last window, and those of them that were in DRAM at no bound of a window.
        window_s: length of a window on an unloaded all-DRAM machine (not scaled).
        """
        last = self.system.tenants[0].feed.windows() - 1
        self.end_window(last)
        best = ((self.system.mm.best >> np.uint32(last)) & np.uint32(1) == 1) & self.real
        sums = zip(SUMS, self.sums.tolist(), strict=True)
        found: dict[str, Any] = {name: float(value) * self.system.fold for name, value in sums}
        feed = self.system.tenants[0].feed
        found["window_s"] = feed.layout.duration_s / feed.windows()
        found["last_best_pages"] = float(self.size[best].sum()) * self.system.fold
        found["last_never_pages"] = float(self.size[best & ~self.ever].sum()) * self.system.fold
        return found
