"""Where the pages lay that were worth a place in DRAM, from one window of the truth to the next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.bits import NODE_MASK
from klrubench.mm.state import TIER, VMA_END, VMA_ORDER, VMA_START
from klrubench.simulate.truth import window_counts

if TYPE_CHECKING:
    from klrubench.simulate.system import System


class Residency:
    """Looks at every page's node at the bounds of the truth's windows (about 10 s each) and compares.

    What moves up and down again inside one window is not seen here; `promoted_again` counts it.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.counts = window_counts(system)
        self.real = np.zeros(len(system.mm.pte), bool)
        self.size = np.zeros(len(system.mm.pte), np.int64)  # 4 KiB pages a leaf, 0 where an id stands for nothing
        for first, last, order in system.mm.vma[:, [VMA_START, VMA_END, VMA_ORDER]]:
            self.real[first:last], self.size[first:last] = True, 1 << order
        self.before = self.on_top()
        self.ever, self.entered = self.before.copy(), np.zeros(len(self.real), bool)
        self.found: dict[str, float] = dict.fromkeys(
            ("misses", "best", "held", "came", "lost", "stayed", "entered_pages", "untouched_pages",
             "below_median_pages", "gone_pages"), 0.0,
        )  # fmt: skip
        feed = system.tenants[0].feed
        for index in range(1, feed.windows()):
            system.at_touch(feed.window_start(index), partial(self.end_window, index - 1))

    def on_top(self) -> np.ndarray:
        """bool a page: on the top tier now."""
        mm = self.system.mm
        return np.asarray((mm.node[mm.pte & NODE_MASK, TIER] == 0) & self.real)

    def end_window(self, index: int) -> None:
        """Account the window that ends now."""
        now, counts, found = self.on_top(), self.counts[index], self.found
        best = ((self.system.mm.best >> np.uint32(index)) & np.uint32(1) == 1) & self.real
        found["misses"] += float(counts.sum())
        found["best"] += float(counts[best].sum())
        for name, part in (
            ("held", self.before & now), ("came", ~self.before & now),
            ("lost", self.before & ~now), ("stayed", ~self.before & ~now),
        ):  # fmt: skip
            found[name] += float(counts[best & part].sum())
        if index:
            median = float(np.median(counts[self.real]))
            for name, part in (
                ("entered_pages", self.entered), ("untouched_pages", self.entered & (counts == 0)),
                ("below_median_pages", self.entered & ((counts == 0) | (counts < median))),
                ("gone_pages", self.entered & ~now),
            ):  # fmt: skip
                found[name] += float(self.size[part].sum())
        self.entered = ~self.before & now
        self.ever |= now
        self.before = now

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
        found: dict[str, Any] = {name: value * self.system.fold for name, value in self.found.items()}
        feed = self.system.tenants[0].feed
        found["window_s"] = feed.layout.duration_s / feed.windows()
        found["last_best_pages"] = float(self.size[best].sum()) * self.system.fold
        found["last_never_pages"] = float(self.size[best & ~self.ever].sum()) * self.system.fold
        return found
