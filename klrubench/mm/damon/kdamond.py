"""kdamond: the thread of one DAMON context that monitors the physical memory of a node and applies a scheme to it.

Source: kdamond_fn, damon_set_attrs (mm/damon/core.c, 6.16-6.18). One wake a sampling interval; what falls due at an
aggregation (merge, apply, tune, reset, split) runs in the kernel's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.random import stream_key
from klrubench.mm.damon.damos import Scheme
from klrubench.mm.damon.regions import (
    AGE,
    END,
    NR_ACCESSES,
    REGION_BYTES,
    START,
    merge_regions,
    new_regions,
    pieces_of,
    reset_aggregated,
    split_regions,
)  # fmt: skip
from klrubench.mm.damon.sampling import Sampling, node_space
from klrubench.mm.damon.tuning import Intervals

if TYPE_CHECKING:
    from klrubench.simulate import System

HRTIMER_TICKS = (
    256  # sleeps of fewer ticks are exact (USLEEP_RANGE_UPPER_BOUND, 6.13+); longer ones go by the timer wheel
)


class Kdamond:
    """A context and its thread.

    Args:
        node: whose memory is monitored. scheme: applied to its regions (None: monitoring only).
        intervals: sampling and aggregation, with their goal. min_regions, max_regions: bounds of their number.
        restart_apply: a change of the intervals puts the scheme off by its whole apply interval, as damon_set_attrs
            does (also where the new intervals are the old ones).
    """

    def __init__(
        self,
        node: int,
        scheme: Scheme | None,
        intervals: Intervals,
        min_regions: int = 10,
        max_regions: int = 1000,
        restart_apply: bool = True,
    ) -> None:
        self.node, self.scheme, self.intervals = node, scheme, intervals
        self.min_regions, self.max_regions, self.restart_apply = min_regions, max_regions, restart_apply
        self.metadata_bytes = 0

    def attach(self, system: System) -> None:
        """Lay out the regions, start the thread at a random phase of its sampling interval."""
        self.system = system
        self.space = node_space(system.mm, self.node)
        self.table, self.n = new_regions(self.space.pages, self.min_regions, self.max_regions)
        self.size_limit = max(1, self.space.pages // self.min_regions)
        self.rng = np.array([stream_key(system.seed, f"DAMON of node {self.node}"), 0], np.uint64)
        self.sampling = Sampling(system.mm, self.space, self.table, self.rng)
        self.passed = self.aggregated = self.last_n = 0
        self.next_aggregation = self.intervals.samples
        self.next_tune = self.next_aggregation * self.intervals.aggregations
        if self.scheme is not None:
            self.scheme.set_next_apply(0, self.intervals.sample_us)
        self.metadata_bytes = self.n * REGION_BYTES
        system.daemon(f"kdamond.{self.node}", self.run, phase_ms=self.intervals.sample_us / 1000)

    @property
    def passed_since_reset(self) -> int:
        """Sampling intervals since counts were reset, for the moving sum."""
        return min(self.passed - self.aggregated, self.intervals.samples)

    def nap(self) -> Any:
        """kdamond_usleep of a sampling interval."""
        us = self.intervals.sample_us
        if us * self.system.machine.hz < HRTIMER_TICKS * 1_000_000:
            return self.system.sleep_us(us)
        return self.system.sleep_ms(us / 1000)

    def run(self, system: System) -> Iterator[Any]:
        """The thread."""
        step, charge = self.sampling.step, system.charge_full
        step(self.n, check=False)
        charge(idle_set=self.n)
        while True:
            yield self.nap()
            self.passed += 1
            applies = self.scheme is not None and self.passed >= self.scheme.next_apply
            if self.passed < self.next_aggregation and not applies:
                step(self.n)
                charge(idle_check=self.n, idle_set=self.n)
                continue
            most = step(self.n, prepare=False)
            charge(idle_check=self.n)
            ends = self.passed >= self.next_aggregation
            if ends:
                self.n = merge_regions(
                    self.table, self.n, most // 10, self.size_limit, self.max_regions, self.intervals.samples
                )
            if applies and self.scheme is not None:
                yield from self.scheme.apply(system, self)
                self.scheme.set_next_apply(self.passed, self.intervals.sample_us)
            if ends:
                self.aggregate()
            step(self.n, check=False)
            charge(idle_set=self.n)

    def aggregate(self) -> None:
        """The end of an aggregation: tune the intervals if that is due, reset the counts, split."""
        if self.intervals.access_bp and self.passed >= self.next_tune:
            self.next_tune += self.intervals.samples * self.intervals.aggregations
            self.tune()
        self.next_aggregation += self.intervals.samples
        self.aggregated = self.passed
        reset_aggregated(self.table, self.n)
        pieces = pieces_of(self.n, self.last_n, self.max_regions)
        if pieces > 1:
            self.last_n = self.n
            self.n = split_regions(self.table, self.n, pieces, self.rng)
        self.metadata_bytes = max(self.metadata_bytes, self.n * REGION_BYTES)

    def tune(self) -> None:
        """kdamond_tune_intervals: ages keep their meaning in seconds."""
        r, n = self.table, self.n
        size = r[END, :n] - r[START, :n]
        us = self.intervals.tuned(int((size * r[NR_ACCESSES, :n]).sum()), int(size.sum()))
        if us is None:
            return
        old = self.intervals.aggregation_us
        self.intervals.sample_us = us
        r[AGE, :n] = r[AGE, :n] * old // self.intervals.aggregation_us
        if self.scheme is not None and self.restart_apply:
            self.scheme.set_next_apply(self.passed, us)

    def bound(self) -> dict[str, float]:
        """Share of the scheme's applications that ended because its quota was used up."""
        if self.scheme is None or not self.scheme.applied:
            return {}
        return {f"quota of kdamond.{self.node}": self.scheme.exceeded / self.scheme.applied}
