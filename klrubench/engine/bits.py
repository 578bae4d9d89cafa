"""The two bytes a page: `pte`, all that the access loop touches, and `folio`, for mm/ only."""

from __future__ import annotations

# pte
NODE_MASK = 0x03  # up to four nodes
ACCESSED = 0x04
DIRTY = 0x08
TRAP = 0x10  # PROT_NONE or not present: the next touch takes a fault
PMD_OLD = 0x20  # set in all 512 bytes of a PTE table whose PMD has its accessed bit clear

# folio
GEN_MASK = 0x07  # generation + 1; 0: not on an MGLRU list
REFERENCED = 0x08
WORKINGSET = 0x10
ACTIVE = 0x20
YOUNG = 0x40  # accessed bit saved by idle page tracking
IDLE = 0x80

PTRS_PER_TABLE = 512  # PTEs a PTE table (2 MiB), PMDs a PMD table (1 GiB)
TABLE_SHIFT = 9
PUD_SHIFT = 18  # 4 KiB pages of a 1 GiB visit
ACCESSED_WORD = 0x0404040404040404
PMD_OLD_WORD = 0x2020202020202020

# stream words
WRITE_BIT = 0x80000000
CACHED_BIT = 0x40000000
ID_MASK = 0x3FFFFFFF
