"""One address space, its threads and its stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from klrubench.engine.access import CLOCK, TENANT_WORDS, TOUCH
from klrubench.simulate.scheduler import PS_PER_MS

if TYPE_CHECKING:
    from klrubench.simulate.feed import Feed
    from klrubench.simulate.system import System
    from klrubench.simulate.timing import Timing
    from klrubench.workload import Workload


@dataclass
class Tenant:
    """One address space and its threads."""

    index: int
    workload: Workload
    timing: Timing
    feed: Feed
    first_page: int
    pages: int
    system: System
    slept_ps: int = 0
    asleep_until_ps: int = 0
    busy_touches: int = 0
    idle_ps: int = 0
    used: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.accesses = self.feed.layout.accesses

    @property
    def threads(self) -> int:
        """Busy threads."""
        return self.timing.threads

    @property
    def touches(self) -> int:
        """Touches served so far."""
        return self.system._words[self.index * TENANT_WORDS + TOUCH]

    @property
    def finished(self) -> bool:
        """Whether the fixed work is done."""
        return self.system._words[self.index * TENANT_WORDS + TOUCH] >= self.accesses

    @property
    def running(self) -> bool:
        """Whether its threads have work and are awake."""
        return not self.finished and self.system.now_ps >= self.asleep_until_ps

    def runtime_ms(self) -> float:
        """CPU time that each thread has had, ms (waiting for memory is CPU time; sleep is not)."""
        clock = int(self.system.state[self.index, CLOCK]) if self.finished else max(int(self.system.state[self.index, CLOCK]), self.system.now_ps)
        return (clock - self.slept_ps) / PS_PER_MS

    def rss_mb(self) -> int:
        """Resident set in MiB, full size."""
        return -(-self.workload.full_pages() // 256)
