"""Reclaim by kswapd: eviction order, the reference check, look-around, and demotion to the next tier.

Sources: scan_folios, sort_folio, isolate_folio, lru_gen_look_around, folio_check_references, demote_folio_list,
should_abort_scan, __setup_per_zone_wmarks, pgdat_balanced (mm/vmscan.c, mm/page_alloc.c). There is no swap: a folio
that cannot be demoted stays (a kernel drops it if it is a clean file page). Not modelled: direct reclaim (no allocation
happens after placement), proactive reclaim and memcg limits, tiers of file pages (no read()/write()), zones,
swappiness, min_ttl_ms, eviction by debugfs, a look-around that gives up at a contended lock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from klrubench.engine.array_table import reader
from klrubench.engine.bits import (
    ACCESSED,
    ACTIVE,
    GEN_MASK,
    IDLE,
    NODE_MASK,
    REFERENCED,
    TABLE_SHIFT,
    WORKINGSET,
    YOUNG,
)
from klrubench.engine.byte_masks import change_bytes, ones, places_of
from klrubench.engine.jit import njit, njit_inline, njit_source
from klrubench.engine.kthread import PARK, REQUEST, charged, charged_moves
from klrubench.mm.classic_lru import shrink_classic
from klrubench.mm.demotion import demote, next_demotion_node, set_demotion_targets
from klrubench.mm.folio import folio_nr_pages, folio_ptes, vma_of
from klrubench.mm.lru import (
    is_classic,
    list_add,
    list_del,
    list_head,
    lru_add,
    lru_isolate,
    places_on_lru,
    prefetch_folio,
    update_folios,
    update_generations,
)
from klrubench.mm.mglru.aging import should_run_aging, try_to_inc_max_seq, try_to_inc_min_seq
from klrubench.mm.mglru.bloom import bloom_update
from klrubench.mm.mglru.walk import DENSE_SHARE, N_WALK, places_between
from klrubench.mm.migrate import demoted_page_ps
from klrubench.mm.state import (
    CAPACITY,
    DEMOTE_FAIL,
    DEMOTE_FOLIOS,
    DEMOTION_TARGET,
    FREE,
    KSWAPD_FAILURES,
    KSWAPD_WAKE,
    KSWAPD_WAKES,
    LARGE_FOLIOS,
    MAX_NR_GENS,
    MAX_SEQ,
    MIN_NR_GENS,
    MIN_SEQ_ANON,
    NR_PAGES,
    PGAGING_PTE,
    PGAGING_YOUNG,
    PGCARRIED,
    PGSCAN_KSWAPD,
    PGSTEAL_KSWAPD,
    TWO_STEP,
    VMA_END,
    VMA_FILE,
    VMA_LEAF_ORDER,
    VMA_ORDER,
    VMA_START,
    WAKE_ON_REFUSE,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    WMARK_PROMO,
)  # fmt: skip
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

MIN_LRU_BATCH = 64  # pages isolated at a time (at scale fewer), and the look-around window (at any scale)
MAX_LRU_BATCH = 4096  # folios examined before others may run
VICTIMS_AHEAD = 4  # folios of prefetch distance
DEF_PRIORITY = 12
MAX_RECLAIM_RETRIES = (
    16  # runs without a page after which kswapd is not woken again (classic LRU; under MGLRU it never fails)
)
WORK = (DEMOTE_FOLIOS, PGSTEAL_KSWAPD, PGAGING_PTE, PGAGING_YOUNG, PGCARRIED)
# Work that kswapd does before others run. kv and uniform with pghot v3 and v5, random promotion and hint faults take
# the same time within seeds with slices of 5, 10 and 20 ms (v3: 124.6, 124.7, 124.6 s).
SLICE_PS = 20_000_000_000


def set_watermarks(system: System) -> None:
    """min, low, high and promo watermarks of each node (4 KiB pages): gap = max(min / 4, managed * factor / 10000).

    Computed for the full-size node, then scaled. min_free_kbytes is spread over nodes by size; the kernel's default is
    4 * sqrt(total KiB), within 128 .. 262144 KiB (init_per_zone_wmark_min).
    """
    node, fold = system.mm.node, system.fold
    managed = [int(pages) * fold for pages in node[:, CAPACITY]]
    asked = system.sysctl("vm.min_free_kbytes")
    min_free_kib = asked or min(262144, max(128, int(math.sqrt(sum(managed) * 4 * 16))))
    for index, pages in enumerate(managed):
        low = (min_free_kib // 4) * pages // sum(managed)
        gap = max(low // 4, pages * system.sysctl("vm.watermark_scale_factor") // 10_000)
        marks = [low, low + gap, low + 2 * gap, low + 3 * gap]
        node[index, [WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARK_PROMO]] = [max(1, round(mark / fold)) for mark in marks]
    set_demotion_targets(system)


@njit_inline
def look_around(mm: Mm, page: int, lruvec: int, node: int) -> bool:
    """An evictor that meets a young PTE also clears and counts up to 63 neighbours; True if the page itself was young.

    Window: within the PMD and the VMA; 64 pages around, shifted at the edges.
    """
    if not mm.pte[page] & np.uint8(ACCESSED):
        return False
    row = mm.vma[vma_of(mm, page)]
    if row[VMA_LEAF_ORDER] > 0:
        mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
        return True
    table = page >> TABLE_SHIFT
    first = max(row[VMA_START], table << TABLE_SHIFT)
    last = min(row[VMA_END], (table + 1) << TABLE_SHIFT)
    if last - first > MIN_LRU_BATCH:
        if page - first < MIN_LRU_BATCH // 2:
            last = first + MIN_LRU_BATCH
        elif last - page < MIN_LRU_BATCH // 2:
            first = last - MIN_LRU_BATCH
        else:
            first, last = page - MIN_LRU_BATCH // 2, page + MIN_LRU_BATCH // 2
    at = np.uint64(first)
    others = places_between(0, last - first) & ~places_between(page - first, page - first + 1)
    others &= places_of(mm.pte, at, np.uint8(ACCESSED | NODE_MASK), np.uint8(ACCESSED | node))
    if mm.setting[TWO_STEP]:  # it passes over isolated folios: their own PTEs are left to rmap
        others = places_on_lru(mm, at, others)
    young = 1 + ones(others)
    change_bytes(mm.pte, at, others, np.uint8(0xFF ^ ACCESSED), np.uint8(0))
    if row[VMA_ORDER] == 0:
        listed = places_on_lru(mm, at, others)
        update_generations(mm, at, listed, lruvec, row[VMA_FILE])
        change_bytes(mm.folio, at, others ^ listed, np.uint8(0xFF), np.uint8(REFERENCED))
    else:
        update_folios(mm, at, others, lruvec, -1)
    mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
    if young * DENSE_SHARE >= last - first:
        bloom_update(mm, lruvec, mm.lru[lruvec, MAX_SEQ], table, False)
    return True


@njit
def look_around_ptes(mm: Mm, head: int, lruvec: int, node: int) -> bool:
    """`look_around` at each PTE of a folio that several may map; True if any was young.

    folio_referenced counts mappings (`pra->referenced++` once a VMA): several young PTEs are one reference. But up to
    6.13 look-around at one that meets another of the same folio marks that folio, which the check finds referenced.
    """
    young = False
    for page in range(head, head + folio_ptes(mm, head)):
        if look_around(mm, page, lruvec, node):
            young = True
    return young


@njit_inline
def referenced(mm: Mm, page: int, lruvec: int, node: int) -> bool:
    """folio_referenced: the accessed bit, or the one that idle page tracking saved in PG_young."""
    if mm.setting[LARGE_FOLIOS]:
        young = look_around_ptes(mm, page, lruvec, node)
    else:
        young = look_around(mm, page, lruvec, node)
    if mm.folio[page] & np.uint8(YOUNG):
        young = True
    if young:
        mm.folio[page] &= np.uint8(0xFF ^ (YOUNG | IDLE))
    return young


@njit_inline
def keeps_page(mm: Mm, page: int, young: bool) -> bool:
    """The reference check of an isolated folio: True if it stays (folio_check_references).

    Up to 6.13: young once: keep and mark; marked before: activate. From 6.14: first time keep, second time activate.
    """
    if not young:
        return False
    flags = mm.folio[page]
    if flags & np.uint8(REFERENCED | WORKINGSET):
        mm.folio[page] = (flags & np.uint8(0xFF ^ REFERENCED)) | np.uint8(ACTIVE | WORKINGSET)
    else:
        mm.folio[page] = flags | np.uint8(REFERENCED)
    return True


@njit_inline
def prefetch_victim(mm: Mm, page: int) -> np.int64:
    """Prefetch what is read of the folio behind `page` on its list; returns that folio (or the head of the list)."""
    before = np.int64(mm.lru_prev[page])
    prefetch_folio(mm, np.uint64(before))
    return before


@njit_inline
def isolate_folios(
    mm: Mm, head: int, generation: int, batch: np.ndarray, wanted: int, examine: int
) -> tuple[Int, Int, Int]:
    """Take folios from the tail of a list until `wanted` pages are isolated (in `batch`) or `examine` folios examined.

    A folio whose generation a walk has changed is only moved to its list. Returns (isolated, examined, pages examined).
    """
    isolated = pages = examined = scanned = np.int64(0)
    ahead = np.int64(head)
    for _ in range(VICTIMS_AHEAD):
        ahead = prefetch_victim(mm, ahead)
    while pages < wanted and examined < examine and mm.lru_prev[head] != head:
        page = np.int64(mm.lru_prev[head])
        size, own = folio_nr_pages(mm, page), np.int64(mm.folio[page] & np.uint8(GEN_MASK)) - 1
        examined += 1
        scanned += size
        ahead = prefetch_victim(mm, ahead)
        if own != generation:
            list_del(mm, page)
            list_add(mm, page, head + 2 * (own - generation), False)
            continue
        lru_isolate(mm, page, True)
        batch[isolated] = page
        isolated += 1
        pages += size
    return isolated, examined, scanned


@njit_inline
def shrink_folio_list(
    mm: Mm, batch: np.ndarray, isolated: int, lruvec: int, node: int, target: int, fold: int
) -> tuple[Int, bool]:
    """Demote those of the isolated folios that are not young, put the others back; (pages demoted, no room left)."""
    demoted, full = np.int64(0), False
    for k in range(isolated):
        page = batch[k]
        if full or keeps_page(mm, page, referenced(mm, page, lruvec, node)):
            lru_add(mm, page, False)
            continue
        moved = demote(mm, page, node, target, fold)
        demoted += moved
        if moved == 0:
            mm.stat[DEMOTE_FAIL] += folio_nr_pages(mm, page)
            full = True
    return demoted, full


@njit_inline
def evict_folios(mm: Mm, lruvec: int, node: int, wanted: int, examine: int, fold: int) -> tuple[Int, Int]:
    """Take folios from the tail of the oldest generation, demote those not young; returns (folios examined, pages
    demoted).

    64 pages at a time are isolated before the first of them is checked, so that look-around at one of them meets the
    others off their list. Stops after `examine` folios or `wanted` pages, but not within such a batch.
    """
    row, batch = mm.lru[lruvec], np.empty(MIN_LRU_BATCH, np.int64)
    target, each = next_demotion_node(mm, node), max(np.int64(1), np.int64(MIN_LRU_BATCH // fold))
    examined = demoted = np.int64(0)
    full = False
    for file in range(1, -1, -1):
        if row[MIN_SEQ_ANON + file] + MIN_NR_GENS > row[MAX_SEQ]:
            continue
        generation = row[MIN_SEQ_ANON + file] % MAX_NR_GENS
        head = list_head(mm, lruvec, generation, file)
        while examined < examine and demoted < wanted and not full and mm.lru_prev[head] != head:
            isolated, seen, scanned = isolate_folios(mm, head, generation, batch, each, examine - examined)
            examined += seen
            mm.stat[PGSCAN_KSWAPD] += scanned
            moved, full = shrink_folio_list(mm, batch, isolated, lruvec, node, target, fold)
            demoted += moved
    return examined, demoted


@njit_source
def shrink_lruvec(
    mm: Mm,
    lruvec: int,
    memcg: int,
    node: int,
    priority: int,
    wanted: int,
    examine: Int,
    fold: int,
    walk: np.ndarray,
    classic: bool | None,
) -> tuple[Int, Int, Int, bool]:
    """A batch of a round of reclaim on a lruvec, up to `examine` folios: (folios examined, those of the classic active
    list apart, pages demoted, whether a generation was made).

    classic: None under MGLRU: a constant of the type, so that only what is run is compiled.
    """
    if classic is not None:
        examined, refilled, demoted = shrink_classic(mm, lruvec, node, priority, wanted, examine, fold)
        mm.stat[PGSTEAL_KSWAPD] += demoted
        return examined, refilled, demoted, False
    try_to_inc_min_seq(mm, lruvec)
    if should_run_aging(mm, lruvec) and priority < DEF_PRIORITY:  # low on cold folios: this round evicts none
        return 0, 0, 0, try_to_inc_max_seq(mm, lruvec, memcg, node, 0, walk)
    evictable = np.int64(0)
    for k in range(MAX_NR_GENS * 2):
        evictable += mm.lru[lruvec, NR_PAGES + k]
    examine = min(examine, max(np.int64(1), evictable >> priority))
    examined, demoted = evict_folios(mm, lruvec, node, wanted, examine, fold)
    mm.stat[PGSTEAL_KSWAPD] += demoted
    return examined, np.int64(0), demoted, False


@njit_inline
def round_pages(mm: Mm, lruvec: int, priority: int) -> Int:
    """Pages that a round at this priority examines, in batches: the lists' size >> priority.

    try_to_shrink_lruvec goes on in batches of MAX_LRU_BATCH, shrink_lruvec (classic: the inactive lists) in clusters.
    """
    pages = np.int64(0)
    for k in range(2 if is_classic(mm) else MAX_NR_GENS * 2):
        pages += mm.lru[lruvec, NR_PAGES + k]
    return max(np.int64(1), pages >> priority)


@njit_source
def reclaim_slice(
    mm: Mm,
    node: int,
    memcgs: int,
    target_free: int,
    price: np.ndarray,
    examine: int,
    fold: int,
    walk: np.ndarray,
    progress: np.ndarray,
    classic: bool | None,
) -> None:
    """kswapd's work until the node has `target_free` pages, the slice is used, an aging pass was made, or priority is
    spent.

    price: i64 [3], ps a folio examined, ps a page demoted, ps of the slice. progress: i64 [4], priority, the next
    memcg, and pages left of its round, kept from slice to slice; folios examined in all, added to.
    """
    used = np.int64(0)
    found = False
    while progress[0] >= 1 and mm.node[node, FREE] < target_free and used < price[2]:
        memcg = progress[1]
        lruvec = memcg * len(mm.node) + node
        wanted = target_free - mm.node[node, FREE]
        if progress[2] <= 0:
            progress[2] = round_pages(mm, lruvec, progress[0])
        batch, before = min(examine, progress[2]), mm.stat[PGSCAN_KSWAPD]
        examined, refilled, demoted, aged = shrink_lruvec(
            mm, lruvec, memcg, node, progress[0], wanted, batch, fold, walk, classic
        )
        found = found or demoted > 0
        used += examined * price[0] + demoted * price[1] + 1
        progress[3] += examined + refilled
        progress[2] = progress[2] - (mm.stat[PGSCAN_KSWAPD] - before) if examined else 0
        if progress[2] <= 0:
            progress[1] += 1
        if progress[1] >= memcgs:
            progress[1] = 0
            if not found:
                progress[0] -= 1
            found = False
        if aged:
            return


@njit
def _balance_slice(
    address: int, node: int, memcgs: int, target_free: int, price: np.ndarray, examine: int, fold: int,
    walk: np.ndarray, progress: np.ndarray, classic: bool | None,
) -> None:  # fmt: skip
    reclaim_slice(mm_at(address), node, memcgs, target_free, price, examine, fold, walk, progress, classic)


def balance_slice(
    mm: Mm, node: int, memcgs: int, target_free: int, price: np.ndarray, examine: int, fold: int, walk: np.ndarray,
    progress: np.ndarray,
) -> None:  # fmt: skip
    """`reclaim_slice`, from Python."""
    classic = True if is_classic.py_func(mm) else None
    _balance_slice(mm.address, node, memcgs, target_free, price, examine, fold, walk, progress, classic)


# kswapd's own words: the memory, what it is given, what it is at
K_MM, K_NODE, K_MEMCGS, K_FOLD, K_BATCH, K_EXAMINE, K_ROOM, K_LARGEST, K_BALANCING, K_STOLEN, K_WORDS = range(11)
# what it is charged for: work counted by WORK, folios of 4 KiB and of 2 MiB demoted (others: on the line between)
COSTS = ("aging_pte", "aging_young", "carry_page", "kswapd_scan", "kswapd_page", "migrate_2m")
C_PTE, C_YOUNG, C_CARRY, C_SCAN, C_PAGE, C_HUGE = range(len(COSTS))

kswapd_at: Any = reader(
    "KswapdThread",
    row=(np.int64, 1), events=(np.int64, 1), price_ps=(np.float64, 1), own=(np.int64, 1), slice_price=(np.int64, 1),
    walk=(np.int64, 1), progress=(np.int64, 1), before=(np.int64, 1),
)  # fmt: skip


@njit_inline
def target_free(mm: Mm, own: np.ndarray) -> Int:
    """Free pages at which the node counts as balanced: a wake for a large folio asks for room for one above the mark
    (of full size; at scale the simulated one, which stands for many, must fit too).
    """
    mark = mm.node[own[K_NODE], WMARK_PROMO if mm.setting[WAKE_ON_REFUSE] else WMARK_HIGH]
    return max(mark + own[K_ROOM], own[K_LARGEST])


@njit_inline
def charged_slice(mm: Mm, t: Any) -> float:
    """Picoseconds of what was done since the counters stood as in `before`."""
    stat, before, fold, events, price = mm.stat, t.before, t.own[K_FOLD], t.events, t.price_ps
    folios, pages = stat[DEMOTE_FOLIOS] - before[0], stat[PGSTEAL_KSWAPD] - before[1]
    t.own[K_STOLEN] += pages
    spent = charged(events, price, C_PTE, stat[PGAGING_PTE] - before[2], fold)
    spent += charged(events, price, C_YOUNG, stat[PGAGING_YOUNG] - before[3], fold)
    spent += charged(events, price, C_CARRY, stat[PGCARRIED] - before[4], fold)
    spent += charged(events, price, C_SCAN, t.progress[3], fold)
    return spent + charged_moves(events, price, C_PAGE, C_HUGE, folios, pages, fold)


@njit_source
def kswapd_turn(context: int, classic: bool | None) -> Int:
    """A slice of 20 ms of reclaim, or the end of a wake: once balanced, or when nothing more can be had, it parks."""
    t = kswapd_at(context)
    own = t.own
    mm = mm_at(own[K_MM])
    state = mm.node[own[K_NODE]]
    if not own[K_BALANCING]:
        state[KSWAPD_WAKE] = 0
        if state[KSWAPD_FAILURES] >= MAX_RECLAIM_RETRIES:
            t.row[REQUEST] = PARK
            return np.int64(0)
        mm.stat[KSWAPD_WAKES] += 1
        own[K_BALANCING], own[K_STOLEN] = 1, 0
        t.progress[0], t.progress[1], t.progress[2] = DEF_PRIORITY if state[DEMOTION_TARGET] >= 0 else 0, 0, 0
    target = target_free(mm, own) + own[K_BATCH]
    if t.progress[0] >= 1 and state[FREE] < target:
        for k in range(len(WORK)):
            t.before[k] = mm.stat[WORK[k]]
        t.progress[3] = 0
        reclaim_slice(
            mm, own[K_NODE], own[K_MEMCGS], target, t.slice_price, own[K_EXAMINE], own[K_FOLD], t.walk, t.progress,
            classic,
        )  # fmt: skip
        return np.int64(np.rint(charged_slice(mm, t)))
    failed = classic is not None and own[K_STOLEN] == 0 and state[FREE] < target - own[K_BATCH]
    state[KSWAPD_FAILURES] = state[KSWAPD_FAILURES] + 1 if failed else 0
    state[KSWAPD_WAKE] = own[K_BALANCING] = 0
    t.row[REQUEST] = PARK
    return np.int64(0)


def kswapd_mglru(context: int, unused: int, now_ps: int) -> int:
    """kswapd's turn under MGLRU."""
    return kswapd_turn(context, None)


def kswapd_classic(context: int, unused: int, now_ps: int) -> int:
    """kswapd's turn with the classic two lists."""
    return kswapd_turn(context, True)


class Kswapd:
    """kswapd of one top- or middle-tier node: sleeps until woken, then demotes until the node is balanced.

    Woken by a refused promotion under memory tiering, and by a demotion that finds its node below the low watermark; an
    allocation that spills to a slower node wakes nobody. Balanced: free >= high watermark, or promo where memory
    tiering asks for it (kernel.numa_balancing bit 2, or our switch that lets any refused promotion wake kswapd).
    """

    metadata_bytes = 0

    def __init__(self, node: int) -> None:
        self.node = node

    def attach(self, system: System) -> None:
        """Start the thread."""
        mm, fold = system.mm, system.fold
        order = int(mm.vma[:, VMA_ORDER].max())
        own = np.zeros(K_WORDS, np.int64)
        own[[K_MM, K_NODE, K_MEMCGS, K_FOLD]] = mm.address, self.node, system.n_memcgs, fold
        own[[K_BATCH, K_EXAMINE]] = max(1, MIN_LRU_BATCH // fold), max(1, MAX_LRU_BATCH // fold)
        if order:
            own[[K_ROOM, K_LARGEST]] = max(1, (1 << order) // fold), 1 << order
        moved_ps = demoted_page_ps(system)
        price = np.array([system.cost_ps("kswapd_scan"), moved_ps, SLICE_PS // fold], np.int64)
        arrays = [own, price, np.zeros(N_WALK, np.int64), np.zeros(4, np.int64), np.zeros(len(WORK), np.int64)]
        wake = mm.node[self.node, KSWAPD_WAKE : KSWAPD_WAKE + 1]
        turn = kswapd_classic if is_classic.py_func(mm) else kswapd_mglru
        system.kernel_thread("kswapd", turn, COSTS, arrays, wake_word=wake)
