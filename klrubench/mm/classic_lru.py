"""The classic LRU: an active and an inactive list of anonymous and of file folios,
as reclaim uses them where MGLRU is switched off.

Sources: shrink_lruvec, shrink_active_list, shrink_inactive_list, inactive_is_low, folio_check_references (mm/vmscan.c,
6.x). A folio that is faulted in starts on the inactive list. Anonymous and file lists are scanned alike, by size >>
priority (no refaults exist that would tip the balance); the active list only where the inactive one is low. Not
modelled: executable file mappings, which stay active when referenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import ACTIVE, IDLE, REFERENCED, WORKINGSET, YOUNG
from klrubench.engine.jit import njit_inline
from klrubench.mm.demotion import demote, next_demotion_node
from klrubench.mm.folio import folio_nr_pages, test_and_clear_young
from klrubench.mm.lru import ACTIVE_LIST, INACTIVE_LIST, list_head, lru_add, lru_isolate
from klrubench.mm.state import DEMOTE_FAIL, NR_PAGES, PAGES_EACH, PGREFILL, PGSCAN_KSWAPD

if TYPE_CHECKING:
    from klrubench.engine.kinds import Flag, Int
    from klrubench.mm.state import Mm

SWAP_CLUSTER_MAX = 32  # pages of a list at a time
PAGES_PER_GIB = 1 << 18


@njit_inline
def list_pages(mm: Mm, lruvec: int, which: int, file: int) -> int:
    """Pages on a list."""
    return mm.lru[lruvec, NR_PAGES + 2 * which + file]


@njit_inline
def inactive_is_low(mm: Mm, lruvec: int, file: int) -> bool:
    """Whether the active list has to give: inactive * sqrt(10 * GiB) < active, both lists' full size in whole GiB;
    ratio 1 below 1 GiB.
    """
    inactive, active = list_pages(mm, lruvec, INACTIVE_LIST, file), list_pages(mm, lruvec, ACTIVE_LIST, file)
    gib = (inactive + active) * max(np.int64(1), mm.setting[PAGES_EACH]) // PAGES_PER_GIB
    ratio = np.int64(np.sqrt(10.0 * gib)) if gib else np.int64(1)
    return inactive * ratio < active


@njit_inline
def rmap_referenced(mm: Mm, page: int) -> Flag:
    """folio_referenced: test and clear the accessed bits, and what idle page tracking has saved of them.
    It counts mappings (`pra->referenced++` once a VMA): however many PTEs were young it is one. No look-around.
    """
    young = test_and_clear_young(mm, page) > 0 or (mm.folio[page] & np.uint8(YOUNG)) != 0
    if young:
        mm.folio[page] &= np.uint8(0xFF ^ (YOUNG | IDLE))
    return young


@njit_inline
def shrink_active_list(mm: Mm, lruvec: int, file: int, pages: int) -> Int:
    """Move folios from the tail of the active list to the inactive one, referenced or not (the bit is cleared);
    folios examined.
    """
    head, examined = list_head(mm, lruvec, ACTIVE_LIST, file), np.int64(0)
    while pages > 0 and mm.lru_prev[head] != head:
        page = np.int64(mm.lru_prev[head])
        pages -= folio_nr_pages(mm, page)
        mm.stat[PGREFILL] += folio_nr_pages(mm, page)
        examined += 1
        lru_isolate(mm, page, True)
        rmap_referenced(mm, page)
        mm.folio[page] = (mm.folio[page] & np.uint8(0xFF ^ ACTIVE)) | np.uint8(WORKINGSET)
        lru_add(mm, page, False)
    return examined


@njit_inline
def keeps_classic(mm: Mm, page: int) -> bool:
    """folio_check_references of an inactive folio: True if it stays.

    Young once: keep and mark; marked before: activate. (Two references at once take two mappings.)
    """
    young, flags = rmap_referenced(mm, page), mm.folio[page]
    mm.folio[page] &= np.uint8(0xFF ^ REFERENCED)
    if not young:
        return False
    mm.folio[page] |= np.uint8(REFERENCED)
    if flags & np.uint8(REFERENCED):
        mm.folio[page] |= np.uint8(ACTIVE)
    return True


@njit_inline
def shrink_inactive_list(
    mm: Mm, lruvec: int, file: int, node: int, preferred: int, pages: int, fold: int
) -> tuple[Int, Int, bool]:
    """Demote folios from the tail of the inactive list that are not referenced;
    (folios examined, pages demoted, no room was left).
    """
    head, examined, demoted = list_head(mm, lruvec, INACTIVE_LIST, file), np.int64(0), np.int64(0)
    while pages > 0 and mm.lru_prev[head] != head:
        page = np.int64(mm.lru_prev[head])
        pages -= folio_nr_pages(mm, page)
        mm.stat[PGSCAN_KSWAPD] += folio_nr_pages(mm, page)
        examined += 1
        lru_isolate(mm, page, True)
        if keeps_classic(mm, page):
            lru_add(mm, page, False)
            continue
        moved = demote(mm, page, node, preferred, fold)
        demoted += moved
        if moved == 0:
            mm.stat[DEMOTE_FAIL] += folio_nr_pages(mm, page)
            return examined, demoted, True
    return examined, demoted, False


@njit_inline
def scan_target(mm: Mm, lruvec: int, which: int, file: int, priority: int, fold: int) -> int:
    """Pages of a list to be scanned in a round: its full size >> priority, at scale."""
    return -(-(list_pages(mm, lruvec, which, file) * fold >> priority) // fold)


@njit_inline
def shrink_classic(
    mm: Mm, lruvec: int, node: int, priority: int, wanted: int, examine: int, fold: int
) -> tuple[Int, Int, Int]:
    """One round of classic reclaim on a lruvec, at most about `examine` folios;
    (inactive and active folios examined, pages demoted).
    """
    cluster = max(np.int64(1), np.int64(SWAP_CLUSTER_MAX // fold))
    preferred = next_demotion_node(mm, node)
    examined = demoted = refilled = np.int64(0)
    for file in range(2):
        inactive = scan_target(mm, lruvec, INACTIVE_LIST, file, priority, fold)
        active = (
            scan_target(mm, lruvec, ACTIVE_LIST, file, priority, fold)
            if inactive_is_low(mm, lruvec, file)
            else np.int64(0)
        )
        full = False
        while (inactive > 0 or active > 0) and demoted < wanted and examined + refilled < examine and not full:
            if active > 0:
                refilled += shrink_active_list(mm, lruvec, file, min(active, cluster))
                active -= cluster
            if inactive > 0:
                seen, moved, full = shrink_inactive_list(
                    mm, lruvec, file, node, preferred, min(inactive, cluster), fold
                )
                inactive -= cluster
                examined += seen
                demoted += moved
    if inactive_is_low(mm, lruvec, 0):
        refilled += shrink_active_list(mm, lruvec, 0, cluster)
    return examined, refilled, demoted
