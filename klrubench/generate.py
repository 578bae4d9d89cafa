"""Generators for workload authors: everything a file in workloads/ needs to make its stream.

Ready streams, each one line in `Workload.stream(layout)`:

    ZipfStream(layout, exponent, read_share)                 pages by Zipf's law, scattered
    RecordStream(layout, exponent, record_bytes, idle, ...)  records by Zipf's law, several a page; or the newest first
    RangeStream(layout, parts, order)                        ranges of pages by weight, uniform or swept
    SweepStream(layout, lines, read_share)                   every page in turn
    PhaseStream(layout, lengths_s, stream_of)                one stream after another, by time

A stream of your own is any object with `fill(out, first)`: it writes touches number `first`, `first + 1`, ... into
`out` (u32: simulated 4 KiB page, bit 31 for a write, bit 30 if the CPU cache serves it), and must give the same touches
however the calls cut the run into chunks. The easy way is to make touch i a function of the seed and i alone:

    class Mine:
        def __init__(self, layout):
            self.key = stream_key(layout.seed, "touches")    # one key for each thing that is drawn
            self.pages = layout.pages

        def fill(self, out, first):
            out[:] = words(len(out), self.key, first) % self.pages

Weights over ranks should be drawn over `layout.full_pages` and folded (rank // layout.fold): a smaller Zipf is not a
sample of a larger one. `scattered(layout)` then spreads the hot pages over the address space.
"""

from __future__ import annotations

from klrubench.engine.alias_table import alias_table, pick, slot_shift
from klrubench.engine.jit import njit
from klrubench.engine.masim_config import MasimConfig, masim_stream, read_masim_config
from klrubench.engine.random import mark_writes, mix64, stream_key, words, write_cut
from klrubench.engine.scramble import Scramble
from klrubench.engine.streams import (
    Part,
    PhaseStream,
    RangeStream,
    RecordStream,
    SweepStream,
    ZipfStream,
    hot_set,
    scattered,
)
from klrubench.engine.zipf_sampler import ZipfSampler

__all__ = [
    "MasimConfig",
    "Part",
    "PhaseStream",
    "RangeStream",
    "RecordStream",
    "Scramble",
    "SweepStream",
    "ZipfSampler",
    "ZipfStream",
    "alias_table",
    "hot_set",
    "mark_writes",
    "masim_stream",
    "mix64",
    "njit",
    "pick",
    "read_masim_config",
    "scattered",
    "slot_shift",
    "stream_key",
    "words",
    "write_cut",
]
