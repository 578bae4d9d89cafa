"""Frames and migration: allocation, the copy, and the gate that every promotion passes.

Sources: migrate_misplaced_folio_prepare and migrate_balanced_pgdat (mm/migrate.c, 6.12).
Not modelled: fragmentation (a folio needs as many free pages of the node as it has, not contiguous ones; its frames lie
side by side as long as all folios of the machine have one size), failure of locks, file folios that the gate refuses
(dirty ones, executable ones mapped by several processes), a gate asked once for a batch that is isolated already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import NODE_MASK, TRAP
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.folio import folio_nr_pages, folio_ptes, heads, leaf_pages, page_folio
from klrubench.mm.lru import lru_add, lru_isolate
from klrubench.mm.state import (
    AGAIN_MS,
    DEMOTE_FOLIOS,
    DEMOTION_TARGET,
    FIRST_FRAME,
    FIRST_HUGE,
    FREE,
    HUGE_TOP,
    KSWAPD_WAKE,
    LARGE_FOLIOS,
    NOW_MS,
    PGDEMOTE_KSWAPD,
    PGMIGRATE_FAIL,
    PGMIGRATE_SUCCESS,
    PGPROMOTE_SUCCESS,
    PROMOTE_FOLIOS,
    PROMOTE_REFUSED,
    PROMOTED_AGAIN,
    PROMOTED_BEST,
    PROMOTED_JUDGED,
    STACK_TOP,
    TAIL_FRAMES,
    TIER,
    VMA_END,
    VMA_LEAF_ORDER,
    VMA_ORDER,
    VMA_START,
    WAKE_ON_REFUSE,
    WINDOW,
    WMARK_HIGH,
    WMARK_PROMO,
)  # fmt: skip
from klrubench.mm.table import mm_at
from klrubench.mm.tlb import shoot_down

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm
    from klrubench.simulate import System

PAGE_BYTES = 4096.0
SLICE_PS = 1_000_000_000, 10_000_000_000  # least and most work of a migrating thread before others run
FLUSH_PAGES = 512  # a TLB flush of batched migration (NR_MAX_BATCHED_MIGRATION, 20230116063057.653862-1)


@njit_inline
def alloc_frame(mm: Mm, node: int, pages: int) -> np.int64:
    """Take a free frame of a node (4 KiB or 2 MiB); the caller has checked that `pages` are free."""
    first, top = (FIRST_FRAME, STACK_TOP) if pages == 1 else (FIRST_HUGE, HUGE_TOP)
    mm.node[node, FREE] -= pages
    mm.node[node, top] -= 1
    return np.int64(mm.frame_stack[mm.node[node, first] + mm.node[node, top]])


@njit_inline
def free_frame(mm: Mm, node: int, frame: int, pages: int) -> None:
    """Give a frame back; it is the next one handed out."""
    first, top = (FIRST_FRAME, STACK_TOP) if pages == 1 else (FIRST_HUGE, HUGE_TOP)
    mm.frame_stack[mm.node[node, first] + mm.node[node, top]] = frame
    mm.node[node, FREE] += pages
    mm.node[node, top] += 1
    mm.frame_page[frame] = -1


@njit_inline
def set_frame(mm: Mm, page: int, frame: int) -> None:
    """Let a leaf map a frame."""
    mm.pfn[page] = frame
    mm.frame_page[frame] = page


@njit_inline
def map_frame(mm: Mm, page: int, target: int, pages: int) -> None:
    """Let a leaf of so many pages map a free frame of another node."""
    set_frame(mm, page, alloc_frame(mm, target, pages))
    if not mm.pte[page] & np.uint8(TRAP):
        shoot_down(mm, page)
    state = mm.pte[page] & np.uint8(0xFF ^ (NODE_MASK | TRAP))  # the new PTE is not PROT_NONE
    mm.pte[page] = state | np.uint8(target)


@njit
def move_ptes(mm: Mm, head: int, source: int, target: int) -> None:
    """Move the frames of a folio that several PTEs may map."""
    ptes, leaf = folio_ptes(mm, head), leaf_pages(mm, head)
    for page in range(head + ptes - 1, head - 1, -1):  # so that the first is the next one handed out
        free_frame(mm, source, np.int64(mm.pfn[page]), leaf)
    for page in range(head, head + ptes):
        map_frame(mm, page, target, leaf)
    mm.node[source, TAIL_FRAMES] -= ptes - 1
    mm.node[target, TAIL_FRAMES] += ptes - 1


@njit
def best_pages(mm: Mm, head: int, window: int) -> Int:
    """Pages of a folio that are among the best for the top tier in a window."""
    found = np.int64(0)
    for page in range(head, head + folio_ptes(mm, head)):
        found += np.int64((mm.best[page] >> np.uint32(window)) & np.uint32(1))
    return found * leaf_pages(mm, head)


@njit_inline
def folio_price(small: Int, huge: Int, pages: int) -> Int:
    """What a folio of so many pages costs: on the line between one page (`small`) and 512 (`huge`)."""
    return small + (huge - small) * (pages - 1) // 511


@njit_inline
def move_isolated(mm: Mm, page: int, target: int, fold: int) -> bool:
    """Copy an isolated folio to another node and put it on the lists there; False if the node is out of frames."""
    pages = folio_nr_pages(mm, page)
    if mm.node[target, FREE] < pages:
        mm.stat[PGMIGRATE_FAIL] += pages
        return False
    source = np.int64(mm.pte[page] & np.uint8(NODE_MASK))
    if mm.setting[LARGE_FOLIOS]:
        move_ptes(mm, page, source, target)
    else:
        free_frame(mm, source, np.int64(mm.pfn[page]), pages)
        map_frame(mm, page, target, pages)
    lru_add(mm, page, False)
    mm.stat[PGMIGRATE_SUCCESS] += pages
    mm.traffic[source, 0] += pages * PAGE_BYTES * fold
    mm.traffic[target, 1] += pages * PAGE_BYTES * fold
    return True


@njit_inline
def count_promotion(mm: Mm, page: int, pages: int) -> None:
    """Counters and instruments of a promotion that succeeded."""
    mm.stat[PGPROMOTE_SUCCESS] += pages
    mm.stat[PROMOTE_FOLIOS] += 1
    if mm.setting[NOW_MS] - mm.demoted_ms[page] < AGAIN_MS:
        mm.stat[PROMOTED_AGAIN] += pages
    if mm.setting[WINDOW] >= 0:
        mm.stat[PROMOTED_JUDGED] += pages
        if mm.setting[LARGE_FOLIOS]:
            mm.stat[PROMOTED_BEST] += best_pages(mm, page, mm.setting[WINDOW])
        elif (mm.best[page] >> np.uint32(mm.setting[WINDOW])) & np.uint32(1):
            mm.stat[PROMOTED_BEST] += pages


@njit_inline
def gate_allows(mm: Mm, target: int, pages: int, fold: int) -> bool:
    """The destination must have high watermark + the folio free;
    a refusal wakes its kswapd only where the setting says so.

    A simulated 2 MiB leaf stands for 1/scale huge pages that come one by one: the gate asks for room for one of them
    above the watermark, the move itself for room for the leaf.
    """
    free = mm.node[target, FREE]
    if free >= pages and free >= mm.node[target, WMARK_HIGH] + max(np.int64(1), pages // fold):
        return True
    mm.stat[PROMOTE_REFUSED] += pages
    if mm.setting[WAKE_ON_REFUSE]:
        mm.node[target, KSWAPD_WAKE] = 1
    return False


@njit_inline
def promote(mm: Mm, page: int, target: int, fold: int) -> int:
    """Gate, isolate, move the folio of a page: returns the 4 KiB pages promoted (0 if refused)."""
    pages, page = folio_nr_pages(mm, page), page_folio(mm, page)
    if not gate_allows(mm, target, pages, fold):
        return 0
    if not lru_isolate(mm, page, False):
        return 0
    if not move_isolated(mm, page, target, fold):
        lru_add(mm, page, False)
        return 0
    count_promotion(mm, page, pages)
    return pages


@njit_inline
def demote_isolated(mm: Mm, page: int, target: int, fold: int) -> int:
    """Move an isolated victim down; returns the 4 KiB pages demoted (0: put back)."""
    pages = folio_nr_pages(mm, page)
    if not move_isolated(mm, page, target, fold):
        lru_add(mm, page, False)
        return 0
    mm.stat[PGDEMOTE_KSWAPD] += pages
    mm.stat[DEMOTE_FOLIOS] += 1
    mm.demoted_ms[page] = mm.setting[NOW_MS]
    return pages


@njit_inline
def is_toptier(mm: Mm, page: int) -> bool:
    """Whether a page lies on a node of the top tier."""
    return mm.node[np.int64(mm.pte[page] & np.uint8(NODE_MASK)), TIER] == 0


@njit
def _promote_many(address: int, pages: np.ndarray, target: int, fold: int) -> tuple[Int, Int]:
    mm = mm_at(address)
    folios = moved = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        n = promote(mm, page, target, fold)
        folios += n > 0
        moved += n
    return folios, moved


def promote_many(mm: Mm, pages: np.ndarray, target: int, fold: int) -> tuple[int, int]:
    """Promote folios of lower tiers, by their first pages, each through the gate; (folios, 4 KiB pages) promoted."""
    return _promote_many(mm.address, pages, target, fold)


def promote_pages(system: System, pages: np.ndarray, target: int) -> int:
    """Asynchronous batched promotion of the folios of page ids by the running thread, which pays for it; returns folios
    promoted.
    """
    pages = heads(system.mm, pages)
    folios, moved = promote_many(system.mm, pages, target, system.fold)
    system.charge_moves("kpromoted_page", folios, moved)
    system.charge(kpromoted_pop=len(pages) - folios)
    system.flush_tlb(moved, FLUSH_PAGES)
    return int(folios)


def demoted_page_ps(system: System) -> int:
    """What kswapd pays for a 4 KiB page of the largest folios in use, ps."""
    pages = 1 << int(system.mm.vma[:, VMA_ORDER].max())
    return int(folio_price.py_func(system.cost_ps("kswapd_page"), system.cost_ps("migrate_2m"), pages)) // pages


def slice_ps(system: System) -> int:
    """Work, in ps of simulated events, that a thread without a cap of its own does before others run.

    Half of the time that kswapd needs to free what lies between two watermarks of the target: were it not to get its
    turn by then, the gate would turn away what on a real machine finds room. From 1 to 10 ms, full size.
    """
    mark = system.mm.node[system.default_target]
    refill = int(mark[WMARK_PROMO] - mark[WMARK_HIGH]) * demoted_page_ps(system)
    largest = 1 << int(system.mm.vma[:, VMA_ORDER].max())
    if largest > 1:
        refill += largest * demoted_page_ps(system)
    least, most = (ps // system.fold for ps in SLICE_PS)
    return max(1, least, min(most, refill // 2))


def set_residents(system: System, wanted: np.ndarray, charged: bool) -> None:
    """Make the folios of page ids `wanted` (hottest first) the top tier's residents, without gate: what oracles do.

    Free moves cost neither time nor bandwidth; charged ones are paid by the running thread like promotions and
    demotions.
    """
    mm, target = system.mm, system.default_target
    below = (
        int(mm.node[target, DEMOTION_TARGET])
        if mm.node[target, DEMOTION_TARGET] >= 0
        else int(np.flatnonzero(mm.node[:, TIER] > 0)[0])
    )
    wanted = heads(mm, wanted)
    keep = np.zeros(len(mm.pte), bool)
    keep[wanted] = True
    on_top = np.zeros(len(mm.pte), bool)
    for first, last, order, leaf in mm.vma[:, [VMA_START, VMA_END, VMA_ORDER, VMA_LEAF_ORDER]]:
        folios = slice(first, last, 1 << order - leaf)
        on_top[folios] = mm.node[mm.pte[folios] & NODE_MASK, TIER] == 0
    fold = system.fold if charged else 0
    falling = np.flatnonzero(on_top & ~keep)
    down = move_many(mm, falling, below, fold, False)
    up = move_many(mm, wanted[~on_top[wanted]], target, fold, True)
    if charged:
        system.charge_moves("kpromoted_page", *up)
        system.charge_moves("kswapd_page", *down)
        system.flush_tlb(up[1], FLUSH_PAGES)


@njit
def _move_many(address: int, pages: np.ndarray, target: int, fold: int, up: bool) -> tuple[Int, Int]:
    mm = mm_at(address)
    folios = moved = np.int64(0)
    for k in range(len(pages)):
        page = np.int64(pages[k])
        if np.int64(mm.pte[page] & np.uint8(NODE_MASK)) == target or not lru_isolate(mm, page, False):
            continue
        if not move_isolated(mm, page, target, fold):
            lru_add(mm, page, False)
            continue
        n = folio_nr_pages(mm, page)
        folios += 1
        moved += n
        if up:
            count_promotion(mm, page, n)
        else:
            mm.stat[PGDEMOTE_KSWAPD] += n
            mm.stat[DEMOTE_FOLIOS] += 1
            mm.demoted_ms[page] = mm.setting[NOW_MS]
    return folios, moved


def move_many(mm: Mm, pages: np.ndarray, target: int, fold: int, up: bool) -> tuple[int, int]:
    """Move folios outside of any kernel path (oracles): no gate, no cost; returns (folios, 4 KiB pages) moved."""
    return _move_many(mm.address, pages, target, fold, up)
