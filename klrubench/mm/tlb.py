"""TLB shootdowns: what a change of a mapping flushes.

x86: clearing an accessed bit flushes nothing (ptep_test_and_clear_young and ptep_clear_flush_young,
arch/x86/mm/pgtable.c). Unmapping for migration flushes in batches, and a batch flushes everything on each CPU that
ran the address space (arch_tlbbatch_flush asks for TLB_FLUSH_ALL; with INVLPGB likewise), but not for a PTE that is
PROT_NONE (pte_accessible). So does a range of more than 33 pages (tlb_single_page_flush_ceiling, arch/x86/mm/tlb.c),
which marking by NUMA balancing makes. `tlb/shoot_all` 0 is a machine whose flushes name single pages (arm64). A flush
of all takes effect at the next touch, so that a batch of moves is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klrubench.engine.bits import TABLE_SHIFT
from klrubench.engine.jit import njit_inline
from klrubench.engine.tlb import FIRST_PAGE, IN_TLB, PENDING, SHOOT_ALL, drop
from klrubench.mm.state import VMA_MM

if TYPE_CHECKING:
    from klrubench.mm.state import Mm


@njit_inline
def shoot_down(mm: Mm, page: int) -> None:
    """A mapping changes: its translation leaves the TLB of its address space, with `tlb/shoot_all` all of them do."""
    if len(mm.tlb) > 0:
        tlb = mm.tlb[mm.vma[mm.block_vma[page >> TABLE_SHIFT], VMA_MM]]
        first = tlb[FIRST_PAGE]
        if tlb[SHOOT_ALL]:
            tlb[PENDING] = 1
        elif mm.pte[page] & IN_TLB:
            drop(tlb, mm.pte[first:], page - first)
