"""Streams out of the fill kernels: what a workload hands to the simulator.

Every stream gives the same bytes however it is cut into chunks, because touch i depends on (seed, i) alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine import generate as kernels
from klrubench.engine.alias_table import alias_table, slot_shift
from klrubench.engine.random import mark_writes, stream_key, write_cut
from klrubench.engine.scramble import MAX_NUMBERS, Scramble
from klrubench.engine.zipf_sampler import ZipfSampler
from klrubench.errors import ParameterError

if TYPE_CHECKING:
    from klrubench.workload import Layout, Stream

__all__ = ["Part", "PhaseStream", "RangeStream", "RecordStream", "SweepStream", "ZipfStream", "hot_set", "scattered"]

BLOCK = 1 << 16  # touches that pass through all kernels while they are in the L2 cache
PAGE_BYTES = 4096
HEAD_RATE = 100.0  # touches a second


def scattered(layout: Layout) -> Scramble:
    """The order in which this run's pages lie in the address space: number j of a stream is page `permutation()[j]`."""
    return Scramble(layout.pages, stream_key(layout.seed, "pages"))


def head_ranks(layout: Layout, ranks: int, exponent: float) -> int:
    """How many of the first ranks are dealt out among simulated pages instead of sharing one with their neighbours.

    Neighbours in rank would put a fifth of a Zipf stream on one page (the first 32 of 2^25 records), and where that
    page happens to lie would decide a run. Ranks touched more than HEAD_RATE times a second are alike to anything that
    looks every few milliseconds or less often: dealt out, they keep their number, their share and a rate beyond that
    line, and the largest page takes about what the hottest rank takes at full size. A power of two above `layout.fold`,
    or 0 for none.
    """
    if layout.fold == 1 or exponent == 0:
        return 0
    known = np.arange(1, min(ranks, 1 << 14) + 1, dtype=np.float64)
    total = float((known**-exponent).sum())
    if ranks > len(known):  # the rest as an integral: off by less than 1e-4 of the sum
        low, high = len(known) + 0.5, ranks + 0.5
        total += (
            np.log(high / low) if exponent == 1 else (high ** (1 - exponent) - low ** (1 - exponent)) / (1 - exponent)
        )
    rate = layout.accesses * layout.fold / layout.duration_s / total
    fastest = (rate / HEAD_RATE) ** (1 / exponent)
    head = 1 << max(0, int(min(fastest, ranks)).bit_length() - 1)
    return head if head > layout.fold else 0


class _BlockStream(ABC):
    """A stream that is made block by block."""

    def fill(self, out: np.ndarray, first: int) -> None:
        """Write touches number `first`, `first + 1`, ... into `out` (u32, contiguous)."""
        for start in range(0, len(out), BLOCK):
            self._fill_block(out[start : start + BLOCK], first + start)

    @abstractmethod
    def _fill_block(self, out: np.ndarray, first: int) -> None:
        """Write the touches of a block."""


class ZipfStream(_BlockStream):
    """Pages by Zipf's law, scattered: drawn over the full-size pages, `layout.fold` neighbours a simulated page.

    The head of the law is dealt out (`head_ranks`).

    Args:
        layout: where to.
        exponent: of the law, 0 to 16.
        read_share: share of touches that read.
    """

    def __init__(self, layout: Layout, exponent: float, read_share: float) -> None:
        self._fold, self._cut, self._order = layout.fold, write_cut(read_share), scattered(layout)
        ranks = min(layout.full_pages, layout.pages * layout.fold)
        self._sampler = ZipfSampler(ranks, exponent, stream_key(layout.seed, "touches"))
        self._head = head_ranks(layout, ranks, exponent)

    def _fill_block(self, out: np.ndarray, first: int) -> None:
        self._sampler.fill(out, first, self._fold, self._cut, self._head)
        self._order.apply(out)


class RecordStream(_BlockStream):
    """Records by Zipf's law, scattered over the records and so over the pages that hold them; some pages hold none.

    A page takes what its records take together: page skew is not key skew. Drawn over the full-size records;
    `layout.fold` neighbours in rank are one simulated record (the head is dealt out, `head_ranks`), and a simulated
    page holds as many records as a real one. Hence each stratum of ranks keeps its exact share, and a page's rate is a
    sum over records chosen at random, as at full size.

    Args:
        layout: where to.
        exponent: of the law, 0 to 16.
        record_bytes: 16 to 4096; records lie end to end, and a touch falls on the page where its record begins.
        idle: percent of pages, chosen at random, that hold no record.
        read_share: share of touches that read.
        inserts: new records a (full-size) touch, 0 for none. If there are any, ranks count from the newest record,
            writes go to it, and each new record takes the place of the oldest.

    Raises:
        ParameterError: more than 2^31 simulated records.
    """

    def __init__(
        self, layout: Layout, exponent: float, record_bytes: int, idle: float, read_share: float, inserts: float = 0.0
    ) -> None:
        self._fold, self._cut = layout.fold, write_cut(read_share)
        pages = max(1, round(layout.pages * (1 - idle / 100)))
        records = pages * PAGE_BYTES // record_bytes
        if records > MAX_NUMBERS:
            raise ParameterError(f"record_bytes={record_bytes}: {records} records are over 2^31; take a smaller scale")
        self._record_bytes, self._ranks = np.uint64(record_bytes), records * layout.fold
        self._records = Scramble(records, stream_key(layout.seed, "records"))
        self._order = scattered(layout) if pages < layout.pages else None
        self._sampler = ZipfSampler(self._ranks, exponent, stream_key(layout.seed, "touches"))
        self._head = head_ranks(layout, self._ranks, exponent)
        self._inserts, self._key = float(inserts * layout.fold), stream_key(layout.seed, "writes")

    def _fill_block(self, out: np.ndarray, first: int) -> None:
        if self._inserts:
            self._fill_by_age(out, first)
        else:
            self._sampler.fill(out, first, self._fold, self._cut, self._head)
        self._records.apply(out)
        kernels.records_to_pages(out, self._record_bytes)
        if self._order is not None:
            self._order.apply(out)

    def _fill_by_age(self, out: np.ndarray, first: int) -> None:
        ages = np.empty(len(out), np.uint64)
        self._sampler.fill(ages, first)
        ring = (self._inserts, np.uint64(self._ranks), np.uint64(self._fold.bit_length() - 1), self._cut)
        kernels.newest_records(out, ages, np.uint64(first), self._key, *ring)


class Part(NamedTuple):
    """A range of simulated pages and its share of the touches.

    Attributes:
        weight: share of the touches, relative to the other parts.
        first, pages: the range; ranges may overlap.
        read_share: share of its touches that read.
        step: 0: its pages are touched at random, all alike. Else they are swept, `step` pages a touch of the stream.
    """

    weight: float
    first: int
    pages: int
    read_share: float = 1.0
    step: float = 0.0


def hot_set(layout: Layout, hot: float, read_share: float, share: float = 0.9, moved: float = 0.0) -> list[Part]:
    """`hot` % of the pages take `share` of the touches; the rest goes to all pages alike, hot ones included.

    `moved` of the hot pages, those at the front, have cooled, and as many behind the last have become hot.
    """
    pages = max(1, round(layout.pages * hot / 100))
    first = round(pages * moved)
    if first + pages > layout.pages:
        raise ParameterError(f"hot={hot:g} and shift={100 * moved:g}: together over 100 % of the pages")
    return [Part(share, first, pages, read_share), Part(1 - share, 0, layout.pages, read_share)]


class RangeStream(_BlockStream):
    """Ranges of pages, drawn by weight.

    Args:
        layout: where to.
        parts: the ranges; at most 65,536.
        order: lays page numbers elsewhere (`scattered(layout)`); `None`: ranges are contiguous memory.
        origin: the touch at which sweeps begin.
    """

    def __init__(self, layout: Layout, parts: Sequence[Part], order: Scramble | None = None, origin: int = 0) -> None:
        parts = [part for part in parts if part.weight > 0]
        self._ranges = _ranges(parts)
        self._shift, self._order, self._origin = slot_shift(self._ranges.table), order, np.uint64(origin)
        self._parts, self._swept = len(parts), any(part.step > 0 for part in parts)
        self._share = np.uint64(round(parts[0].weight / sum(part.weight for part in parts) * 2**32))
        self._key = stream_key(layout.seed, "touches")

    def _fill_block(self, out: np.ndarray, first: int) -> None:
        at = np.uint64(first)
        if self._swept or self._parts > 2:
            kernels.fill_ranges(out, at, self._key, self._ranges, self._shift)
        elif self._parts == 2:
            kernels.fill_two_ranges(out, at, self._key, self._ranges, self._share)
        else:
            kernels.fill_range(out, at, self._key, self._ranges)
        if self._swept:
            kernels.sweep_ranges(out, at, self._key, self._ranges, self._shift, self._origin)
        if self._order is not None:
            self._order.apply(out)


def _ranges(parts: Sequence[Part]) -> kernels.Ranges:
    table = alias_table([part.weight for part in parts])

    def column(values: list[int] | list[float], kind: type) -> np.ndarray:
        return np.array([*values, *[0] * (table.size - len(parts))], kind)

    return kernels.Ranges(
        table,
        column([part.first for part in parts], np.uint64),
        column([part.pages for part in parts], np.uint64),
        column([int(write_cut(part.read_share)) for part in parts], np.uint64),
        column([part.step for part in parts], np.float64),
    )


class SweepStream(_BlockStream):
    """Every page in address order, over and over, from a page that the seed chooses.

    Args:
        layout: where to.
        lines: touches a page before the next.
        read_share: share of touches that read.
    """

    def __init__(self, layout: Layout, lines: int, read_share: float) -> None:
        self._key, self._cut = stream_key(layout.seed, "writes"), write_cut(read_share)
        origin = int(stream_key(layout.seed, "origin")) % layout.pages
        self._sweep = (np.uint64(origin), np.uint64(layout.pages), np.uint64(lines))

    def _fill_block(self, out: np.ndarray, first: int) -> None:
        kernels.fill_sweep(out, np.uint64(first), *self._sweep)
        mark_writes(out, first, self._key, self._cut)


class PhaseStream:
    """Streams that follow each other: phase k lasts `lengths_s[k % len(lengths_s)]`, `stream_of(k, start)` makes it.

    Args:
        layout: turns seconds (of an unloaded all-DRAM run) into touch numbers.
        lengths_s: of one cycle of phases, not negative and not all 0; the cycle repeats.
        stream_of: from a phase's number and its first touch to its stream.
    """

    def __init__(self, layout: Layout, lengths_s: Sequence[float], stream_of: Callable[[int, int], Stream]) -> None:
        self._layout, self._ends = layout, list(accumulate(lengths_s))
        self._stream_of = lru_cache(maxsize=16)(stream_of)

    def fill(self, out: np.ndarray, first: int) -> None:
        """Write touches number `first`, `first + 1`, ... into `out` (u32, contiguous)."""
        done = 0
        while done < len(out):
            phase = self._phase_of(first + done)
            count = min(len(out) - done, self.start(phase + 1) - first - done)
            self._stream_of(phase, self.start(phase)).fill(out[done : done + count], first + done)
            done += count

    def start(self, phase: int) -> int:
        """The first touch of phase number `phase`."""
        cycle, number = divmod(phase, len(self._ends))
        before = self._ends[number - 1] if number else 0.0
        return self._layout.touch_at_s(cycle * self._ends[-1] + before)

    def _phase_of(self, touch: int) -> int:
        seconds = touch * self._layout.duration_s / self._layout.accesses
        cycle, rest = divmod(seconds, self._ends[-1])
        phase = int(cycle) * len(self._ends) + bisect_right(self._ends, rest)
        while phase > 0 and self.start(phase) > touch:
            phase -= 1
        while self.start(phase + 1) <= touch:
            phase += 1
        return phase
