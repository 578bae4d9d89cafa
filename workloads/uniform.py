"""Every page alike: nothing to win, so that whatever a policy loses here is its cost."""

from __future__ import annotations

from klrubench.generate import Part, RangeStream
from klrubench.workload import Layout, Stream, Workload


class Uniform(Workload):
    """Each touch falls on any page with the same chance; the negative control of the suite."""

    source = "negative control"
    control = True

    def stream(self, layout: Layout) -> Stream:
        """One range: all pages."""
        return RangeStream(layout, [Part(1.0, 0, layout.pages, self.read_share)])
