"""`Mm` by address: how kernels reach the memory of a run. An entry kernel takes `mm.address`; helpers take what
`mm_at` makes of it (see engine/array_table.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from klrubench.engine.array_table import COLUMNS, reader
from klrubench.mm.state import Mm

mm_at: Callable[[int], Mm] = reader(
    "Mm",
    pte=(np.uint8, 1), pte64=(np.uint64, 1), folio=(np.uint8, 1), pfn=(np.uint32, 1), frame_page=(np.int32, 1),
    frame_stack=(np.uint32, 1), lru_next=(np.int32, 1), lru_prev=(np.int32, 1), vma=(np.int64, 2),
    block_vma=(np.uint16, 1), node=(np.int64, 2), lru=(np.int64, 2), bloom=(np.uint8, 2), stat=(np.int64, 1),
    traffic=(np.float64, 2), scan_ms=(np.uint32, 1), demoted_ms=(np.int32, 1), best=(np.uint32, 1),
    setting=(np.int64, 1), mms=(np.int64, 2), tlb=(np.int64, 2),
)  # fmt: skip
MM_BYTES = 8 * COLUMNS * (len(Mm._fields) - 2)  # of its table; what a fault handler owns stands behind it
