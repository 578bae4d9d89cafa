"""Idle page tracking on random pages: mark pages idle, look again an interval later. One bit a sampled page and round.

Source: mm/page_idle.c. Setting clears the accessed bit through rmap and saves it in PG_young, so that reclaim still sees it; reading
walks rmap again. This is neither PEBS nor IBS.
"""

from __future__ import annotations

import numpy as np

from klrubench.engine.bits import ACCESSED, GEN_MASK, IDLE, YOUNG
from klrubench.engine.jit import njit
from klrubench.mm.migrate import is_toptier

__all__ = ["check_idle", "set_idle"]


@njit
def set_idle(mm, pages):
    """Mark pages idle: clear the accessed bit (saved in PG_young) and set PG_idle; returns pages set (those on an LRU list)."""
    done = 0
    for k in range(len(pages)):
        page = np.int64(pages[k])
        if not mm.folio[page] & np.uint8(GEN_MASK):
            continue
        if mm.pte[page] & np.uint8(ACCESSED):
            mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
            mm.folio[page] |= np.uint8(YOUNG)
        mm.folio[page] |= np.uint8(IDLE)
        done += 1
    return done


@njit
def check_idle(mm, pages, out):
    """Read the marks back: writes the lower-tier pages that were touched since into `out`; returns (checked, touched)."""
    checked = touched = 0
    for k in range(len(pages)):
        page = np.int64(pages[k])
        if not mm.folio[page] & np.uint8(IDLE):
            continue
        checked += 1
        if mm.pte[page] & np.uint8(ACCESSED):
            mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
            mm.folio[page] = (mm.folio[page] | np.uint8(YOUNG)) & np.uint8(0xFF ^ IDLE)
            if not is_toptier(mm, page):
                out[touched] = page
                touched += 1
    return checked, touched


@njit
def draw_lower(mm, candidates, out):
    """Copy into `out` the candidates that lie on a lower tier, each once, until it is full; returns how many."""
    seen = np.zeros(len(mm.pte), np.uint8)
    n = 0
    for k in range(len(candidates)):
        page = candidates[k]
        if n < len(out) and not seen[page] and not is_toptier(mm, page) and mm.folio[page] & np.uint8(GEN_MASK):
            seen[page] = 1
            out[n] = page
            n += 1
    return n
