"""Folios: 4 KiB, 2 MiB (one PMD), and those between, each mapped by as many PTEs as it has pages (mTHP, files).

Of the last, the hardware's part is each PTE's: accessed and dirty bit, trap, frame. The kernel's part is the folio's,
kept with its head: flags, place on a list, time of the last marking (cpupid). So the walk sees and reports each young
PTE, but there is one generation; rmap looks at all PTEs; one hint fault restores them all; a folio moves as a whole.
Not modelled: splits, folios mapped in part, PTEs that the hardware coalesces in one TLB entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from klrubench.engine.bits import ACCESSED, TABLE_SHIFT
from klrubench.engine.jit import njit, njit_inline
from klrubench.mm.state import LARGE_FOLIOS, VMA_LEAF_ORDER, VMA_ORDER

if TYPE_CHECKING:
    from klrubench.engine.kinds import Int
    from klrubench.mm.state import Mm


@njit_inline
def vma_of(mm: Mm, page: int) -> np.int64:
    """Index of the VMA that holds a page."""
    return np.int64(mm.block_vma[page >> TABLE_SHIFT])


@njit_inline
def folio_nr_pages(mm: Mm, page: int) -> np.int64:
    """4 KiB pages of the folio behind a leaf: 1 to 512, a power of two."""
    return np.int64(1) << mm.vma[vma_of(mm, page), VMA_ORDER]


@njit_inline
def leaf_pages(mm: Mm, page: int) -> np.int64:
    """4 KiB pages that a leaf maps: 1, or 512 for a PMD."""
    return np.int64(1) << mm.vma[vma_of(mm, page), VMA_LEAF_ORDER]


@njit_inline
def folio_ptes(mm: Mm, page: int) -> Int:
    """Ids of the folio behind a leaf: PTEs that map it, or 1 for the PMD of a 2 MiB page."""
    if not mm.setting[LARGE_FOLIOS]:
        return np.int64(1)
    row = mm.vma[vma_of(mm, page)]
    return np.int64(1) << (row[VMA_ORDER] - row[VMA_LEAF_ORDER])


@njit_inline
def page_folio(mm: Mm, page: int) -> Int:
    """The head of the folio that a page belongs to: the page itself unless several PTEs map the folio."""
    return np.int64(page) & -folio_ptes(mm, page)


@njit
def test_and_clear_ptes(mm: Mm, first: int, last: int) -> Int:
    """Clear the accessed bits of PTEs first .. last - 1; returns how many were set."""
    young = np.int64(0)
    for page in range(first, last):
        young += (mm.pte[page] & np.uint8(ACCESSED)) != 0
        mm.pte[page] &= np.uint8(0xFF ^ ACCESSED)
    return young


@njit_inline
def test_and_clear_young(mm: Mm, head: int) -> Int:
    """Clear the accessed bits of all PTEs of a folio; returns how many were set."""
    if mm.setting[LARGE_FOLIOS]:
        return test_and_clear_ptes(mm, head, head + folio_ptes(mm, head))
    young = np.int64((mm.pte[head] & np.uint8(ACCESSED)) != 0)
    if young:
        mm.pte[head] &= np.uint8(0xFF ^ ACCESSED)
    return young


@njit_inline
def is_young(mm: Mm, head: int) -> bool:
    """Whether the accessed bit of any PTE of a folio is set."""
    young = np.uint8(0)
    for page in range(head, head + folio_ptes(mm, head)):
        young |= mm.pte[page] & np.uint8(ACCESSED)
    return bool(young)


def folios_of(mm: Mm, pages: np.ndarray) -> np.ndarray:
    """`page_folio` of each of many pages."""
    if not mm.setting[LARGE_FOLIOS]:
        return pages
    ids = pages.astype(np.int64)
    row = mm.vma[mm.block_vma[ids >> TABLE_SHIFT]]
    return np.asarray(ids & -(np.int64(1) << (row[:, VMA_ORDER] - row[:, VMA_LEAF_ORDER])))


def heads(mm: Mm, pages: np.ndarray) -> np.ndarray:
    """The folios of page ids, each once, in the order in which they come up."""
    if not mm.setting[LARGE_FOLIOS]:
        return pages
    found = folios_of(mm, pages)
    return found[np.sort(np.unique(found, return_index=True)[1])]


def whole_folios(mm: Mm, pages: np.ndarray) -> np.ndarray:
    """Of page ids, each given once, those whose folio is among them with all its pages."""
    if not mm.setting[LARGE_FOLIOS]:
        return pages
    row = mm.vma[mm.block_vma[pages >> TABLE_SHIFT]]
    ptes = np.int64(1) << (row[:, VMA_ORDER] - row[:, VMA_LEAF_ORDER])
    _, index, count = np.unique(pages & -ptes, return_inverse=True, return_counts=True)
    return pages[count[index] == ptes]
