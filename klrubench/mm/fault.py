"""The contract between the access loop and the compiled fault handlers of mm/: one signature,
memory reached by address.

A handler is `int64 handler(int64 context, int64 page, int64 now_ps)`; it returns the stall in picoseconds of the
tenant's clock. The loop itself clears the trap and serves the touch. A context is an i64 array: the addresses of `Mm`,
then whatever the handler owns.
"""

from __future__ import annotations

import numpy as np
from numba import types

from klrubench.engine.array_table import addresses
from klrubench.engine.jit import cfunc
from klrubench.mm.state import Mm

SIGNATURE = types.int64(types.int64, types.int64, types.int64)


def fault_context(mm: Mm, own: list[np.ndarray]) -> np.ndarray:
    """The i64 context of a handler; keep it and every array alive for as long as the handler may be called."""
    return np.concatenate([mm.table, addresses(own)])


@cfunc(SIGNATURE)
def no_fault(context: int, page: int, now_ps: int) -> int:
    """The handler of runs in which nothing is ever marked: a trap costs nothing and is cleared."""
    return 0
