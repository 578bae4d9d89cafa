"""Small traces made up in memory, and lackey text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from klrubench.trace.collect import Collector, Origin
from klrubench.trace.format import Trace, TraceCard
from klrubench.trace.lackey import LackeyParser
from klrubench.trace.llc import Llc

Row = tuple[int, int, int, int, int]


def trace_of(rows: Sequence[Row], epochs: int | None = None) -> Trace:
    """A trace with these (epoch, page, reads, writes, misses) rows."""
    epoch, page, reads, writes, misses = (np.array(column, np.uint32) for column in zip(*sorted(rows), strict=True))
    count = epochs or int(epoch.max()) + 1
    instructions = np.full(count, 1000, np.int64)
    card = TraceCard(
        command="made-up",
        note="",
        tool="test",
        threads=1,
        exit_code=0,
        complete=True,
        time_base="instructions",
        epoch_length=1000,
        epochs=count,
        instructions=int(instructions.sum()),
        accesses=int(reads.sum() + writes.sum()),
        touches=int(reads.sum() + writes.sum()),
        llc_misses=int(misses.sum()),
        llc_bytes=1 << 20,
        llc_ways=16,
        pages=int(page.max()) + 1,
        extents=1,
        lacks=("everything real",),
    )
    return Trace(card, epoch, page, reads, writes, misses, instructions)


def random_trace(seed: int, pages: int = 40, epochs: int = 6, most: int = 30) -> Trace:
    """A trace in which every page is touched in about half of the epochs."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for epoch in range(epochs):
        for page in range(pages):
            if page == pages - 1 or rng.random() < 0.5 or epoch == page % epochs:
                reads, writes = int(rng.integers(1, most)), int(rng.integers(0, most))
                rows.append((epoch, page, reads, writes, int(rng.integers(0, reads + writes + 1))))
    return trace_of(rows)


def collected(text: bytes, llc: Llc | None = None, epoch_length: int = 1000, cuts: Iterable[int] = ()) -> Trace:
    """What the collector makes of lackey text that is fed to the parser cut at these places."""
    parser, collector = LackeyParser("text"), Collector(llc, epoch_length)
    edges = [0, *sorted(cuts), len(text)]
    for first, last in pairwise(edges):
        for events in parser.feed(text[first:last]):
            collector.feed(events)
    parser.close()
    return collector.finish(Origin())
