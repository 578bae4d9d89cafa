"""The MGLRU page-table walk over one address space, and the same walk with a callback (RFC v2 1/2).

Sources: walk_mm, walk_pud_range, walk_pmd_range, walk_pmd_range_locked, walk_pte_range, suitable_to_scan (mm/vmscan.c);
"mm: mglru: generalize page table walk", 20250910235121.2544928-2-kinseyho@google.com.
Cost follows the slots visited: 512 for each table whose PMD is young, however few of its pages are.
A folio that several PTEs map is reported once for each of them that is young; its generation follows once for a run of
its PTEs, and again where a full batch has cut the run.
Not modelled here: memory-notifier users, VMAs that the walk must skip (all VMAs here are anonymous or plain file), the
try-lock of the PMD table (that of PTE tables is), the flush at each 512 GiB boundary, the way back of a full batch of
2 MiB leaves to the first pending PMD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import (
    ACCESSED,
    GEN_MASK,
    IDLE,
    NODE_MASK,
    PMD_OLD,
    PMD_OLD_WORD,
    PUD_SHIFT,
    TABLE_SHIFT,
)  # fmt: skip
from klrubench.engine.bits import YOUNG as PG_YOUNG
from klrubench.engine.byte_masks import LANES, change_bytes, lowest, ones, places_of
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.folio import folio_ptes, page_folio, vma_of
from klrubench.mm.lru import folio_update_gen, places_on_lru, update_folios, update_generations
from klrubench.mm.mglru.bloom import bloom_test, bloom_update
from klrubench.mm.mglru.effects import BLOOM, EDGE, PMD, RESUME, STEAL, UNFILTERED
from klrubench.mm.mglru.trylock import missed
from klrubench.mm.state import (
    LRU_GEN_CORE,
    LRU_GEN_LACKS,
    LRU_GEN_NONLEAF_YOUNG,
    TWO_STEP,
    VMA_END,
    VMA_FILE,
    VMA_MM,
    VMA_ORDER,
    VMA_START,
)
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm

PENDING_TABLES = 64  # MIN_LRU_BATCH: PMDs behind the first whose accessed bits wait with it to be cleared
CLEARED_TOGETHER = PENDING_TABLES + 2  # of a dense range: the first, 64 behind it, and the one that is too far
DENSE_SHARE = 8  # a table is dense when young * 8 >= slots visited (one young PTE a cache line of PTEs)

ONE = np.uint64(1)

# int64 state of a walk object
(
    NEXT, FORCE, SEQ, BATCHED, TABLE_YOUNG, TABLE_TOTAL, TABLE_FAST, REPORTED, SLOTS, FAST, YOUNG, PMDS, LOST, REACH,
    REPAIRS, OWN_FILTER_SEQ, WRAPPED, N_WALK,
) = range(18)  # fmt: skip
# why a visit ended
DONE, AGAIN_FULL, AGAIN_VISIT = range(3)


@njit_inline
def table_young(mm: Mm, table: int) -> bool:
    """Accessed bit of the PMD above a PTE table."""
    return not mm.pte[table << TABLE_SHIFT] & np.uint8(PMD_OLD)


@njit_inline
def clear_table_young(mm: Mm, table: int) -> None:
    """Clear the accessed bit of a PMD: the next touch below it has to set it again."""
    words = mm.pte64[table << 6 : (table + 1) << 6]
    for k in range(len(words)):
        words[k] |= np.uint64(PMD_OLD_WORD)


@njit_inline
def clear_young(mm: Mm, first: np.uint64, places: np.uint64, lruvec: int, file: int, saves: bool) -> int:
    """Accessed entries of this node, ids `first` + each set bit: clear them, update the generations; returns pages
    whose generation changed.
    """
    change_bytes(mm.pte, first, places, np.uint8(0xFF ^ ACCESSED), np.uint8(0))
    if saves:
        change_bytes(mm.folio, first, places, np.uint8(0xFF ^ IDLE), np.uint8(PG_YOUNG))
    return update_generations(mm, first, places, lruvec, file)


@njit_inline
def clear_young_folios(
    mm: Mm, first: np.uint64, places: np.uint64, lruvec: int, last: int, saves: bool
) -> tuple[Int, Int]:
    """As `clear_young`, PTEs of folios that several of them map; (folios changed, the last folio met)."""
    change_bytes(mm.pte, first, places, np.uint8(0xFF ^ ACCESSED), np.uint8(0))
    if saves:
        left = places
        while left:
            head = page_folio(mm, np.int64(first + lowest(left)))
            left &= left - ONE
            mm.folio[head] = (mm.folio[head] | np.uint8(PG_YOUNG)) & np.uint8(0xFF ^ IDLE)
    return update_folios(mm, first, places, lruvec, last)


@njit_inline
def walked_node(mm: Mm, node: int) -> np.int64:
    """The node whose pages a walk takes: none (-1) where lru_gen/enabled lacks 1,
    for no folio is on an MGLRU list then.
    """
    return np.int64(-1) if mm.setting[LRU_GEN_LACKS] & LRU_GEN_CORE else np.int64(node)


@njit_inline
def places_between(first: int, last: int) -> np.uint64:
    """Bits `first` .. `last` - 1 of a word, 0 <= first < last <= 64."""
    return (~np.uint64(0) >> np.uint64(64 - (last - first))) << np.uint64(first)


@njit_inline
def first_places(places: np.uint64, n: int) -> np.uint64:
    """The lowest `n` of the set bits, or all of them."""
    rest = places
    for _ in range(n):
        rest &= rest - ONE
    return places ^ rest


@njit_inline
def report(out: np.ndarray, reported: int, first: np.uint64, places: np.uint64) -> int:
    """Write the ids `first` + each set bit to the batch; returns its new length."""
    while places:
        out[reported] = first + lowest(places)
        reported += 1
        places &= places - ONE
    return reported


@njit_inline
def pte_pass(mm: Mm, walk: np.ndarray, first: int, last: int, lruvec: int, node: int, out: np.ndarray) -> Int:
    """Visit the PTEs of ids first .. last - 1 (one table); returns the id to go on with, `last` if through."""
    page: Int
    page, reported, room, pte = first, walk[REPORTED], len(out), mm.pte
    fast = young = changed = np.int64(0)  # counted here and added once: in memory each would wait for the one before
    wanted, saves, file = walked_node(mm, node), walk[REPAIRS] & STEAL != 0, mm.vma[vma_of(mm, first), VMA_FILE]
    of_node = np.uint8(ACCESSED | wanted if wanted >= 0 else NODE_MASK)  # without ACCESSED it is no page's
    ptes, last_folio = folio_ptes(mm, first), np.int64(-1)
    while page < last:
        base = page & ~(LANES - 1)
        at, low, high = np.uint64(base), page - base, min(np.int64(last - base), np.int64(LANES))
        page = base + high
        accessed = places_between(low, high) & places_of(pte, at, np.uint8(ACCESSED), np.uint8(ACCESSED))
        if not accessed:
            continue
        found = accessed & places_of(pte, at, np.uint8(ACCESSED | NODE_MASK), of_node)
        found = places_on_lru(mm, at, found)
        full = room > 0 and found and ones(found) >= room - reported
        if full:
            found = first_places(found, room - reported)
        if room > 0:
            reported = report(out, reported, at, found)
        if full:
            page = np.int64(out[room - 1]) + 1
            accessed &= places_between(low, page - base)
        if found and ptes == 1:
            changed += clear_young(mm, at, found, lruvec, file, saves)
        elif found:
            folios, last_folio = clear_young_folios(mm, at, found, lruvec, last_folio, saves)
            changed += folios
        young += ones(found)
        fast += ones(accessed ^ found)
        if full:
            break
    walk[YOUNG] += young
    walk[BATCHED] += changed
    walk[REPORTED] = reported
    walk[FAST] += fast
    walk[TABLE_FAST] += fast
    walk[TABLE_YOUNG] += young
    walk[SLOTS] += page - first
    walk[TABLE_TOTAL] += page - first
    return page


@njit_inline
def drain(mm: Mm, pending: np.ndarray, n_pending: int) -> int:
    """Clear the accessed bits of the pending PMDs (those that are to keep theirs stand there inverted)."""
    for k in range(n_pending):
        if pending[k] >= 0:
            clear_table_young(mm, pending[k])
    return 0


@njit_inline
def drain_before(mm: Mm, pending: np.ndarray, n_pending: int, page: int) -> int:
    """Clear the accessed bits of pending PMDs that end at or before a page; returns how many still wait."""
    left = 0
    for k in range(n_pending):
        table = max(pending[k], ~pending[k])
        if (table + 1) << TABLE_SHIFT > page:
            pending[left] = pending[k]
            left += 1
        elif pending[k] >= 0:
            clear_table_young(mm, table)
    return left


@njit_inline
def tells_dense(mm: Mm, walk: np.ndarray, table: int, lruvec: int) -> bool:
    """Whether the filter that a pass reads lets a table be visited."""
    if walk[REPAIRS] & BLOOM:
        return walk[REPAIRS] & UNFILTERED != 0 or bloom_test(mm, lruvec, walk[OWN_FILTER_SEQ], table, True)
    return bloom_test(mm, lruvec, walk[SEQ], table, False)


@njit_inline
def note_dense(mm: Mm, walk: np.ndarray, table: int, lruvec: int) -> None:
    """Add a table to the filter that a pass writes."""
    if walk[REPAIRS] & BLOOM:
        bloom_update(mm, lruvec, walk[OWN_FILTER_SEQ] + 1, table, True)
    else:
        bloom_update(mm, lruvec, walk[SEQ] + 1, table, False)


@njit_inline
def end_table(mm: Mm, walk: np.ndarray, table: int, lruvec: int) -> None:
    """After the last slot of a table: the density rule, and counts from 0 for the next one."""
    if walk[TABLE_YOUNG] * DENSE_SHARE >= walk[TABLE_TOTAL]:
        note_dense(mm, walk, table, lruvec)
    walk[TABLE_YOUNG] = walk[TABLE_TOTAL] = walk[TABLE_FAST] = 0


@njit_inline
def walk_tables(mm: Mm, walk: np.ndarray, first: int, last: int, lruvec: int, node: int, out: np.ndarray) -> bool:
    """Walk 4 KiB mappings first .. last - 1 inside one 1 GiB visit; True when the batch filled up (NEXT is set).

    A full batch resumes at the first pending PMD, up to 64 tables back, whose accessed bit is still set (posted
    behaviour). A PMD farther than 64 from the first is cleared with those that wait, before its PTEs are seen, and does
    not wait itself: a dense range is cleared 66 PMDs at a time. At scale walk[REACH] ids stand for those 66 PMDs: the
    batch shrinks with the scale, and were the way back not to shrink with it,
    a pass would report most pages several times.
    """
    pending = np.empty(PENDING_TABLES + 1, np.int64)
    first_pending: Int = np.int64(0)
    n_pending = 0
    start = resume = first
    reach, repairs, forced = walk[REACH], walk[REPAIRS], walk[FORCE] != 0
    prunes = not forced and not mm.setting[LRU_GEN_LACKS] & LRU_GEN_NONLEAF_YOUNG
    while start < last:
        table = start >> TABLE_SHIFT
        end = min(last, (table + 1) << TABLE_SHIFT)
        walk[PMDS] += 1
        waits = alone = False
        if prunes:
            if not table_young(mm, table):
                start = end
                continue
            if reach and n_pending:
                resume += (start - resume) // reach * reach
                n_pending = drain_before(mm, pending, n_pending, resume)
                first_pending = max(pending[0], ~pending[0])
            if n_pending and table - first_pending > PENDING_TABLES:
                alone = True
                if not repairs & PMD:
                    clear_table_young(mm, table)
                n_pending = drain(mm, pending, n_pending)
            else:
                if n_pending == 0:
                    resume, first_pending = start, table
                waits = True
                pending[n_pending] = ~table if repairs & PMD else table
                n_pending += 1
        if not forced and not tells_dense(mm, walk, table, lruvec):
            start = end
            continue
        if missed(mm):  # 6.14+ calls a table suitable whose lock it did not get
            if mm.setting[TWO_STEP]:
                note_dense(mm, walk, table, lruvec)
            start = end
            continue
        stopped = pte_pass(mm, walk, start, end, lruvec, node, out)
        full = len(out) > 0 and walk[REPORTED] == len(out)
        if full and stopped < end and (n_pending == 0 or repairs & RESUME):
            drain(mm, pending, n_pending - 1)  # this table's PMD stays young, for the walk has to come back to it
            walk[NEXT] = stopped  # the density counts go on with the table
            return True
        if repairs & PMD and stopped == end and not walk[TABLE_FAST]:
            if waits:
                pending[n_pending - 1] = table
            elif alone:
                clear_table_young(mm, table)
        end_table(mm, walk, table, lruvec)
        if full:
            if n_pending == 0:
                walk[NEXT] = end
                if (
                    not repairs & EDGE
                ):  # the resume address is rejected: the rest of this address space is lost for the pass
                    walk[NEXT] = -1
                    walk[LOST] += 1
            elif repairs & RESUME:
                drain(mm, pending, n_pending)
                walk[NEXT] = end
            else:
                walk[NEXT] = resume + ((stopped - 1 - resume) // reach * reach if reach else 0)
            return True
        start = end
    drain(mm, pending, n_pending)
    return False


@njit_inline
def clear_huge(mm: Mm, page: int, lruvec: int, saves: bool) -> int:
    """As `clear_young`, a 2 MiB page."""
    mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
    if saves:
        mm.folio[page] = (mm.folio[page] | np.uint8(PG_YOUNG)) & np.uint8(0xFF ^ IDLE)
    return folio_update_gen(mm, page, lruvec)


@njit_inline
def walk_huge(mm: Mm, walk: np.ndarray, first: int, last: int, lruvec: int, node: int, out: np.ndarray) -> bool:
    """Walk PMD-mapped 2 MiB pages: one accessed bit, one report each; the Bloom filter is not asked."""
    wanted, saves = walked_node(mm, node), walk[REPAIRS] & STEAL != 0
    for page in range(first, last):
        state = mm.pte[page]
        walk[SLOTS] += 1
        if not state & np.uint8(ACCESSED):
            continue
        if np.int64(state & np.uint8(NODE_MASK)) != wanted or not mm.folio[page] & np.uint8(GEN_MASK):
            walk[FAST] += 1
            continue
        walk[YOUNG] += 1
        walk[BATCHED] += clear_huge(mm, page, lruvec, saves)
        if len(out) > 0:
            out[walk[REPORTED]] = page
            walk[REPORTED] += 1
            if walk[REPORTED] == len(out):
                walk[NEXT] = page + 1
                return True
    return False


@njit_inline
def visit(mm: Mm, walk: np.ndarray, space: int, lruvec: int, node: int, out: np.ndarray) -> int:
    """Continue the walk of one address space from walk[NEXT] to the end of a 1 GiB visit, a full batch, or its end.

    Args:
        walk: i64 [N_WALK], zeroed for a new address space but for FORCE, SEQ, REACH, REPAIRS and OWN_FILTER_SEQ.
        space: number of the address space.
        out: u32 batch of page ids found young on `node` (empty: nothing is reported, as in aging).
    Returns:
        DONE, AGAIN_FULL (flush, then call again) or AGAIN_VISIT (call again after letting others run).
    """
    for v in range(len(mm.vma)):
        row = mm.vma[v]
        if row[VMA_MM] != space or row[VMA_END] <= walk[NEXT]:
            continue
        huge = row[VMA_ORDER] == TABLE_SHIFT
        shift = TABLE_SHIFT if huge else PUD_SHIFT
        first = max(row[VMA_START], walk[NEXT])
        last = min(row[VMA_END], ((first >> shift) + 1) << shift)
        if huge:
            full = walk_huge(mm, walk, first, last, lruvec, node, out)
        else:
            full = walk_tables(mm, walk, first, last, lruvec, node, out)
        if full:
            return DONE if walk[NEXT] < 0 else AGAIN_FULL
        walk[NEXT] = last
        return AGAIN_VISIT
    return DONE


@njit
def walk_at(address: int, walk: np.ndarray, space: int, lruvec: int, node: int, out: np.ndarray) -> int:
    """`visit` on the `Mm` at an address, compiled once for all who walk."""
    return visit(mm_at(address), walk, space, lruvec, node, out)


def walk_mm(mm: Mm, walk: np.ndarray, space: int, lruvec: int, node: int, out: np.ndarray) -> int:
    """`visit`, from Python."""
    return int(walk_at(mm.address, walk, space, lruvec, node, out))
