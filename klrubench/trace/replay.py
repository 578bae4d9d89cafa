"""Replay of a recorded trace as a stream: a rescaled real access *pattern*, never a timing of the program.

What is kept: which pages were touched in which stretch of the program, how often each one compared with the others,
which share of that reached memory, and which share wrote. What is chosen: footprint, duration and rate.

- *Footprint.* The traced pages lie on a line that is stretched (or shrunk) to the pages of the target: traced page p
  becomes the block [p x, (p + 1) x) with x = target / traced pages, and each touch of it goes to a random place there.
  So the distribution of rates over pages keeps its shape. Shrunk, neighbours in address share a page.
- *Duration.* The recording is played `loops` times in the run. An epoch gets the share of the run's touches that it has
  of the recorded ones, so time within the replay goes by touches, not by instructions.
- *Touches.* A row of the trace (one page in one epoch) plays its LLC misses as touches that reach memory, and of its
  cache hits at most `cached_touches` as touches served by the cache: an accessed bit or a hint fault needs but one.
- *Order.* Within an epoch touches come in a random order (a bijection of their numbers, keyed by seed and epoch),
  because the trace does not hold theirs. Each recorded touch is replayed as often as any other of its epoch, to within
  one time; exactly as often where the epoch is stretched by a whole number.

Touch i is a pure function of (seed, i): a search finds the epoch, a bijection the slot, and a table what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from klrubench.engine.bits import CACHED_BIT, ID_MASK, WRITE_BIT
from klrubench.engine.random import GOLDEN, mix64, stream_key, words
from klrubench.errors import UsageError
from klrubench.trace.kernel import kernel

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.trace.format import Trace
    from klrubench.workload import Layout

__all__ = ["Replay", "Stretch", "init_order", "shares", "stretch_note", "stretch_of"]

MAX_SLOTS = 1 << 24
_EXACT = 2**53  # below it a quotient of whole numbers in float64 has the right floor
_BLOCK = 1024
_SHIFT_32 = np.uint64(32)
_LOW_32 = np.uint64(0xFFFFFFFF)
_MULTIPLY_1, _MULTIPLY_2 = np.uint64(0x9E3779B1), np.uint64(0x85EBCA77)
_WRITE, _CACHED = np.uint32(WRITE_BIT), np.uint32(CACHED_BIT)
_FLAGS, _PAGE = np.uint32(WRITE_BIT | CACHED_BIT), np.uint32(ID_MASK)
_UNIT = 2.0**-32


@dataclass(frozen=True)
class Stretch:
    """By how much a replay differs from the recording, in full-size numbers.

    Attributes:
        footprint: target pages a traced page.
        touches: replayed touches a recorded one (counted as the replay counts them) and loop.
        page_touches: replayed touches a page, over recorded ones: `touches` / `footprint`.
        loops: times the recording is played.
        cached_share: share of the replayed touches that the cache serves.
        epoch_s: seconds that an epoch takes on average, on an unloaded all-DRAM machine.
    """

    footprint: float
    touches: float
    page_touches: float
    loops: int
    cached_share: float
    epoch_s: float


class _Played(NamedTuple):
    """How many touches each row of a trace plays (i64): those that reach memory, and those that the cache serves."""

    misses: np.ndarray
    hits: np.ndarray

    @property
    def total(self) -> int:
        return int(self.misses.sum() + self.hits.sum())


def _played(trace: Trace, cached_touches: int) -> _Played:
    misses = trace.llc_misses.astype(np.int64)
    hits = trace.reads.astype(np.int64) + trace.writes - misses
    played = _Played(misses, np.minimum(hits, cached_touches))
    if not played.total:
        raise UsageError("nothing of the trace reaches memory: take cached_touches=1 or more")
    return played


def shares(trace: Trace, cached_touches: int) -> tuple[float, float]:
    """Share of the replayed touches that the cache serves; and of those that reach memory, the share that reads."""
    played = _played(trace, cached_touches)
    reads = trace.reads / (trace.reads.astype(np.float64) + trace.writes)
    missed = int(played.misses.sum())
    return 1 - missed / played.total, float((reads * played.misses).sum()) / missed if missed else 1.0


def stretch_of(trace: Trace, layout: Layout, loops: int, cached_touches: int) -> Stretch:
    """The stretch of a replay on that layout."""
    footprint = layout.full_pages / trace.card.pages
    touches = layout.accesses * layout.fold / (_played(trace, cached_touches).total * loops)
    return Stretch(
        footprint=footprint,
        touches=touches,
        page_touches=touches / footprint,
        loops=loops,
        cached_share=shares(trace, cached_touches)[0],
        epoch_s=layout.duration_s / (loops * trace.card.epochs),
    )


def _thinned(played: _Played) -> _Played:
    """Every k-th touch of each row, at random where k does not divide them, so that the slots can be held in memory."""
    k = -(-played.total // MAX_SLOTS)
    if k == 1:
        return played
    chance = words(played.misses.size, stream_key(0, "trace thinning")) * 2.0**-64
    return _Played(*(np.floor(counts / k + chance).astype(np.int64) for counts in played))


def _slots(trace: Trace, cached_touches: int) -> tuple[np.ndarray, np.ndarray]:
    """A word (u32) for each touch that is played: flags as in the stream, traced page; and where each epoch's begin.

    Of the touches of a row the share that wrote is marked as writes, to within one (the same ones for all seeds).
    """
    misses, hits = _thinned(_played(trace, cached_touches))
    row = np.repeat(np.arange(misses.size), misses + hits)
    turn = np.arange(row.size) - np.repeat(np.cumsum(misses + hits) - misses - hits, misses + hits)
    share = (trace.writes / (trace.reads.astype(np.float64) + trace.writes))[row]
    chance = (words(misses.size, stream_key(0, "trace writes")) * 2.0**-64)[row]
    is_write = np.floor((turn + 1) * share + chance) > np.floor(turn * share + chance)
    slots = trace.page[row] | (_CACHED * (turn >= misses[row])) | (_WRITE * is_write)
    held = np.bincount(trace.epoch[row])
    return slots.astype(np.uint32), np.concatenate([[0], np.cumsum(held[held > 0])])


def stretch_note(name: str, trace: Trace, layout: Layout, loops: int, cached_touches: int) -> str:
    """One sentence that says how far a replay is from the recording; belongs under every table that holds one."""
    stretch, card = stretch_of(trace, layout, loops, cached_touches), trace.card
    played = "once" if loops == 1 else f"{loops} times"
    return (
        f"{name}: a rescaled real access pattern, never a timing of {card.command or 'that program'}:"
        f" {card.pages:,} recorded pages x{stretch.footprint:.3g} (to {layout.full_pages / 2**18:.4g} GiB),"
        f" played {played} in {card.epochs:,} epochs of {stretch.epoch_s * 1000:.3g} ms on average,"
        f" x{stretch.page_touches:.3g} touches a page; {stretch.cached_share:.0%} served by the cache"
        f" (at most {cached_touches} a page and epoch); the rate is chosen, lackey has no time"
    )


def init_order(trace: Trace, layout: Layout) -> np.ndarray:
    """Target pages in the order in which the program first touched theirs: by epoch, within one at random (by seed)."""
    first = np.empty(trace.card.pages, np.int64)
    first[trace.page[::-1]] = trace.epoch[::-1]
    chance = words(trace.card.pages, stream_key(layout.seed, "trace init order"))
    order = np.lexsort((chance, first))
    if trace.card.pages > layout.pages:
        order = _first_of_each(order * layout.pages // trace.card.pages)
        return order.astype(np.int64)
    begins = -(-np.arange(trace.card.pages + 1) * layout.pages // trace.card.pages)
    lengths = np.diff(begins)[order]
    gaps = begins[order] - np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.repeat(gaps, lengths) + np.arange(layout.pages)


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """The distinct values in the order of their first appearance."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


@kernel
def _hashed(x: int, key: np.uint64, bound: int) -> np.int64:
    """A number of 0 .. bound - 1 that depends on x and key (x and bound below 2^32)."""
    # products of 32-bit numbers, whose halves are folded together: a third of the cost of 64-bit ones in vector code
    h = ((np.uint64(x) ^ key) & _LOW_32) * _MULTIPLY_1
    h = ((h ^ (h >> _SHIFT_32)) & _LOW_32) * _MULTIPLY_2
    return np.int64((((h ^ (h >> _SHIFT_32)) & _LOW_32) * (np.uint64(bound) & _LOW_32)) >> _SHIFT_32)


@kernel
def _mixed(x: int, rows: int, columns: int, key: np.uint64) -> Int:
    """A bijection of 0 .. rows x columns - 1: a Feistel network of four rounds whose halves are row and column."""
    row = np.int64(np.float64(x) / np.float64(columns))
    column = x - row * columns
    for turn in range(2):
        row += _hashed(column, key + np.uint64(2 * turn) * GOLDEN, rows)
        row -= rows if row >= rows else 0
        column += _hashed(row, key + np.uint64(2 * turn + 1) * GOLDEN, columns)
        column -= columns if column >= columns else 0
    return row * columns + column


@kernel
def _shuffle(out: np.ndarray, first: int, size: int, rows: int, columns: int, key: np.uint64) -> None:
    """Images of first, first + 1, ... under a bijection of 0 .. size - 1: walks the cycles of a slightly larger one."""
    most = np.uint32(0)
    for i in range(out.size):
        out[i] = _mixed(first + i, rows, columns, key)
    for i in range(out.size):
        most = max(most, out[i])
    if most >= size:
        for i in range(out.size):
            while out[i] >= size:
                out[i] = _mixed(np.int64(out[i]), rows, columns, key)


@kernel
def _look_up(out: np.ndarray, size: int, slots: np.ndarray, start: int) -> None:
    """What stands at shuffled numbers 0 .. size - 1 when `slots` are spread over them evenly from `start` on."""
    # two loops: each is compiled to vector code, one loop of both is not
    length, held = np.float64(size), np.int64(slots.size)
    for i in range(out.size):
        out[i] = np.uint32(np.int64(np.float64(np.int64(out[i]) * held + start) / length))
    for i in range(out.size):
        out[i] = slots[out[i]]


@kernel
def _place(out: np.ndarray, at: int, scale: float, last_page: int, key: np.uint64) -> None:
    """Turn traced pages into target pages: each to a random place in its block. `at`: number of the first touch."""
    base, last = key + np.uint64(at) * GOLDEN, np.float64(last_page)
    for i in range(out.size):
        chance = np.float64(np.int64(mix64(base + np.uint64(i) * GOLDEN) >> _SHIFT_32)) * _UNIT
        page = np.float64(np.int64(out[i] & _PAGE))
        out[i] = (out[i] & _FLAGS) | np.uint32(np.int64(min((page + chance) * scale, last)))


@kernel
def _fill(
    out: np.ndarray,
    first: int,
    begins: np.ndarray,
    slots: np.ndarray,
    slot_begins: np.ndarray,
    scale: float,
    last_page: int,
    order_key: np.uint64,
    place_key: np.uint64,
) -> None:
    """Touches number `first` on. `begins`: number of the first touch of each epoch of each loop, and the run's end."""
    occurrence = np.searchsorted(begins, first, side="right") - 1
    done = 0
    while done < out.size:
        at = first + done
        while begins[occurrence + 1] <= at:
            occurrence += 1
        begin, end = begins[occurrence], begins[occurrence + 1]
        epoch = occurrence % (slot_begins.size - 1)
        held = slots[slot_begins[epoch] : slot_begins[epoch + 1]]
        key = mix64(order_key + np.uint64(occurrence) * GOLDEN)
        # a random start, so that an epoch that gets fewer touches than it has slots leaves out other ones each time
        start = np.int64((key >> _SHIFT_32) % np.uint64(held.size))
        rows = np.int64(np.ceil(np.sqrt(np.float64(end - begin))))
        columns = (end - begin + rows - 1) // rows
        part = out[done : min(done + _BLOCK, done + end - at, out.size)]
        _shuffle(part, at - begin, end - begin, rows, columns, key)
        _look_up(part, end - begin, held, start)
        _place(part, at, scale, last_page, place_key)
        done += part.size


class Replay:
    """The stream of a trace on a layout.

    Args:
        trace: what was recorded.
        layout: footprint, number of touches and seed of the run.
        loops: times the recording is played in the run.
        cached_touches: most touches served by the cache that are played for a page and epoch.

    Raises:
        UsageError: nothing is left to replay, or an epoch is too long for so long a run.
    """

    def __init__(self, trace: Trace, layout: Layout, loops: int = 1, cached_touches: int = 1) -> None:
        self._slots, self._slot_begins = _slots(trace, cached_touches)
        self._schedule(loops, layout.accesses)
        self._scale = layout.pages / trace.card.pages
        self._last_page = layout.pages - 1
        self._order_key = stream_key(layout.seed, "trace order")
        self._place_key = stream_key(layout.seed, "trace place")

    def _schedule(self, loops: int, accesses: int) -> None:
        """Deal the touches of the run to the epochs of all loops, by the number of their slots."""
        held = np.diff(self._slot_begins)
        ends = np.cumsum(np.tile(held, loops))
        total = int(ends[-1])
        self._begins = np.array([0, *(int(end) * accesses // total for end in ends)], np.int64)
        sizes = np.diff(self._begins)
        if int(sizes.max()) * int(held.max()) >= _EXACT or int(sizes.max()) >> 32:
            raise UsageError("an epoch of the trace is too long for so long a run: record with a shorter --epoch")

    def fill(self, out: np.ndarray, first: int) -> None:
        """Write touches `first`, `first + 1`, ... into `out` (u32); after the last of the run it begins anew."""
        accesses, done = int(self._begins[-1]), 0
        while done < out.size:
            at = (first + done) % accesses
            count = min(out.size - done, accesses - at)
            self._fill_within(out[done : done + count], at)
            done += count

    def _fill_within(self, out: np.ndarray, first: int) -> None:
        _fill(
            out, first, self._begins, self._slots, self._slot_begins, self._scale, self._last_page, self._order_key,
            self._place_key,
        )  # fmt: skip
