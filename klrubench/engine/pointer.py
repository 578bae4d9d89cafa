"""Arrays by address, so that a compiled fault handler with one plain signature reaches the memory of any run."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.np.numpy_support import carray

from klrubench.engine.jit import intrinsic, njit


@intrinsic
def as_pointer(typingctx: Any, address: Any) -> Any:
    """An int64 address as a pointer that carray takes."""
    signature = types.voidptr(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return signature, codegen


@intrinsic
def call_handler(typingctx: Any, address: Any, context: Any, page: Any, now_ps: Any) -> Any:
    """Call the compiled fault handler `int64 f(int64, int64, int64)` at an address.

    (A handler passed as an argument of its own costs 30 us a call of the loop, for looking up its type.)
    """
    signature = types.int64(types.int64, types.int64, types.int64, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        function = builder.inttoptr(args[0], ir.FunctionType(word, [word, word, word]).as_pointer())
        return builder.call(function, args[1:])

    return signature, codegen


@njit
def array_u8(address: int, n: int) -> np.ndarray:
    """u8 [n] at an address."""
    return carray(as_pointer(address), (n,), np.uint8)


@njit
def array_u32(address: int, n: int) -> np.ndarray:
    """u32 [n] at an address."""
    return carray(as_pointer(address), (n,), np.uint32)


@njit
def array_u64(address: int, n: int) -> np.ndarray:
    """u64 [n] at an address."""
    return carray(as_pointer(address), (n,), np.uint64)


@njit
def array_i64(address: int, n: int) -> np.ndarray:
    """i64 [n] at an address."""
    return carray(as_pointer(address), (n,), np.int64)


@njit
def table_i64(address: int, rows: int, columns: int) -> np.ndarray:
    """i64 [rows, columns] at an address."""
    return carray(as_pointer(address), (rows, columns), np.int64)
