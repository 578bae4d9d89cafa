"""Idle page tracking on random pages: mark pages idle, look again an interval later. One bit a sampled page and round.

Source: mm/page_idle.c. Setting clears the accessed bit through rmap and saves it in PG_young, so that reclaim still
sees it; reading walks rmap again. The marks are a folio's: any young PTE of a large one clears them. This is neither
PEBS nor IBS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import GEN_MASK, IDLE, YOUNG
from klrubench.engine.jit import njit
from klrubench.mm.folio import page_folio, test_and_clear_young
from klrubench.mm.migrate import is_toptier
from klrubench.mm.table import mm_at

if TYPE_CHECKING:
    from klrubench.mm.state import Mm

__all__ = ["check_idle", "set_idle"]


@njit
def _set_idle(address: int, pages: np.ndarray) -> int:
    mm = mm_at(address)
    done = 0
    for k in range(len(pages)):
        page = page_folio(mm, pages[k])
        if not mm.folio[page] & np.uint8(GEN_MASK):
            continue
        if test_and_clear_young(mm, page):
            mm.folio[page] |= np.uint8(YOUNG)
        mm.folio[page] |= np.uint8(IDLE)
        done += 1
    return done


def set_idle(mm: Mm, pages: np.ndarray) -> int:
    """Mark pages idle: clear the accessed bit (saved in PG_young) and set PG_idle; returns pages set
    (those on an LRU list).
    """
    return _set_idle(mm.address, pages)


@njit
def _check_idle(address: int, pages: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    mm = mm_at(address)
    checked = touched = 0
    for k in range(len(pages)):
        page = page_folio(mm, pages[k])
        if not mm.folio[page] & np.uint8(IDLE):
            continue
        checked += 1
        if test_and_clear_young(mm, page):
            mm.folio[page] = (mm.folio[page] | np.uint8(YOUNG)) & np.uint8(0xFF ^ IDLE)
            if not is_toptier(mm, page):
                out[touched] = page
                touched += 1
    return checked, touched


def check_idle(mm: Mm, pages: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Read the marks back: writes the lower-tier pages that were touched since into `out`; returns
    (checked, touched).
    """
    return _check_idle(mm.address, pages, out)


@njit
def _draw_lower(address: int, candidates: np.ndarray, out: np.ndarray) -> int:
    mm = mm_at(address)
    seen = np.zeros(len(mm.pte), np.uint8)
    n = 0
    for k in range(len(candidates)):
        page = page_folio(mm, candidates[k])
        if n < len(out) and not seen[page] and not is_toptier(mm, page) and mm.folio[page] & np.uint8(GEN_MASK):
            seen[page] = 1
            out[n] = page
            n += 1
    return n


def draw_lower(mm: Mm, candidates: np.ndarray, out: np.ndarray) -> int:
    """Copy into `out` the candidates that lie on a lower tier, each once, until it is full; returns how many."""
    return _draw_lower(mm.address, candidates, out)
