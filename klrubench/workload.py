"""What a workload is: an address space, a stream of touches, and the timing that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from klrubench.params import Parameterised, param

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Layout", "Stream", "Vma", "Workload", "param"]

PAGES_PER_GIB = 1 << 18
# sizes of anonymous folios (/sys/kernel/mm/transparent_hugepage/hugepages-*kB; there is none of order 1)
PAGE_ORDERS = {
    "4k": 0, "16k": 2, "32k": 3, "64k": 4, "128k": 5, "256k": 6, "512k": 7, "1m": 8, "2m": 9,
}  # fmt: skip
HUGE_ORDER = PAGE_ORDERS["2m"]  # a PMD maps it


class Stream(Protocol):
    """A seekable stream of touches. Each u32: bit 31 write, bit 30 served by the CPU cache, 30 bits of 4 KiB page."""

    def fill(self, out: np.ndarray, first: int) -> None:
        """Write touches number `first`, `first + 1`, ... into `out` (u32): a pure function of the number."""
        ...


@dataclass(frozen=True)
class Vma:
    """A mapping: `pages` 4 KiB pages, anonymous or file, from the next multiple of 2 MiB."""

    pages: int
    file: bool = False


@dataclass(frozen=True)
class Layout:
    """What a workload needs to know to make its stream.

    Attributes:
        full_pages: 4 KiB pages of the full-size footprint.
        pages: simulated 4 KiB pages; touches name pages 0 .. pages - 1.
        fold: full-size pages that share a simulated one (1/scale, a power of two).
        seed: 64-bit seed of the run.
        accesses: simulated touches in the run.
        duration_s: seconds those touches take on an unloaded all-DRAM machine.
    """

    full_pages: int
    pages: int
    fold: int
    seed: int
    accesses: int
    duration_s: float

    def touch_at_s(self, seconds: float) -> int:
        """The touch number that an unloaded all-DRAM run reaches after `seconds`."""
        return round(self.accesses * seconds / self.duration_s)


class Workload(Parameterised):
    """Base class of workloads: the parameters that all share, and what a subclass fills in.

    Timing: `rate` touches a page and second on an unloaded all-DRAM machine sets the compute time between two cache
    misses; `rate=0` takes `compute_ns` as given and lets the rate follow (closed loop). If `rate` needs less time a
    miss than the memory itself takes, threads are added and the output says so.

    Class attributes:
        source: where the workload's definition comes from.
        control: a negative control (left out of medians over workloads).
        seeds_change: what a seed changes, for the table's footnote.
        memcg: name of the memory cgroup that it shares with other tenants (an instance may set it); empty: one of its
            own.
        scattered: its pages lie in random order, so that every starting page of the initialisation is as good as
            another.
        calibration: published all-lower-tier slowdown this is set to, with its source.
    """

    kind: ClassVar[str] = "workload"
    source: ClassVar[str] = ""
    control: ClassVar[bool] = False
    seeds_change: ClassVar[str] = "stream, page order, daemon phases"
    calibration: ClassVar[str] = ""
    scattered: ClassVar[bool] = False
    memcg: str = ""

    footprint_gib: float = param(32.0, low=0.01, high=65536, log=True, help="memory of the program", unit="GiB")
    rate: float = param(2.0, low=0, high=10_000, log=True, help="touches a page and second, all-DRAM; 0: closed loop")
    compute_ns: float = param(300.0, low=0, high=1e6, log=True, help="compute a cache miss (used when rate=0)")
    threads: int = param(6, low=1, high=1024, help="busy threads, one a CPU")
    mlp: float = param(2.0, low=1, high=64, help="misses in flight a thread")
    touches: int = param(8, low=1, high=512, help="touches an operation (for op latency)")
    read_share: float = param(0.95, low=0, high=1, help="share of touches that read")
    placement: str = param(
        "first_touch", choices=("first_touch", "lower", "hot_on_lower", "random"), help="where pages are at the start"
    )
    page: str = param("4k", choices=tuple(PAGE_ORDERS), help="folios of its memory; 16k to 1m (mTHP): mapped by PTEs")
    open_loop: bool = param(False, help="touches arrive at `rate` whatever the memory does")
    busy_s: float = param(0.0, low=0, high=3600, help="duty cycle: seconds of work, then idle_s of sleep; 0: always")
    idle_s: float = param(0.0, low=0, high=3600, help="duty cycle: seconds asleep")
    small_vmas: int = param(
        7,
        low=0,
        high=4096,
        help="small writable mappings above the large one, each a NUMA-balancing scan of its own in later sweeps",
        origin="our count in /proc/PID/maps: 7 dynamically linked C, 4 static PIE, 2 static",
    )

    def stream(self, layout: Layout) -> Stream:
        """The touches of this workload on that layout."""
        raise TypeError(f"workload {self.name()} defines no stream()")

    def vmas(self, layout: Layout) -> list[Vma]:
        """The mappings, in address order; together they have `layout.pages` pages."""
        return [Vma(layout.pages)]

    def init_order(self, layout: Layout) -> np.ndarray | None:
        """The order in which the program first touches its pages before access 0 (`None`: address order)."""
        return None

    def full_pages(self) -> int:
        """4 KiB pages of the full-size footprint."""
        return max(512, round(self.footprint_gib * PAGES_PER_GIB))

    def order(self) -> int:
        """log2 of the 4 KiB pages of its folios."""
        return PAGE_ORDERS[self.page]

    def content(self) -> Any:
        """Bytes-like or text that identifies outside input (a trace's digest); part of the run's identity."""
        return ""

    def notes(self, layout: Layout) -> list[str]:
        """Facts that a table with this workload must say (a trace's stretch, say)."""
        return []

    def tenants(self) -> list[Workload]:
        """The address spaces that run side by side, each a workload of its own."""
        return [self]
