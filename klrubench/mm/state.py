"""The memory that all mechanisms share: page bytes, frames, VMAs, nodes, lruvecs, counters,
as one tuple of arrays for kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from klrubench.engine.array_table import addresses
from klrubench.engine.bits import PTRS_PER_TABLE, TABLE_SHIFT

# columns of `vma`
VMA_START, VMA_END, VMA_MEMCG, VMA_FILE, VMA_ORDER, VMA_MM, VMA_LEAF_ORDER, VMA_COLUMNS = range(8)
# columns of `node`; pages of 4 KiB
(
    CAPACITY, FREE, WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARK_PROMO, TIER, FIRST_FRAME, STACK_TOP,
    FIRST_HUGE, HUGE_TOP, NB_THRESHOLD_MS, NB_CAND_AT, NB_LIMIT_START_MS, NB_LIMIT_CAND, NB_PERIOD_START_MS,
    KSWAPD_WAKE, DEMOTION_TARGET, DEMOTION_PREFERRED, DEMOTION_ALLOWED, KSWAPD_FAILURES, TAIL_FRAMES, NODE_COLUMNS,
) = range(23)  # fmt: skip
# columns of `lru` (one row a lruvec = memcg * nodes + node). The kernel's walk state, then the one that a scanner may
# have of its own (sequence number, cursor and marker in the mm list); two Bloom filters of each; BORN_MS + generation;
# NR_PAGES + generation * 2 + file
(
    MAX_SEQ, MIN_SEQ_ANON, MIN_SEQ_FILE, MM_SEQ, MM_HEAD, MM_TAIL, OWN_SEQ, OWN_HEAD, OWN_TAIL, BLOOM_A, BLOOM_B,
    BLOOM_OWN_A, BLOOM_OWN_B, BORN_MS,
) = range(14)  # fmt: skip
MIN_NR_GENS, MAX_NR_GENS = 2, 4
NR_PAGES = BORN_MS + MAX_NR_GENS
LRU_COLUMNS = NR_PAGES + 2 * MAX_NR_GENS
# columns of `mms`: one row an address space, then one a memcg (the head of its list); MM_RAN + node: ran
# since the node's last walk
MM_NEXT, MM_PREV, MM_MEMCG, MM_RAN = range(4)
NO_MM = -1
# `setting`: rules of the running kernel, instruments, full-size pages a simulated one (PAGES_EACH, 0 as 1), whether any
# folio is mapped by several PTEs, int64
(
    TWO_STEP, TIERING, WAKE_ON_REFUSE, NOW_MS, WINDOW, PAGES_EACH, LRU_GEN_LACKS, TRYLOCK_MISS, TRYLOCK_KEY,
    TRYLOCK_DRAWS, NODE_KEY, NODE_DRAWS, LARGE_FOLIOS, N_SETTINGS,
) = range(14)  # fmt: skip
# capabilities of lru_gen/enabled; the setting LRU_GEN_LACKS holds those that are switched off
LRU_GEN_CORE, LRU_GEN_MM_WALK, LRU_GEN_NONLEAF_YOUNG = 1, 2, 4

STATS: tuple[str, ...] = (
    "pgpromote_success", "pgpromote_candidate", "pgpromote_candidate_nrl",
    "pgdemote_kswapd", "pgmigrate_success", "pgmigrate_fail",
    "promote_folios", "demote_folios", "promote_refused", "promoted_again", "promoted_best", "promoted_judged",
    "numa_pte_updates", "numa_hint_faults", "numa_fault_promotions", "numa_limited", "numa_free_bypass",
    "pghot_recorded_accesses", "pghot_record_pgtscans", "pghot_record_hintfaults",
    "pghot_record_hwhints", "pghot_records_hash",
    "pghot_records_heap", "pghot_heap_full", "kpromoted_popped", "kpromoted_right_node",
    "kpromoted_non_lru", "kpromoted_dropped", "kpromoted_cold_old",
    "pgscan_kswapd", "pgsteal_kswapd", "pgrefill", "kswapd_wakes", "demote_fail",
    "pgaging_pte", "pgaging_young", "pgcarried", "lru_max_seq_advances",
    "ptescan_slots", "ptescan_fast", "ptescan_young", "ptescan_pmds", "idle_set",
    "idle_checked", "idle_young", "pgalloc_spill", "kmigrated_taken",
    "kmigrated_dropped", "numa_hint_faults_local",
)  # fmt: skip
(
    PGPROMOTE_SUCCESS, PGPROMOTE_CANDIDATE, PGPROMOTE_CANDIDATE_NRL,
    PGDEMOTE_KSWAPD, PGMIGRATE_SUCCESS, PGMIGRATE_FAIL,
    PROMOTE_FOLIOS, DEMOTE_FOLIOS, PROMOTE_REFUSED, PROMOTED_AGAIN, PROMOTED_BEST, PROMOTED_JUDGED,
    NUMA_PTE_UPDATES, NUMA_HINT_FAULTS, NUMA_FAULT_PROMOTIONS, NUMA_LIMITED, NUMA_FREE_BYPASS,
    PGHOT_RECORDED, PGHOT_PGTSCANS, PGHOT_HINTFAULTS,
    PGHOT_HWHINTS, PGHOT_RECORDS_HASH,
    PGHOT_RECORDS_HEAP, PGHOT_HEAP_FULL, KPROMOTED_POPPED, KPROMOTED_RIGHT_NODE,
    KPROMOTED_NON_LRU, KPROMOTED_DROPPED, KPROMOTED_COLD_OLD,
    PGSCAN_KSWAPD, PGSTEAL_KSWAPD, PGREFILL, KSWAPD_WAKES, DEMOTE_FAIL,
    PGAGING_PTE, PGAGING_YOUNG, PGCARRIED, MAX_SEQ_ADVANCES,
    PTESCAN_SLOTS, PTESCAN_FAST, PTESCAN_YOUNG, PTESCAN_PMDS, IDLE_SET,
    IDLE_CHECKED, IDLE_YOUNG, PGALLOC_SPILL, KMIGRATED_TAKEN,
    KMIGRATED_DROPPED, NUMA_HINT_FAULTS_LOCAL,
) = range(len(STATS))  # fmt: skip

AGAIN_MS = 60_000  # a promotion less than this after the page's demotion counts as "promoted again"
NEVER_MS = -(1 << 30)


class Mm(NamedTuple):
    """Arrays of one simulated machine's memory; n pages (padded to 512), v VMAs, k nodes, l lruvecs, f frames.

    An id stands for a leaf of the page tables: a PTE, or the PMD of a 2 MiB page. What a leaf has (`pte`, `pfn`,
    `best`) every id has; what a folio has (`folio`, links, scan_ms, demoted_ms) its first id, the head, has: a folio
    of order 1 to 8 is 2^order PTEs, aligned, and the other ids' bytes stay 0.
    pte, folio: u8 [n]. pte64: the bytes of `pte` as u64. pfn: u32 [n]. frame_page: i32 [f], -1 where free.
    frame_stack: u32 [f], free frames of each node, top at node[STACK_TOP]/node[HUGE_TOP].
    lru_next, lru_prev: i32 [n + heads], circular lists with a head a (lruvec, generation, type).
    vma: i64 [v, VMA_COLUMNS]; block_vma: u16 [n / 512]. node: i64 [k, NODE_COLUMNS]; lru: i64 [l, LRU_COLUMNS].
    bloom: u8 [4 l, bits], the kernel's two filters of each lruvec, then a scanner's own. mms: i64 [address spaces +
    memcgs, MM_RAN + k]. stat: i64 [len(STATS)]. traffic: f64 [k, 2] bytes read and written by migration this quantum.
    scan_ms: u32 [n], the folio's cpupid field (NUMA balancing): time of the last marking, or last faulting thread + 1.
    demoted_ms: i32 [n] and best: u32 [n] are instruments:
    the last demotion, and a bit a window in which the page belongs to the best top-tier set. setting: i64. tlb: i64
    [address spaces or 0, columns]. table: i64, addresses and shapes of all arrays before it, and `address` of that
    table: what kernels are given (see mm/table.py).
    """

    pte: np.ndarray
    pte64: np.ndarray
    folio: np.ndarray
    pfn: np.ndarray
    frame_page: np.ndarray
    frame_stack: np.ndarray
    lru_next: np.ndarray
    lru_prev: np.ndarray
    vma: np.ndarray
    block_vma: np.ndarray
    node: np.ndarray
    lru: np.ndarray
    bloom: np.ndarray
    stat: np.ndarray
    traffic: np.ndarray
    scan_ms: np.ndarray
    demoted_ms: np.ndarray
    best: np.ndarray
    setting: np.ndarray
    mms: np.ndarray
    tlb: np.ndarray
    table: np.ndarray
    address: int


def new_mm(
    vmas: Sequence[tuple[int, ...]],
    node_pages: list[int],
    tiers: list[int],
    n_memcgs: int,
    bloom_bits: int,
    spare_mms: int = 0,
    tlb: np.ndarray | None = None,
) -> Mm:
    """Lay out the address spaces and the nodes; no page is placed yet.

    Args:
        vmas: (ids, memcg, file, order of its folios 0 to 9[, address space]) each; a VMA starts at the next multiple of
            512 ids. An id is a PTE, or with order 9 a PMD. Without a number the memcg has one address space, of its
            own number.
        node_pages: capacity of each node in 4 KiB pages.
        tiers: tier of each node, 0 on top.
        bloom_bits: bits a Bloom filter (a power of two).
        spare_mms: rows for address spaces that are born later (`lru_gen_add_mm`).
        tlb: state of the TLBs (`new_tlb`); none: there are none.
    """
    rows, start = [], 0
    for pages, memcg, file, order, *space in vmas:
        leaf = order if order == TABLE_SHIFT else 0
        rows.append((start, start + pages, memcg, int(file), order, space[0] if space else memcg, leaf))
        start += -(-pages // PTRS_PER_TABLE) * PTRS_PER_TABLE
    vma = np.array(rows, dtype=np.int64).reshape(-1, VMA_COLUMNS)
    n, k = start, len(node_pages)
    block_vma = np.zeros(n // PTRS_PER_TABLE, dtype=np.uint16)
    for index, (first, last, *_) in enumerate(rows):
        block_vma[first // PTRS_PER_TABLE : -(-last // PTRS_PER_TABLE)] = index
    node = np.zeros((k, NODE_COLUMNS), dtype=np.int64)
    base = huge = 0
    for index, pages in enumerate(node_pages):
        node[index, [CAPACITY, FREE, TIER]] = pages, pages, tiers[index]
        node[index, FIRST_FRAME], node[index, STACK_TOP] = base, pages
        base += pages
    for index, pages in enumerate(node_pages):  # 2 MiB frames are numbered behind all 4 KiB frames
        node[index, FIRST_HUGE], node[index, HUGE_TOP] = base + huge, pages // PTRS_PER_TABLE
        huge += pages // PTRS_PER_TABLE
    stack = np.zeros(base + huge, dtype=np.uint32)
    for index, pages in enumerate(node_pages):
        for first, count in ((node[index, FIRST_FRAME], pages), (node[index, FIRST_HUGE], pages // PTRS_PER_TABLE)):
            stack[first : first + count] = np.arange(first + count - 1, first - 1, -1)  # lowest frame on top
    lists = n_memcgs * k * MAX_NR_GENS * 2
    lru = np.zeros((n_memcgs * k, LRU_COLUMNS), dtype=np.int64)
    lru[:, MAX_SEQ], lru[:, MM_SEQ] = MAX_NR_GENS - 1, MAX_NR_GENS - 2  # lru_gen_init_lruvec
    lru[:, [MM_HEAD, MM_TAIL, OWN_HEAD, OWN_TAIL]] = NO_MM
    links = np.arange(n + lists, dtype=np.int32)
    pte, setting = np.zeros(n, dtype=np.uint8), np.zeros(N_SETTINGS, np.int64)
    arrays: list[np.ndarray] = [
        pte, pte.view(np.uint64), np.zeros(n, np.uint8), np.zeros(n, np.uint32), np.full(base + huge, -1, np.int32),
        stack, links.copy(), links.copy(), vma, block_vma, node, lru, np.zeros((4 * len(lru), bloom_bits), np.uint8),
        np.zeros(len(STATS), np.int64), np.zeros((k, 2), np.float64), np.zeros(n, np.uint32),
        np.full(n, NEVER_MS, np.int32), np.zeros(n, np.uint32), setting,
        mm_lists(rows, n_memcgs, k, spare_mms), np.zeros((0, 1), np.int64) if tlb is None else tlb,
    ]  # fmt: skip
    setting[LARGE_FOLIOS] = (vma[:, VMA_ORDER] > vma[:, VMA_LEAF_ORDER]).any()
    table = addresses(arrays)
    return Mm._make([*arrays, table, table.ctypes.data])


def mm_lists(rows: Sequence[tuple[int, ...]], n_memcgs: int, nodes: int, spare: int) -> np.ndarray:
    """The list of address spaces of each memcg, in order of their numbers; spare rows are in no list (NO_MM)."""
    owner = {row[VMA_MM]: row[VMA_MEMCG] for row in rows}
    spaces = max(owner, default=-1) + 1 + spare
    mms = np.zeros((spaces + n_memcgs, MM_RAN + nodes), np.int64)
    mms[:, [MM_NEXT, MM_PREV, MM_MEMCG]] = NO_MM
    for memcg in range(n_memcgs):
        ring = [spaces + memcg, *(space for space in sorted(owner) if owner[space] == memcg)]
        mms[ring, MM_MEMCG] = memcg
        mms[ring, MM_NEXT], mms[ring, MM_PREV] = ring[1:] + ring[:1], ring[-1:] + ring[:-1]
    return mms
