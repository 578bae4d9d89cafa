"""task_numa_work: which mappings one scan visits, and the marking of their PTEs.

Sources: task_numa_work, vma_is_accessed, reset_ptenuma_scan (kernel/sched/fair.c, Linux 6.12), change_pte_range
(mm/mprotect.c). From Linux 6.7 a mapping without recent hint faults of the scanning thread is passed over from the
third sweep on, and forced, one a scan, when no other is left: a sweep takes one more scan for each small mapping behind
the large one. So a program's small mappings are rows here (`AREA_SMALL`), though no page of theirs is simulated:
theirs lie on the top tier, where mode 2 marks nothing. Not modelled: dirty file folios, which a kernel leaves unmarked;
one flush is charged a scan (numa_balancing.py), not one a range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import NODE_MASK, TRAP
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.folio import page_folio
from klrubench.mm.state import PAGES_EACH, TIER, VMA_END, VMA_LEAF_ORDER, VMA_MM, VMA_START
from klrubench.mm.table import mm_at
from klrubench.mm.tlb import shoot_down

if TYPE_CHECKING:
    from klrubench.mm.state import Mm

# columns of `areas`: one row a VMA of `mm.vma`, in its order, then the small mappings of every tenant
(
    AREA_START, AREA_END, AREA_ORDER, AREA_SMALL, AREA_KNOWN, AREA_START_SEQ, AREA_PREV_SEQ, AREA_PIDS_OLD, AREA_PIDS,
    AREA_RESET_MS, AREA_NEXT_MS, AREA_COLUMNS,
) = range(12)  # fmt: skip
# `cursor`: place in the tenant's order of areas, id inside that area, numa_scan_seq
PLACE, PAGE, SEQ, CURSOR_WORDS = range(4)
# `limits` of one scan
(
    BUDGET, VIRTUAL, DELAY_MS, THREADS, THREAD, FILTER, MARK_TOP, HOME, SMALL_ACTIVE, N_LIMITS,
) = range(10)  # fmt: skip

BELOW = 2  # small mappings below the large one: the program's data and its heap (our count, as for Workload.small_vmas)
PID_BITS = 63  # a thread's bit in pids_active; the kernel hashes the PID into 64
PID_RESET = 4  # VMA_PID_RESET_PERIOD in scan delays
FREE_SWEEPS = 2  # sweeps in which every mapping is scanned


def new_areas(vma: np.ndarray, small: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The rows of all tenants and each tenant's rows in address order.

    Args:
        vma: `mm.vma`.
        small: small mappings above the large ones, by memcg; `BELOW` more lie below them.
    """
    each = [BELOW + count if count else 0 for count in small]
    areas = np.zeros((len(vma) + sum(each), AREA_COLUMNS), np.int64)
    areas[: len(vma), [AREA_START, AREA_END, AREA_ORDER]] = vma[:, [VMA_START, VMA_END, VMA_LEAF_ORDER]]
    areas[len(vma) :, AREA_SMALL] = 1
    order, next_row = [], len(vma)
    for memcg, count in enumerate(each):
        rows = np.arange(next_row, next_row + count)
        below = min(BELOW, count)
        own = np.flatnonzero(vma[:, VMA_MM] == memcg)
        order.append(np.concatenate([rows[:below], own, rows[below:]]).astype(np.int64))
        next_row += count
    return areas, order


@njit
def protect_range(mm: Mm, first: int, last: int, now_ms: int, mark_top: int, home: int) -> tuple[int, int]:
    """change_prot_numa over ids first .. last - 1; returns (PTEs updated, PTEs seen).

    Lower-tier pages get their scan time. Top-tier pages are marked with `mark_top` only, and those of node `home` (that
    of a single-threaded program, else -1) never.
    """
    updated = 0
    for page in range(first, last):
        state = mm.pte[page]
        node = np.int64(state & np.uint8(NODE_MASK))
        lower = mm.node[node, TIER] > 0
        if state & np.uint8(TRAP) or node == home or not (lower or mark_top):
            continue
        shoot_down(mm, page)
        mm.pte[page] |= np.uint8(TRAP)
        if lower and mark_top != 1:
            mm.scan_ms[page_folio(mm, page)] = np.uint32(now_ms & 0xFFFFFFFF)
        updated += 1
    return updated, last - first


@njit
def _meet(row: np.ndarray, seq: int, now_ms: int, delay_ms: int) -> None:
    """A mapping's state at a visit: made at the first one, its older half of faulting threads forgotten every four
    delays.
    """
    if not row[AREA_KNOWN]:
        row[AREA_KNOWN] = 1
        row[AREA_START_SEQ], row[AREA_PREV_SEQ] = seq, seq - 1
        row[AREA_NEXT_MS] = now_ms + delay_ms
        row[AREA_RESET_MS] = row[AREA_NEXT_MS] + PID_RESET * delay_ms
    if seq and now_ms > row[AREA_RESET_MS]:
        row[AREA_RESET_MS] += PID_RESET * delay_ms
        row[AREA_PIDS_OLD] = row[AREA_PIDS]
        row[AREA_PIDS] = 0


@njit_inline
def set_access_pid(row: np.ndarray, thread: int) -> None:
    """vma_set_access_pid_bit: a fault leaves its thread's bit, in a mapping that a scan has met."""
    if row[AREA_KNOWN]:
        row[AREA_PIDS] |= np.int64(1) << (thread % PID_BITS)


@njit
def _is_accessed(row: np.ndarray, seq: int, begun: bool, limits: np.ndarray) -> bool:
    """vma_is_accessed: two sweeps for everyone, then faults of the thread, a scan that has begun, or starvation."""
    if seq - row[AREA_START_SEQ] < FREE_SWEEPS or begun or (row[AREA_SMALL] and limits[SMALL_ACTIVE]):
        return True
    pids = row[AREA_PIDS_OLD] | row[AREA_PIDS]
    return bool(pids >> (limits[THREAD] % PID_BITS) & 1) or seq > row[AREA_PREV_SEQ] + limits[THREADS]


@njit
def _scan_area(mm: Mm, row: np.ndarray, start: int, now_ms: int, limits: np.ndarray, done: np.ndarray) -> int:
    """Mark a mapping from `start` on while budgets last; returns where it stopped.

    `done`: updated, seen, budget, virtual.
    """
    unit = np.int64(1)
    if not row[AREA_ORDER]:
        unit = max(np.int64(1), 512 // max(np.int64(1), mm.setting[PAGES_EACH]))  # 2 MiB, full size
    while start < row[AREA_END]:
        ids = -(-max(done[2], 1) >> row[AREA_ORDER])
        end = min(row[AREA_END], -(-(start + ids) // unit) * unit)
        n, visited = protect_range(mm, start, end, now_ms, limits[MARK_TOP], limits[HOME])
        pages = (end - start) << row[AREA_ORDER]
        done[0] += n
        done[1] += visited
        if n:
            done[2] -= pages
        done[3] -= pages
        start = end
        if done[2] <= 0 or done[3] <= 0:
            break
    return start


@njit
def _begin(order: np.ndarray, cursor: np.ndarray) -> None:
    """Past the last mapping a scan begins the next sweep at the first one."""
    if cursor[PLACE] >= len(order):
        cursor[PLACE] = cursor[PAGE] = 0
        cursor[SEQ] += 1


@njit
def _walk_areas(
    mm: Mm,
    areas: np.ndarray,
    order: np.ndarray,
    cursor: np.ndarray,
    limits: np.ndarray,
    now_ms: int,
    forced: bool,
    done: np.ndarray,
) -> tuple[bool, bool]:
    """One go over the mappings from the cursor on; returns (whether the scan is over, whether one was passed over)."""
    _begin(order, cursor)
    skipped, at, page = False, cursor[PLACE], cursor[PAGE]
    while at < len(order):
        row, seq = areas[order[at]], cursor[SEQ]
        if limits[FILTER]:
            _meet(row, seq, now_ms, limits[DELAY_MS])
            if seq and now_ms < row[AREA_NEXT_MS]:
                at, page = at + 1, 0
                continue
            if row[AREA_PREV_SEQ] == seq:
                at, page = at + 1, 0
                cursor[PLACE], cursor[PAGE] = at, 0
                continue
            if not forced and not _is_accessed(row, seq, page > row[AREA_START], limits):
                skipped, at, page = True, at + 1, 0
                continue
        if not row[AREA_SMALL]:
            page = _scan_area(mm, row, max(page, row[AREA_START]), now_ms, limits, done)
            if done[2] <= 0 or done[3] <= 0:
                finished = page >= row[AREA_END]
                cursor[PLACE], cursor[PAGE] = (at + 1, 0) if finished else (at, page)
                return True, skipped
        row[AREA_PREV_SEQ] = seq
        at, page = at + 1, 0
        if forced:
            cursor[PLACE], cursor[PAGE] = at, 0
            return True, skipped
    return False, skipped


@njit
def _task_numa_work(
    address: int, areas: np.ndarray, order: np.ndarray, cursor: np.ndarray, limits: np.ndarray, now_ms: int
) -> tuple[int, int]:
    mm = mm_at(address)
    done = np.array([0, 0, limits[BUDGET], limits[VIRTUAL]], np.int64)
    over, skipped = _walk_areas(mm, areas, order, cursor, limits, now_ms, False, done)
    if not over and skipped:
        over, skipped = _walk_areas(mm, areas, order, cursor, limits, now_ms, True, done)
    if not over:
        cursor[PLACE] = len(order)
        _begin(order, cursor)
    return done[0], done[1]


def task_numa_work(
    mm: Mm, areas: np.ndarray, order: np.ndarray, cursor: np.ndarray, limits: np.ndarray, now_ms: int
) -> tuple[int, int]:
    """One scan from the cursor on; returns (PTEs updated, PTEs seen) and moves the cursor
    (`cursor[SEQ]` counts sweeps).

    Args:
        areas: i64 [mappings, AREA_COLUMNS]; order: i64, this tenant's rows in address order.
        cursor: i64 [CURSOR_WORDS]: place in `order`, id inside that mapping, sweeps begun.
        limits: i64 [N_LIMITS]: BUDGET of ids in ranges with updates and VIRTUAL of any, DELAY_MS (scan_delay), THREADS
            of the program, THREAD that scans, FILTER (kernel 6.7 and later), MARK_TOP (0 in mode 2, 1 in mode 1, 2 in
            mode 3), HOME node left out (-1: none), SMALL_ACTIVE: small mappings take hint faults themselves.
    """
    return _task_numa_work(mm.address, areas, order, cursor, limits, now_ms)
