"""DAMON's feedback loops: the quota that follows a goal, the intervals that follow a share of accesses.

Sources: damon_feed_loop_next_input, kdamond_tune_intervals, damon_get_intervals_score (mm/damon/core.c, 6.15+).
"""

from __future__ import annotations

from dataclasses import dataclass

GOAL = 10_000
LEAST_INPUT = 10_000
ULONG_MAX = (1 << 64) - 1


def next_input(last: int, score: int) -> int:
    """damon_feed_loop_next_input: last * (1 + (goal - score) / goal), at least 10000;
    a score of twice the goal goes to that at once.
    """
    if score == GOAL:
        return last
    if score >= 2 * GOAL:
        return LEAST_INPUT
    change = last * abs(GOAL - score) // GOAL
    if score > GOAL:
        return max(last - change, LEAST_INPUT)
    return min(last + change, ULONG_MAX)


@dataclass
class Intervals:
    """Sampling and aggregation interval of a context, and the goal that tunes them.

    Attributes:
        sample_us: sampling interval; samples: of them an aggregation (constant).
        access_bp: share of checks that should find an access, of 10,000; 0 turns the tuning off.
        aggregations: between two adjustments. least_us, most_us: bounds of the sampling interval.
    """

    sample_us: int = 5000
    samples: int = 20
    access_bp: int = 400
    aggregations: int = 3
    least_us: int = 5000
    most_us: int = 10_000_000

    @property
    def aggregation_us(self) -> int:
        """Aggregation interval."""
        return self.sample_us * self.samples

    def tuned(self, accesses: int, pages: int) -> int | None:
        """The next sampling interval (us), or None if it is just right.

        Args:
            accesses: sum over regions of size * count of the last aggregation. pages: sum of sizes.
        """
        target = pages * self.samples * self.access_bp // GOAL or 1
        adaptation_bp = next_input(100_000_000, accesses * GOAL // target) // 10_000
        if adaptation_bp <= GOAL:
            adaptation_bp = 5000 + adaptation_bp // 2
        if adaptation_bp == GOAL:
            return None
        return max(self.least_us, min(self.most_us, self.sample_us * adaptation_bp // GOAL))
