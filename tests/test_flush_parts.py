"""A flush takes the time of its records: others run while it lasts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from klrubench.mm import Kpromoted, Pghot, mglru
from klrubench.policy import Policy
from klrubench.simulate.system import System
from klrubench.validation.emulated import start

PAGES, BATCH = 65_536, 20_000  # of the hotset program: all lie on the slow node, all are young at the first pass


class OnePass(Policy):
    """One pass over fresh memory that records each page twice, with what each step of the walk gave and when."""

    def __init__(self, walked: Any, threshold: int = 2) -> None:
        super().__init__()
        self.walked, self.threshold = walked, threshold

    def start(self, system: System) -> None:
        self.store = system.add(Pghot(threshold=self.threshold))
        system.add(Kpromoted(self.store))
        self.steps: list[tuple[float, np.ndarray | None, int]] = []
        system.daemon("walker", self.scan)

    def scan(self, system: System) -> Iterator[Any]:
        lruvec = next(iter(system.lruvecs(tier="lower")))
        for pages in self.walked(system, lruvec, BATCH, mglru.WalkObject("clean")):
            promoted = int((system.mm.pte & 3 == 0).sum())
            self.steps.append((system.now_ms, None if pages is None else pages.copy(), promoted))
            if pages is not None:
                for _sighting in range(2):
                    self.store.record(pages, source="pgtable_scan")
            yield


def steps_of(walked: Any, fold: int = 1, threshold: int = 9) -> list[tuple[float, np.ndarray | None, int]]:
    policy = OnePass(walked, threshold)
    start(policy, duration_s=3, fold=fold).run()
    return policy.steps


@pytest.mark.parametrize("fold", [1, 4])
def test_parts_are_the_flush_in_its_order(fold: int) -> None:
    whole = [pages for _, pages, _ in steps_of(mglru.flushes, fold) if pages is not None]
    parts = [pages for _, pages, _ in steps_of(mglru.walk, fold) if pages is not None]
    assert [len(pages) for pages in whole] == [BATCH // fold] * 3 + [(PAGES - 3 * BATCH) // fold]
    assert np.array_equal(np.concatenate(whole), np.concatenate(parts))
    lengths = [min(mglru.FLUSH_PART // fold, len(pages) - first) for pages in whole
               for first in range(0, len(pages), mglru.FLUSH_PART // fold)]  # fmt: skip
    assert [len(pages) for pages in parts] == lengths


def test_the_time_of_the_walk_passes_before_a_flush_and_that_of_records_within_it() -> None:
    steps = steps_of(mglru.walk)
    times = [now_ms for now_ms, pages, _ in steps if pages is not None and len(pages)]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    begins = [
        before[1]
        for before, step in itertools.pairwise(steps)
        if step[1] is not None and not (before[1] is not None and len(before[1]) == mglru.FLUSH_PART)
    ]
    assert begins == [None] * (PAGES // BATCH + 1)


def test_kpromoted_works_while_a_flush_lasts() -> None:
    """Pages that are hot at once: some of the first batch are promoted before its last part is recorded."""
    seen = [promoted for _, pages, promoted in steps_of(mglru.walk, threshold=2) if pages is not None]
    in_first_flush = seen[: -(-BATCH // mglru.FLUSH_PART)]
    assert in_first_flush[0] == 0 < in_first_flush[-1]
