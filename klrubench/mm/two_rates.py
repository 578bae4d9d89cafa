"""What three passes in a row say of a memcg: how fast its hot and its cold pages are touched, and how many are hot.

An accessed bit is set within a gap d with probability p = 1 - e^(-rate d). The shares of pages young in one pass, in
two in a row and in three are the first three moments of p over the memcg's pages; the two values of p that have the
same moments, and their weights, stand for its hot and its cold pages (Gauss quadrature with two nodes). Real pages have
many rates: the two then lie where the mass is, as seen through that gap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.bits import GEN_MASK, NODE_MASK
from klrubench.mm.folio import folios_of
from klrubench.mm.state import TIER, VMA_END, VMA_MEMCG, VMA_START

if TYPE_CHECKING:
    from klrubench.simulate import System

PASSES = 3
SURE = 3.0  # standard errors by which the spread of p must be beyond chance


class Rates(NamedTuple):
    """Touches a page and second of a memcg's hot and cold pages on the lower tiers, and how many pages are hot."""

    hot_per_s: float
    cold_per_s: float
    hot_pages: float

    def best_gap_ms(self) -> float:
        """The gap at which one accessed bit separates them best: ln(hot / cold) / (hot - cold); 1 / rate if equal."""
        hot, cold = self.hot_per_s, self.cold_per_s
        return 1000 / hot if hot - cold < 1e-6 * hot else 1000 * math.log(hot / cold) / (hot - cold)

    def paid_ms(self, spent_ms: float, saved_ns: float) -> float:
        """How long the hot pages must be on the top tier, in place of cold ones, to save what was spent.

        Args:
            spent_ms: time spent.
            saved_ns: what a touch on the top tier saves. Misses in flight beside it make it less, which no bit tells.
        """
        return spent_ms / (self.hot_pages * (self.hot_per_s - self.cold_per_s) * saved_ns / 1e9)


def two_rates(once: float, twice: float, thrice: float, pages: int, gap_s: float) -> Rates | None:
    """The rates behind the shares of `pages` young in one, two and three passes `gap_s` apart; None: all look alike."""
    spread = twice - once * once
    if pages == 0 or spread <= SURE * max(once * (1 - once), 0.5 / pages) / math.sqrt(2 * pages):  # two pairs of passes
        return None
    middle = (thrice - once * twice) / spread / 2  # of the two values of p, whose product is
    product = (once * thrice - twice * twice) / spread
    half = math.sqrt(max(0.0, middle * middle - product))
    least = 0.5 / pages  # keeps rates finite
    hot, cold = (min(max(p, least), 1 - least) for p in (middle + half, middle - half))
    if hot <= cold:
        return None
    share = min(max((once - cold) / (hot - cold), least), 1.0)
    return Rates(-math.log1p(-hot) / gap_s, -math.log1p(-cold) / gap_s, share * pages)


class TwoRates:
    """Remembers what the last passes over each memcg have found young.

    The kernel needs no memory for that: the PTEs visited are counted by the walk, and under a window of less than two
    gaps the records of pghot that reach one, two and three sightings are those young in as many passes in a row.

    Attributes:
        saved_ns: what a touch saves on the top tier: idle latency of the nearest lower node less that of the nearest
            top node, as HMAT tells a kernel.
    """

    metadata_bytes = 0

    def attach(self, system: System) -> None:
        """Nothing has been seen yet."""
        vma, self.mm, self.fold = system.mm.vma, system.mm, system.fold
        self.lower = np.zeros(NODE_MASK + 1, bool)
        self.lower[: len(system.mm.node)] = system.mm.node[:, TIER] > 0
        machine, home = system.machine, system.machine.cpu_nodes[0]
        near, far = (
            min((machine.nodes[node].read_ns[home] for node in nodes), default=0.0)
            for nodes in (machine.top_nodes, machine.lower_nodes)
        )
        self.saved_ns = max(1.0, far - near)
        rows = [vma[vma[:, VMA_MEMCG] == memcg] for memcg in range(len(system.memcgs))]
        self.span = [slice(int(row[:, VMA_START].min()), int(row[:, VMA_END].max())) for row in rows]
        self.folio = [folios_of(self.mm, np.arange(span.start, span.stop)) for span in self.span]
        self.young: list[list[np.ndarray]] = [[] for _ in rows]
        self.below: list[list[np.ndarray]] = [[] for _ in rows]
        self.gaps_s: list[list[float]] = [[] for _ in rows]

    def begin_pass(self, memcg: int, gap_ms: float) -> None:
        """A pass over a memcg begins, `gap_ms` after the one before."""
        span, mm = self.span[memcg], self.mm
        below = self.lower[mm.pte[span] & NODE_MASK] & ((mm.folio[self.folio[memcg]] & GEN_MASK) != 0)
        young = np.zeros(len(below), bool)
        self.young[memcg] = [*self.young[memcg][1 - PASSES :], young]
        self.below[memcg] = [*self.below[memcg][1 - PASSES :], below]
        self.gaps_s[memcg] = [*self.gaps_s[memcg][1 - PASSES :], gap_ms / 1000]

    def add(self, memcg: int, pages: np.ndarray) -> None:
        """Page ids that the pass has found young."""
        self.young[memcg][-1][pages.astype(np.int64) - self.span[memcg].start] = True

    def take(self, memcg: int) -> Rates | None:
        """The rates behind the last `PASSES` passes, which are forgotten; None: too few, or all pages look alike.

        Asked are the leaves that lay on the lower tiers when the first of them began; one that left counts as young.
        """
        young, below, gaps_s = self.young[memcg], self.below[memcg], self.gaps_s[memcg]
        self.young[memcg], self.below[memcg], self.gaps_s[memcg] = [], [], []
        if len(gaps_s) < PASSES:
            return None
        asked = below[0]
        first, second, third = ((now | ~there) & asked for now, there in zip(young, below, strict=True))
        pages = max(1, int(np.count_nonzero(asked)))
        once = float(sum(np.count_nonzero(each) for each in (first, second, third))) / 3 / pages
        twice = float(np.count_nonzero(first & second) + np.count_nonzero(second & third)) / 2 / pages
        thrice = float(np.count_nonzero(first & second & third)) / pages
        found = two_rates(once, twice, thrice, pages, sum(gaps_s) / PASSES)
        return found and found._replace(hot_pages=found.hot_pages * self.fold)
