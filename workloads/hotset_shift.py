"""GUPS whose hot set moves during the run: how fast does a policy notice, and unlearn?"""

from __future__ import annotations

from klrubench.generate import PhaseStream, RangeStream, hot_set, scattered
from klrubench.workload import Layout, Stream, Workload, param


class HotsetShift(Workload):
    """90 % of the updates go to a hot set, of which a quarter cools down half-way while as many cold pages heat up."""

    source = "GUPS of HeMem (Raybuck et al., SOSP 2021), shift variant: a quarter of the hot set moves at 150 of 250 s"

    hot: float = param(20.0, low=0.1, high=100, log=True, help="hot set, of the footprint", unit="%")
    shift: float = param(25.0, low=0, high=100, help="part of the hot set that is replaced", unit="%", origin="HeMem")
    at: float = param(0.5, low=0, high=1, help="when, as a share of the run's touches")
    hot_pages: str = param(
        "scattered", choices=("scattered", "contiguous"), help="where hot pages lie", origin="HeMem: contiguous"
    )
    mlp: float = param(4.0, low=1, high=64, help="misses in flight a thread", origin="updates are independent")
    touches: int = param(1, low=1, high=512, help="touches an operation (for op latency)", origin="an update")
    read_share: float = param(0.0, low=0, high=1, help="share of touches that read", origin="an update writes")

    def stream(self, layout: Layout) -> Stream:
        """One hot set before the shift, another behind it that shares the rest with it."""
        order = scattered(layout) if self.hot_pages == "scattered" else None
        moved = (0.0, self.shift / 100)
        sets = [hot_set(layout, self.hot, self.read_share, moved=share) for share in moved]
        lengths_s = (self.at * layout.duration_s, (1 - self.at) * layout.duration_s)
        return PhaseStream(layout, lengths_s, lambda phase, start: RangeStream(layout, sets[phase % 2], order))
