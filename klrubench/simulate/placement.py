"""Where pages are before access 0: allocated in the workload's own order, accessed bits left set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import ACCESSED, ACTIVE, DIRTY, GEN_MASK
from klrubench.engine.jit import njit
from klrubench.errors import CapacityError
from klrubench.mm.folio import folio_nr_pages, folio_ptes, leaf_pages, page_folio
from klrubench.mm.lru import is_classic, lru_add
from klrubench.mm.migrate import alloc_frame, set_frame
from klrubench.mm.state import FREE, PGALLOC_SPILL, TAIL_FRAMES, WMARK_LOW, WMARK_MIN
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.mm.state import Mm


@njit
def allocate(address: int, order: np.ndarray, zonelist: np.ndarray) -> int:
    """Fault pages in, in that order: the first node of the zonelist above its low watermark, else above min;
    pages left over.
    """
    mm = mm_at(address)
    for k in range(len(order)):
        page = page_folio(mm, order[k])
        if mm.folio[page] & np.uint8(GEN_MASK):  # faulted in with another page of its folio
            continue
        pages, ptes, leaf = folio_nr_pages(mm, page), folio_ptes(mm, page), leaf_pages(mm, page)
        chosen = -1
        for mark in (WMARK_LOW, WMARK_MIN):
            for z in range(len(zonelist)):
                node = zonelist[z]
                if mm.node[node, FREE] - pages >= mm.node[node, mark]:
                    chosen = node
                    mm.stat[PGALLOC_SPILL] += pages * (z > 0)
                    break
            if chosen >= 0:
                break
        if chosen < 0:
            return len(order) - k
        for each in range(page, page + ptes):
            set_frame(mm, each, alloc_frame(mm, chosen, leaf))
            mm.pte[each] = np.uint8(chosen) | np.uint8(ACCESSED | DIRTY)
        mm.node[chosen, TAIL_FRAMES] += ptes - 1
        mm.folio[page] = np.uint8(
            0 if is_classic(mm) else ACTIVE
        )  # lru_gen_in_fault; the classic LRU starts on the inactive list
        lru_add(mm, page, False)
    return 0


def place(mm: Mm, order: np.ndarray, zonelist: list[int], where: str) -> None:
    """Allocate every page of `order` (ids) from `zonelist`.

    Raises:
        CapacityError: the nodes are full before all pages are placed.
    """
    left = allocate(mm.address, order.astype(np.int64), np.array(zonelist, np.int64))
    if left:
        raise CapacityError(
            f"{left} of {len(order)} pages do not fit the {where}; take a larger node or a smaller footprint"
        )
