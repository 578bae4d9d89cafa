"""`Mm` by address: how kernels reach the memory of a run.

A kernel that takes the 20 arrays of an `Mm` pays for it twice: unpacking them costs 10 us a call from Python, and each
of them is reference-counted in every helper it is handed to (0.3 us a page: more than the work). Built from addresses
inside the kernel the arrays have no reference counts, and those that are not used vanish.
So an entry kernel takes `mm.address`; helpers take the tuple, inlined.
"""

from __future__ import annotations

from klrubench.engine.jit import njit_inline
from klrubench.engine.pointer import (
    array_i32,
    array_i64,
    array_u8,
    array_u16,
    array_u32,
    array_u64,
    table_f64,
    table_i64,
    table_u8,
)  # fmt: skip
from klrubench.mm.state import Mm

N_ARRAYS = len(Mm._fields) - 2


@njit_inline
def mm_at(address: int) -> Mm:
    """The `Mm` whose table stands at an address."""
    c = array_i64(address, 3 * N_ARRAYS)
    return Mm(
        array_u8(c[0], c[1]), array_u64(c[3], c[4]), array_u8(c[6], c[7]), array_u32(c[9], c[10]),
        array_i32(c[12], c[13]), array_u32(c[15], c[16]), array_i32(c[18], c[19]), array_i32(c[21], c[22]),
        table_i64(c[24], c[25], c[26]), array_u16(c[27], c[28]), table_i64(c[30], c[31], c[32]),
        table_i64(c[33], c[34], c[35]), table_u8(c[36], c[37], c[38]), array_i64(c[39], c[40]),
        table_f64(c[42], c[43], c[44]), array_u32(c[45], c[46]), array_i32(c[48], c[49]), array_u32(c[51], c[52]),
        array_i64(c[54], c[55]), table_i64(c[57], c[58], c[59]), c, address,
    )  # fmt: skip
