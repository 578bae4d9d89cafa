"""`prefetch(array, index)`: ask the CPU for the cache line of an element (LLVM's prefetch intrinsic)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from klrubench.engine.jit import intrinsic


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Prefetch `array[index]` for reading, to all cache levels; never faults. 1-D arrays only."""
    signature = types.void(array, types.uint64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        struct = cgutils.create_struct_proxy(kind)(context, builder, args[0])
        address = cgutils.pointer_add(
            builder, struct.data, builder.mul(args[1], ir.Constant(ir.IntType(64), kind.dtype.bitwidth // 8))
        )
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0i8"
        )
        builder.call(function, [builder.bitcast(address, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return signature, codegen
