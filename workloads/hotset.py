"""Three classes of pages, hot, warm and cold: the program that a real kernel was watched with."""

from __future__ import annotations

import numpy as np

from klrubench.generate import Part, RangeStream, scattered
from klrubench.workload import Layout, Stream, Workload, param

PAGE_SHARES = (1 / 16, 3 / 16, 12 / 16)
TOUCH_SHARES = (0.80, 0.15, 0.05)  # hot, warm, cold


class Hotset(Workload):
    """65,536 pages, all on the lower tier: 1/16 of them take 80 % of the loads, 3/16 take 15 %, 12/16 take 5 %.

    One thread, 48.8 k loads a second (one per 20 us slot, less what faults take), uniform within a class, the classes
    shuffled over the mapping. Hot pages are loaded 9.5 times a second, warm ones 0.6, cold ones 0.05.
    """

    source = "run under Linux 6.12, 6.18 and 6.17 + klruscand RFC v2, in an emulated machine of 2 ns an instruction"

    footprint_gib: float = param(0.25, low=0.01, high=65536, log=True, help="memory of the program", unit="GiB")
    rate: float = param(48_800 / 65_536, low=0, high=10_000, log=True, help="touches a page and second; 0: closed loop")
    threads: int = param(1, low=1, high=1024, help="busy threads, one a CPU")
    mlp: float = param(1.0, low=1, high=64, help="misses in flight a thread")
    touches: int = param(1, low=1, high=512, help="touches an operation (for op latency)")
    read_share: float = param(1.0, low=0, high=1, help="share of touches that read")
    placement: str = param(
        "lower", choices=("first_touch", "lower", "hot_on_lower", "random"), help="where pages are at the start"
    )

    open_loop: bool = param(True, help="loads come in 20 us slots, whatever the memory does")

    def stream(self, layout: Layout) -> Stream:
        """Choose a class by its share, then a page of it, all alike."""
        parts = [Part(*part, self.read_share) for part in zip(TOUCH_SHARES, *class_ranges(layout), strict=True)]
        return RangeStream(layout, parts, scattered(layout))

    def class_of(self, layout: Layout) -> np.ndarray:
        """The class of each page, u8[pages]: 0 hot, 1 warm, 2 cold."""
        classes = np.empty(layout.pages, np.uint8)
        classes[scattered(layout).permutation()] = np.repeat(np.arange(3, dtype=np.uint8), class_ranges(layout)[1])
        return classes


def class_ranges(layout: Layout) -> tuple[list[int], list[int]]:
    """First number and size of each class, before the pages are shuffled."""
    ends = [round(layout.pages * share) for share in np.cumsum(PAGE_SHARES)]
    first = [0, *ends[:-1]]
    return first, [end - start for start, end in zip(first, ends, strict=True)]
