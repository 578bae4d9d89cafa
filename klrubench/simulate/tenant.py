"""One address space, its threads and its stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from klrubench.engine.access import CLOCK, TENANT_WORDS, TOUCH
from klrubench.engine.kthread import PS_PER_MS

if TYPE_CHECKING:
    from klrubench.simulate.feed import Feed
    from klrubench.simulate.system import System
    from klrubench.simulate.timing import Timing
    from klrubench.workload import Workload


@dataclass(eq=False)
class Tenant:
    """One address space and its threads, in a memcg called `name`."""

    index: int
    name: str
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
    _stalled_ps: dict[str, int] = field(default_factory=dict)

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
    def stalled_ps(self) -> dict[str, int]:
        """Time that its threads stood still, by what for."""
        self.system._collect()
        return self._stalled_ps

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
        clock = (
            int(self.system.state[self.index, CLOCK])
            if self.finished
            else max(int(self.system.state[self.index, CLOCK]), self.system.now_ps)
        )
        return (clock - self.slept_ps) / PS_PER_MS

    def touch_at_s(self, seconds: float) -> int:
        """Touches made in so many seconds on an unloaded all-DRAM machine, sleep included."""
        layout, busy_s = self.feed.layout, self.workload.busy_s
        if not self.busy_touches:
            return min(self.accesses, layout.touch_at_s(seconds))
        cycles, rest = divmod(seconds, busy_s + self.workload.idle_s)
        return min(self.accesses, int(self.busy_touches * (cycles + min(1.0, rest / busy_s))))

    def second_of(self, touch: int) -> float:
        """The second at which an unloaded all-DRAM machine makes that touch: `touch_at_s` the other way round."""
        layout = self.feed.layout
        if not self.busy_touches:
            return touch * layout.duration_s / layout.accesses
        cycles, rest = divmod(touch, self.busy_touches)
        return cycles * (self.workload.busy_s + self.workload.idle_s) + self.workload.busy_s * rest / self.busy_touches

    def rss_mb(self) -> int:
        """Resident set in MiB, full size."""
        return -(-self.workload.full_pages() // 256)
