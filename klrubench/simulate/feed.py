"""The stream of one tenant, made once and shared by every policy that runs it: chunks in memory, truth beside them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.access import AHEAD
from klrubench.engine.bits import CACHED_BIT, ID_MASK, TABLE_SHIFT
from klrubench.engine.jit import njit

if TYPE_CHECKING:
    from klrubench.workload import Layout, Workload

KEEP_WORDS = 3 << 26  # a stream of up to 800 MB stays in memory; a longer one is made again for each run
KEEP_FEEDS = 4
KEEP_BYTES = (
    3 << 27
)  # of all kept streams: a second one of the usual 250 MB takes the place of the first (fresh memory costs 4 ns a byte)
CHUNK = 1 << 16  # 256 KiB of stream: in L2 when it is made and used
WINDOW_S = 10.0  # truth is counted in windows of about this length
HORIZON = 3  # windows that a promotion is judged by
MAX_WINDOWS = 30
YOUNG_S = 2.0  # klruscand's interval, for the share of pages young


@njit
def shift_ids(words: np.ndarray, shift: int) -> None:
    """Turn 4 KiB page numbers into 2 MiB leaf numbers, flags kept."""
    for k in range(len(words)):
        word = words[k]
        words[k] = (word & np.uint32(0xC0000000)) | ((word & np.uint32(ID_MASK)) >> np.uint32(shift))


@njit
def count_touches(words: np.ndarray, counts: np.ndarray) -> None:
    """Add the touches that miss the CPU cache to `counts` (u32 a page)."""
    for k in range(len(words)):
        if not words[k] & np.uint32(CACHED_BIT):
            counts[words[k] & np.uint32(ID_MASK)] += 1


@njit
def mark_touched(words: np.ndarray, seen: np.ndarray) -> None:
    """Set `seen` (u8 a page) for every page touched."""
    for k in range(len(words)):
        seen[words[k] & np.uint32(ID_MASK)] = 1


class Feed:
    """The stream of (workload, layout), seekable; and what the future holds: touches by window and page."""

    def __init__(self, workload: Workload, layout: Layout, chunk: int = CHUNK) -> None:
        self.layout, self.chunk = layout, chunk
        self.stream = workload.stream(layout)
        order = workload.order()
        self.shift = TABLE_SHIFT if order == TABLE_SHIFT else 0
        self.folio_ids = 1 << order - self.shift
        self.pages = -(-layout.pages >> self.shift) if self.shift else layout.pages
        self.keep = layout.accesses <= KEEP_WORDS
        size = layout.accesses if self.keep else chunk
        self.words = _buffer(size + AHEAD + 64)
        self.ready = 0  # kept: words made so far; otherwise: number of the first word in the buffer
        self.held = 0
        self._truth: dict[tuple[int, ...], np.ndarray] = {}
        self._young: float | None = None
        self._best: dict[int, np.ndarray] = {}
        self.medians: dict[int, float] = {}  # of the touches a page, by truth window
        self.taps: list[Any] = []  # of the run that uses this stream now

    def _fill(self, out: np.ndarray, first: int) -> None:
        self.stream.fill(out, first)
        if self.shift:
            shift_ids(out, self.shift)

    def window(self, first: int, limit: int) -> tuple[np.ndarray, int]:
        """Words from touch `first` on: (array readable AHEAD past the count, count >= 1 and <= limit)."""
        last = min(first + limit, self.layout.accesses)
        if not self.keep:
            count = min(last - first, self.chunk)
            if not (self.ready <= first and first + count <= self.ready + self.held):
                for tap in self.taps:
                    tap.catch_up()
                self.ready, self.held = first, min(self.chunk, self.layout.accesses - first)
                self._fill(self.words[: self.held], first)
            start = first - self.ready
            return self.words[start:], min(count, self.held - start)
        while self.ready < min(last, first + self.chunk):
            end = min(self.ready + CHUNK, self.layout.accesses)
            self._fill(self.words[self.ready : end], self.ready)
            self.ready = end
        count = min(last, self.ready) - first
        if self.chunk < CHUNK:
            count = min(count, self.chunk)
        return self.words[first:], count

    def served(self, first: int, last: int) -> np.ndarray:
        """Words `first` .. `last` - 1, still in the buffer: taps catch up before it is filled anew."""
        start = 0 if self.keep else self.ready
        return self.words[first - start : last - start]

    def windows(self) -> int:
        """Number of truth windows in the run."""
        return int(max(1, min(MAX_WINDOWS, round(self.layout.duration_s / WINDOW_S))))

    def window_start(self, index: int) -> int:
        """First touch of a truth window."""
        return self.layout.accesses * index // self.windows()

    def truth(self, bounds: tuple[int, ...] = ()) -> np.ndarray:
        """u32 [windows, pages]: touches that miss the CPU cache; `bounds`: other windows (first touches, end)."""
        bounds = bounds or tuple(self.window_start(index) for index in range(self.windows() + 1))
        if bounds not in self._truth:
            counts = np.zeros((len(bounds) - 1, self.pages), np.uint32)
            for index, (first, last) in enumerate(pairwise(bounds)):
                while first < last:
                    words, count = self.window(first, last - first)
                    count_touches(words[:count], counts[index])
                    first += count
            self._truth[bounds] = counts
        return self._truth[bounds]

    def best_sets(self, capacity: int) -> np.ndarray:
        """u32 a page: bit w set if the page is among the `capacity` most touched of the windows w .. w + 2."""
        if capacity not in self._best:
            counts, best = self.truth(), np.zeros(self.pages, np.uint32)
            for index in range(len(counts)):
                folios = counts[index : index + HORIZON].sum(axis=0, dtype=np.int64).reshape(-1, self.folio_ids)
                best[hottest(folios.sum(axis=1).repeat(self.folio_ids), capacity)] |= np.uint32(1 << index)
            self._best[capacity] = best
        return self._best[capacity]

    def young_share(self) -> float:
        """Mean share of pages touched within 2 s, over five places of the run (unloaded all-DRAM time)."""
        if self._young is None:
            n = min(self.layout.accesses, max(1, self.layout.touch_at_s(YOUNG_S)))
            shares = []
            for part in range(5):
                seen = np.zeros(self.pages, np.uint8)
                first = (self.layout.accesses - n) * part // 4
                last = first + n
                while first < last:
                    words, count = self.window(first, last - first)
                    mark_touched(words[:count], seen)
                    first += count
                shares.append(float(seen.mean()))
            self._young = float(np.mean(shares))
        return self._young


def hottest(counts: np.ndarray, capacity: int) -> np.ndarray:
    """Pages with the `capacity` largest counts, in page order; ties go to the lowest page number."""
    if capacity >= len(counts):
        return np.arange(len(counts))
    least = np.partition(counts, len(counts) - capacity)[len(counts) - capacity]
    above, ties = np.flatnonzero(counts > least), np.flatnonzero(counts == least)
    return np.sort(np.concatenate([above, ties[: capacity - len(above)]]))


class _Kept(threading.local):
    """Streams that the next run may use, of one thread each: a stream holds the place of the run that reads it."""

    def __init__(self) -> None:
        self.feeds: OrderedDict[Any, Feed] = OrderedDict()
        self.spare: list[np.ndarray] = []


_kept = _Kept()


def _buffer(size: int) -> np.ndarray:
    """u32 [>= size]: that of a stream no longer kept, if large enough (fresh pages cost as much as the draws)."""
    spares = _kept.spare
    for k, spare in enumerate(spares):
        if len(spare) >= size:
            return spares.pop(k)
    return np.zeros(size, np.uint32)


def shared_feeds(workloads: Sequence[Workload], layouts: Sequence[Layout], chunk: int) -> list[Feed]:
    """The feeds of a run's tenants, kept for the next policy of this thread; beside them only the latest few."""
    found: list[Feed] = []
    for workload, layout in zip(workloads, layouts, strict=True):
        found.append(_shared_feed(workload, layout, chunk, found))
    return found


def _shared_feed(workload: Workload, layout: Layout, chunk: int, beside: list[Feed]) -> Feed:
    key = (type(workload), tuple(sorted(workload.values.items())), str(workload.content()), layout, chunk)
    feeds = _kept.feeds
    if key in feeds:
        feeds.move_to_end(key)
        feeds[key].taps.clear()
        return feeds[key]
    old = [each for each, feed in feeds.items() if feed not in beside]  # buffers of this run's own must not go round
    size = 4 * min(layout.accesses, KEEP_WORDS)
    while old and (len(feeds) >= KEEP_FEEDS or size + sum(feed.words.nbytes for feed in feeds.values()) > KEEP_BYTES):
        _kept.spare[:] = [feeds.pop(old.pop(0)).words]
    feeds[key] = Feed(workload, layout, chunk)
    return feeds[key]


def forget_feeds() -> None:
    """Drop every stream that this thread keeps (measurements that must include making it)."""
    while _kept.feeds:
        _kept.spare[:] = [_kept.feeds.popitem(last=False)[1].words]
