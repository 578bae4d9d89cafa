"""The scan period of NUMA balancing: its bounds, and how the faults of a sweep change it.

Sources: task_nr_scan_windows, task_scan_min, task_scan_max, update_task_scan_period, task_numa_placement
(kernel/sched/fair.c, 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SCAN_WINDOW_MB = 2560  # a task never scans faster than 2560 MB a second
SLOTS, THRESHOLD = 10, 7  # NUMA_PERIOD_SLOTS, NUMA_PERIOD_THRESHOLD


@dataclass(frozen=True)
class Faults:
    """Accounted hint faults, pages: by place (`failed`: migrations that did not succeed),
    and by who had the page's last one.
    """

    remote: int = 0
    local: int = 0
    failed: int = 0
    private: int = 0
    shared: int = 0


def scan_bounds(rss_mb: int, size_mb: int, shortest_ms: int, longest_ms: int) -> tuple[int, int]:
    """task_scan_min, task_scan_max in ms: a sweep of the resident set takes shortest .. longest,
    but a scan at least its floor (100 ms).
    """
    windows = rss_mb // size_mb + 1  # text, stack and libraries make it a little more than the mapping
    floor = 1000 // (MAX_SCAN_WINDOW_MB // size_mb) if size_mb < MAX_SCAN_WINDOW_MB else 1000
    least = max(floor, shortest_ms // windows)
    return least, max(least, longest_ms // windows)


class ScanPeriod:
    """numa_scan_period of a tenant's threads, which are equal, and its upper bound, which sharing stretches."""

    def __init__(self, least_ms: int, longest_ms: int, threads: int, first_ms: int | None = None) -> None:
        self.least_ms, self.base_ms, self.threads = least_ms, longest_ms, threads
        self.ms = least_ms if first_ms is None else first_ms
        self._private = self._shared = 0.0

    @property
    def longest_ms(self) -> int:
        """task_scan_max: times the threads of the numa_group and the share of shared faults, once there are any.

        All threads of a process join one group at their first shared fault.
        """
        if self._shared == 0:
            return self.base_ms
        share = (self._shared + 1) / (self._private + self._shared + 1)
        return max(self.base_ms, int(self.base_ms * self.threads * share))

    def update(self, faults: Faults) -> bool:
        """A sweep's faults change the period; True if it was doubled, which pushes out the next scan too.

        No local or shared fault, or any failed migration: twice as long. Mostly private, or mostly local: longer by a
        tenth of itself for each tenth above seven (at least one). Else shorter by a tenth for each tenth below.
        """
        self._private, self._shared = self._private / 2 + faults.private, self._shared / 2 + faults.shared
        if faults.local + faults.shared == 0 or faults.failed:
            self.ms = min(self.longest_ms, 2 * self.ms)
            return True
        local = faults.local * SLOTS // max(1, faults.local + faults.remote)
        private = faults.private * SLOTS // max(1, faults.private + faults.shared)
        slot = -(-self.ms // SLOTS)
        if private >= THRESHOLD:
            change = max(1, private - THRESHOLD) * slot
        elif local >= THRESHOLD:
            change = max(1, local - THRESHOLD) * slot
        else:
            change = -(THRESHOLD - max(local, private)) * slot
        self.ms = min(max(self.ms + change, self.least_ms), self.longest_ms)
        return False
