"""From accesses to a trace: lines through the last-level cache, counts by page, a row for each page and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.random import GOLDEN, mix64
from klrubench.errors import ParameterError, TraceFormatError
from klrubench.trace.format import COLUMNS, PAGE_SHIFT, Trace, TraceCard
from klrubench.trace.kernel import kernel
from klrubench.trace.lackey import INSTRUCTION, MODIFY, STORE
from klrubench.trace.llc import LINE_SHIFT, Llc, touch_line

if TYPE_CHECKING:
    from klrubench.trace.lackey import Events

__all__ = ["EPOCH_LENGTH", "Collector", "Origin", "check_epoch_length"]

EPOCH_LENGTH = 1_000_000
MIN_EPOCH, MAX_EPOCH = 1_000, 100_000_000
_U32_MAX = 2**32 - 1
_FIRST_SLOTS = 1 << 14

READS, WRITES, MISSES = 0, 1, 2
LINES_A_PAGE = np.uint64(PAGE_SHIFT - LINE_SHIFT)
_LINE_SHIFT, _ONE = np.uint64(LINE_SHIFT), np.uint64(1)

# state of the collecting loop
CLOCK, PAGES, TOUCHED, ACCESSES, N_STATE = range(5)
# why it stopped
END_OF_EVENTS, END_OF_EPOCH, TABLE_FULL = range(3)


@dataclass(frozen=True)
class Origin:
    """Where a recording comes from: the fields of the card that the accesses do not tell."""

    command: str = ""
    note: str = ""
    tool: str = "valgrind lackey"
    threads: int | None = None
    exit_code: int | None = None
    complete: bool = True
    lacks: tuple[str, ...] = ()


def check_epoch_length(epoch_length: int) -> int:
    """The length as it is, if an epoch can have it.

    Raises:
        ParameterError: it is out of range.
    """
    if not MIN_EPOCH <= epoch_length <= MAX_EPOCH:
        raise ParameterError(f"an epoch of {epoch_length} instructions cannot be: take {MIN_EPOCH} to {MAX_EPOCH}")
    return epoch_length


@kernel
def _slot_of(keys: np.ndarray, page: np.uint64) -> np.uint64:
    """The slot that holds `page` + 1, or the empty one where it belongs (linear probing)."""
    mask = np.uint64(keys.size - 1)
    slot = mix64(page * GOLDEN) & mask
    while keys[slot] != np.uint64(0) and keys[slot] != page + _ONE:
        slot = (slot + _ONE) & mask
    return slot


@kernel
def _touch_page(
    page: np.uint64,
    kind: int,
    missed: int,
    keys: np.ndarray,
    ids: np.ndarray,
    counts: np.ndarray,
    touched: np.ndarray,
    state: np.ndarray,
) -> None:
    """Count one touch; a new page takes the next number."""
    slot = _slot_of(keys, page)
    if keys[slot] == np.uint64(0):
        keys[slot] = page + _ONE
        ids[slot] = state[PAGES]
        state[PAGES] += 1
    number = ids[slot]
    if counts[number, READS] == 0 and counts[number, WRITES] == 0:
        touched[state[TOUCHED]] = number
        state[TOUCHED] += 1
    if kind != STORE:
        counts[number, READS] += 1
    if kind in (STORE, MODIFY):
        counts[number, WRITES] += 1
    counts[number, MISSES] += missed


@kernel
def _touch_access(
    kind: int,
    address: np.uint64,
    size: int,
    filtered: bool,
    tags: np.ndarray,
    keys: np.ndarray,
    ids: np.ndarray,
    counts: np.ndarray,
    touched: np.ndarray,
    state: np.ndarray,
) -> None:
    """Count the touches of one access: one for each line that it reaches, on the page of that line."""
    line = address >> _LINE_SHIFT
    last = (address + np.uint64(size - 1)) >> _LINE_SHIFT
    unfiltered = 2 if kind == MODIFY else 1
    while line <= last:
        missed = touch_line(tags, line) if filtered else unfiltered
        _touch_page(line >> LINES_A_PAGE, kind, missed, keys, ids, counts, touched, state)
        line += _ONE


@kernel
def _collect(
    kinds: np.ndarray,
    addresses: np.ndarray,
    sizes: np.ndarray,
    first: int,
    by_instructions: bool,
    epoch_length: int,
    filtered: bool,
    tags: np.ndarray,
    keys: np.ndarray,
    ids: np.ndarray,
    counts: np.ndarray,
    touched: np.ndarray,
    state: np.ndarray,
) -> tuple[int, int]:
    """Count events from `first` on; returns the next one and why it stopped.

    A full epoch ends when the first unit of the next one is met. The table of pages is full at half its slots.
    """
    # two pages of room: an access of 4096 bytes reaches two
    limit = keys.size // 2 - 2
    for event in range(first, kinds.size):
        is_unit = (kinds[event] == INSTRUCTION) == by_instructions
        if is_unit and state[CLOCK] == epoch_length:
            return event, END_OF_EPOCH
        if kinds[event] != INSTRUCTION:
            if state[PAGES] > limit:
                return event, TABLE_FULL
            state[ACCESSES] += 1
            _touch_access(
                kinds[event], addresses[event], sizes[event], filtered, tags, keys, ids, counts, touched, state
            )
        if is_unit:
            state[CLOCK] += 1
    return kinds.size, END_OF_EVENTS


@kernel
def _reinsert(old_keys: np.ndarray, old_ids: np.ndarray, keys: np.ndarray, ids: np.ndarray) -> None:
    for old in range(old_keys.size):
        if old_keys[old] != np.uint64(0):
            slot = _slot_of(keys, old_keys[old] - _ONE)
            keys[slot], ids[slot] = old_keys[old], old_ids[old]


class Collector:
    """Counts events into a trace.

    Args:
        llc: the cache that touches go through; None: every touch counts as a miss.
        epoch_length: instructions an epoch; accesses, if the first event is no instruction.
    """

    def __init__(self, llc: Llc | None, epoch_length: int = EPOCH_LENGTH) -> None:
        self.epoch_length = check_epoch_length(epoch_length)
        self._llc = llc
        self._tags = llc.tags if llc else np.zeros((1, 1), np.uint64)
        self._by_instructions: bool | None = None
        self._state = np.zeros(N_STATE, np.int64)
        self._keys, self._ids = np.zeros(_FIRST_SLOTS, np.uint64), np.zeros(_FIRST_SLOTS, np.int64)
        self._counts, self._touched = np.zeros((_FIRST_SLOTS // 2, 3), np.int64), np.zeros(_FIRST_SLOTS // 2, np.int64)
        self._epochs: list[tuple[np.ndarray, np.ndarray]] = []
        self._clocks: list[int] = []

    @property
    def accesses(self) -> int:
        """Loads, stores and modifies counted so far."""
        return int(self._state[ACCESSES])

    @property
    def pages(self) -> int:
        """Pages touched so far."""
        return int(self._state[PAGES])

    def feed(self, events: Events) -> None:
        """Count these events.

        Raises:
            TraceFormatError: a page is touched 2^32 times in one epoch.
        """
        if self._by_instructions is None:
            self._by_instructions = bool(events.kind[0] == INSTRUCTION)
        at, why = 0, END_OF_EPOCH
        while why != END_OF_EVENTS:
            at, why = _collect(
                *events, at, self._by_instructions, self.epoch_length, self._llc is not None, self._tags,
                self._keys, self._ids, self._counts, self._touched, self._state,
            )  # fmt: skip
            if why == END_OF_EPOCH:
                self._end_epoch()
            elif why == TABLE_FULL:
                self._grow()

    def _end_epoch(self) -> None:
        touched = self._touched[: self._state[TOUCHED]].copy()
        counts = self._counts[touched]
        self._counts[touched] = 0
        if counts.size and counts.max() > _U32_MAX:
            raise TraceFormatError(f"epoch {len(self._epochs)} touches a page 2^32 times: take a shorter --epoch")
        self._epochs.append((touched, counts.astype(np.uint32)))
        self._clocks.append(int(self._state[CLOCK]))
        self._state[CLOCK] = self._state[TOUCHED] = 0

    def _grow(self) -> None:
        keys, ids = np.zeros(2 * self._keys.size, np.uint64), np.zeros(2 * self._keys.size, np.int64)
        _reinsert(self._keys, self._ids, keys, ids)
        more = self._counts.shape[0]
        self._keys, self._ids = keys, ids
        self._counts = np.concatenate([self._counts, np.zeros((more, 3), np.int64)])
        self._touched = np.concatenate([self._touched, np.zeros(more, np.int64)])

    def finish(self, origin: Origin) -> Trace:
        """The trace of all that was counted.

        Raises:
            TraceFormatError: there was no access.
        """
        if not self.accesses:
            raise TraceFormatError("holds no memory accesses")
        if self._state[CLOCK] or self._state[TOUCHED]:
            self._end_epoch()
        order, extents = self._address_order()
        epoch = np.repeat(np.arange(len(self._epochs)), [touched.size for touched, _ in self._epochs])
        page = order[np.concatenate([touched for touched, _ in self._epochs])]
        counts = np.concatenate([counts for _, counts in self._epochs])
        sorting = np.lexsort((page, epoch))
        columns = (np.ascontiguousarray(column[sorting], np.uint32) for column in (epoch, page, *counts.T))
        by_instructions = bool(self._by_instructions)
        instructions = np.array(self._clocks if by_instructions else [0] * len(self._clocks), np.int64)
        card = TraceCard(
            command=origin.command,
            note=origin.note,
            tool=origin.tool,
            threads=origin.threads,
            exit_code=origin.exit_code,
            complete=origin.complete,
            time_base="instructions" if by_instructions else "accesses",
            epoch_length=self.epoch_length,
            epochs=len(self._epochs),
            instructions=int(instructions.sum()),
            accesses=self.accesses,
            touches=int(counts[:, READS].sum(dtype=np.int64) + counts[:, WRITES].sum(dtype=np.int64)),
            llc_misses=int(counts[:, MISSES].sum(dtype=np.int64)),
            llc_bytes=self._llc.size_bytes if self._llc else 0,
            llc_ways=self._llc.ways if self._llc else 0,
            pages=self.pages,
            extents=extents,
            lacks=origin.lacks,
        )
        return Trace(card, **dict(zip(COLUMNS, columns, strict=True)), instructions=instructions)

    def _address_order(self) -> tuple[np.ndarray, int]:
        """For each page, numbered as first touched, its place in address order; and the runs of neighbouring pages."""
        held = np.flatnonzero(self._keys)
        addresses = np.empty(self.pages, np.uint64)
        addresses[self._ids[held]] = self._keys[held] - _ONE
        by_address = np.argsort(addresses, kind="stable")
        order = np.empty(self.pages, np.int64)
        order[by_address] = np.arange(self.pages)
        return order, 1 + int(np.count_nonzero(np.diff(addresses[by_address]) > 1))
