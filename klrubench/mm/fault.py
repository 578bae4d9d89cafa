"""The contract between the access loop and the compiled fault handlers of mm/: one signature, memory reached by address.

A handler is `int64 handler(int64 context, int64 page, int64 now_ps)`; it returns the stall in picoseconds of the tenant's clock. The
loop itself clears the trap and serves the touch. A context is an i64 array: the addresses of `Mm`, then whatever the handler owns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from klrubench.engine.jit import cfunc, njit, njit_inline
from klrubench.engine.pointer import (
    addresses, array_i32, array_i64, array_u8, array_u16, array_u32, array_u64, table_f64, table_i64, table_u8,
)  # fmt: skip
from klrubench.mm.state import Mm

SIGNATURE = types.int64(types.int64, types.int64, types.int64)
N_MM = len(Mm._fields)


@njit_inline
def mm_at(c):
    """The `Mm` whose addresses stand at the head of a context."""
    return Mm(
        array_u8(c[0], c[1]), array_u64(c[3], c[4]), array_u8(c[6], c[7]), array_u32(c[9], c[10]), array_i32(c[12], c[13]),
        array_u32(c[15], c[16]), array_i32(c[18], c[19]), array_i32(c[21], c[22]), table_i64(c[24], c[25], c[26]), array_u16(c[27], c[28]),
        table_i64(c[30], c[31], c[32]), table_i64(c[33], c[34], c[35]), table_u8(c[36], c[37], c[38]), array_i64(c[39], c[40]),
        table_f64(c[42], c[43], c[44]), array_u32(c[45], c[46]), array_i32(c[48], c[49]), array_u32(c[51], c[52]), array_i64(c[54], c[55]),
    )  # fmt: skip


def fault_context(mm: Mm, own: list[np.ndarray]) -> np.ndarray:
    """The i64 context of a handler; keep it and every array alive for as long as the handler may be called."""
    return addresses([*mm, *own])


@cfunc(SIGNATURE)
def no_fault(context: Any, page: Any, now_ps: Any) -> Any:  # noqa: ARG001
    """The handler of runs in which nothing is ever marked: a trap costs nothing and is cleared."""
    return 0
