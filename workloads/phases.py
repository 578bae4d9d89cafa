"""Regions whose heat changes from phase to phase, as masim makes them for tests of DAMON."""

from __future__ import annotations

from typing import Any

import numpy as np

from klrubench.generate import Part, PhaseStream, RangeStream, masim_stream, read_masim_config, stream_key, words
from klrubench.workload import Layout, Stream, Workload, param


class Phases(Workload):
    """Equal regions, contiguous, touched at random inside; in each phase every region has another share of the touches.

    shuffled: the shares 0, 1, .. N - 1 are dealt out anew in each phase (masim's test for tiered memory); stairs: one
    region at a time, from the first to the last and again; zigzag: one at a time, up and down.
    `config` takes regions, phases and modes from a masim file instead, its regions stretched onto the footprint.
    """

    source = "masim, the access simulator of the DAMON project (github.com/sjp38/masim)"

    regions: int = param(10, low=2, high=512, help="regions of equal size", origin="masim stairs: 10")
    phase_s: float = param(30.0, low=0.01, high=86_400, log=True, help="length of a phase", unit="s")
    pattern: str = param("shuffled", choices=("shuffled", "stairs", "zigzag"), help="how shares change with the phase")
    config: str = param("", help="masim configuration file to follow instead")
    read_share: float = param(0.0, low=0, high=1, help="share of touches that read", origin="masim writes unless told")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self._config = read_masim_config(self.config) if self.config else None

    def content(self) -> str:
        """The masim configuration, if there is one."""
        return repr(self._config) if self._config else ""

    def notes(self, layout: Layout) -> list[str]:
        """How far a masim configuration was stretched."""
        if self._config is None:
            return []
        stretch = layout.full_pages * 4096 / sum(self._config.regions.values())
        return [f"regions of {self.config} stretched {stretch:.3g} times onto {layout.full_pages / 2**18:g} GiB"]

    def stream(self, layout: Layout) -> Stream:
        """In each phase a region by its share, then one of its pages, or the next one of a sweep."""
        if self._config is not None:
            return masim_stream(self._config, layout, self.read_share)

        def regions(phase: int, start: int) -> Stream:
            bounds = [layout.pages * region // self.regions for region in range(self.regions + 1)]
            parts = zip(self.shares(layout, phase), bounds, np.diff(bounds).tolist(), strict=False)
            return RangeStream(layout, [Part(*part, self.read_share) for part in parts])

        return PhaseStream(layout, [self.phase_s], regions)

    def shares(self, layout: Layout, phase: int) -> list[int]:
        """Each region's share of the touches in a phase, relative to the others."""
        if self.pattern == "shuffled":
            drawn = words(self.regions, stream_key(layout.seed, f"phase {phase}"))
            return [int(share) for share in np.argsort(drawn)]
        last = self.regions - 1
        hot = phase % self.regions if self.pattern == "stairs" else last - abs(phase % (2 * last) - last)
        return [int(region == hot) for region in range(self.regions)]
