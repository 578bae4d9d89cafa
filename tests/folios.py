"""Folios of a small memory: their first pages, and bytes drawn at random made those of whole folios."""

from __future__ import annotations

from typing import Any

import numpy as np

from klrubench.engine.bits import ACCESSED, NODE_MASK
from klrubench.mm.state import VMA_LEAF_ORDER, VMA_ORDER, WINDOW, Mm, new_mm
from klrubench.simulate.placement import allocate

Vmas = list[tuple[int, int, bool, int]]


def folios_of(mm: Mm) -> np.ndarray:
    """The first page of each folio."""
    return np.concatenate([np.arange(row[0], row[1], 1 << row[VMA_ORDER] - row[VMA_LEAF_ORDER]) for row in mm.vma])


def make_whole(mm: Mm) -> None:
    """Let each folio lie on the node of its first page, which alone has flags."""
    for row in mm.vma.tolist():
        pages, shift = np.arange(row[0], row[1]), row[VMA_ORDER] - row[VMA_LEAF_ORDER]
        heads = pages >> shift << shift
        mm.pte[pages] = mm.pte[pages] & ~np.uint8(NODE_MASK) | mm.pte[heads] & NODE_MASK
        mm.folio[pages[pages != heads]] = 0


def old_memory(vmas: Vmas, top: int = 4096, node: int = 1) -> Mm:
    """All pages old, on one of two nodes."""
    mm = new_mm(vmas, [top, 8192], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    assert allocate(mm.address, ids_of(mm), np.array([node])) == 0
    mm.pte[:] &= 0xFF ^ ACCESSED
    return mm


def ids_of(mm: Mm) -> np.ndarray:
    """All ids that stand for a leaf."""
    return np.concatenate([np.arange(row[0], row[1]) for row in mm.vma])


def span(mm: Mm, page: int) -> range:
    """The PTEs of a page's folio."""
    row = mm.vma[mm.block_vma[page >> 9]]
    ptes = 1 << int(row[VMA_ORDER] - row[VMA_LEAF_ORDER])
    return range(page // ptes * ptes, page // ptes * ptes + ptes)


def on_top(mm: Mm, pages: Any) -> list[bool]:
    """Whether each of some pages lies on node 0."""
    return ((mm.pte[np.asarray(pages, int)] & NODE_MASK) == 0).tolist()
