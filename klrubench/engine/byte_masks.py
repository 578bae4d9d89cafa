"""Sixty-four page bytes at a time: which of them match, as a word with a bit each, and a change to those of a word.

What a walk does to a page hangs on its bytes alone, so that 64 pages take a few vector operations in place of 64 times
some hard to predict branches: 6 ns in place of 60 a young page. (LLVM's vectors of 64 bytes; the compiler makes of
them what the CPU has.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from klrubench.engine.jit import intrinsic

LANES = 64
BYTES, BITS = ir.VectorType(ir.IntType(8), LANES), ir.VectorType(ir.IntType(1), LANES)


def _lanes(context: Any, builder: Any, kind: Any, array: Any, first: Any) -> Any:
    """Pointer to the 64 bytes from `array[first]` on."""
    struct = cgutils.create_struct_proxy(kind)(context, builder, array)
    return builder.bitcast(cgutils.pointer_add(builder, struct.data, first), BYTES.as_pointer())


def _all_lanes(builder: Any, byte: Any) -> Any:
    """A vector of 64 times a byte."""
    one = builder.insert_element(ir.Constant(BYTES, ir.Undefined), byte, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(BYTES, ir.Undefined), places)


@intrinsic
def places_of(typingctx: Any, array: Any, first: Any, mask: Any, value: Any) -> Any:
    """u64 with bit k set where `array[first + k] & mask == value`; u8 arrays, all 64 places within the array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = builder.load(_lanes(context, builder, signature.args[0], args[0], args[1]), align=1)
        masked = builder.and_(lanes, _all_lanes(builder, args[2]))
        return builder.bitcast(builder.icmp_unsigned("==", masked, _all_lanes(builder, args[3])), ir.IntType(64))

    return types.uint64(array, types.uint64, types.uint8, types.uint8), codegen


@intrinsic
def change_bytes(typingctx: Any, array: Any, first: Any, places: Any, keep: Any, put: Any) -> Any:
    """`array[first + k] = array[first + k] & keep | put` for each bit k of the u64 `places`; as `places_of`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _lanes(context, builder, signature.args[0], args[0], args[1])
        lanes = builder.load(pointer, align=1)
        changed = builder.or_(builder.and_(lanes, _all_lanes(builder, args[3])), _all_lanes(builder, args[4]))
        builder.store(builder.select(builder.bitcast(args[2], BITS), changed, lanes), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64, types.uint8, types.uint8), codegen


@intrinsic
def ones(typingctx: Any, word: Any) -> Any:
    """Number of set bits of a u64, as i64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest(typingctx: Any, word: Any) -> Any:
    """Place (0-63) of the lowest set bit of a u64 that is not 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen
