"""Folios of a small memory: their first pages, and bytes drawn at random made those of whole folios."""

from __future__ import annotations

import numpy as np

from klrubench.engine.bits import NODE_MASK
from klrubench.mm.state import VMA_LEAF_ORDER, VMA_ORDER, Mm


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
