"""A table of arrays by address: how kernels are given the many arrays of a run as one machine word.

A kernel that takes a tuple of 20 arrays pays for it three times: unpacking them costs 10 us a call from Python, each
array is reference-counted in every helper that it is handed to (0.3 us a page: more than the work), and every helper
that takes the tuple has 160 arguments to compile (0.3-1 s each, a minute for all). So kernels take the address of the
table that `addresses` makes; `reader` makes of it a value with the tuple's attributes, each of which is read from the
table where it is used. The table never changes, and the loads are marked so: the compiler moves them out of loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import lower_getattr_generic, models, register_model
from numba.np.arrayobj import make_array, populate_array

from klrubench.engine.jit import intrinsic, njit_inline

WORD, COLUMNS = ir.IntType(64), 4  # of an array: its address and three extents


def addresses(arrays: list[np.ndarray]) -> np.ndarray:
    """i64 [4 * arrays]: address and extents (0 for those it lacks) of each, in order; keep the arrays alive."""
    rows = []
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError("a table of addresses needs contiguous arrays")
        rows += [array.ctypes.data, *array.shape, 0, 0][:COLUMNS]
    return np.array(rows, np.int64)


class ArrayTable(types.Type):
    """The numba type of a table: arrays by name, in order; then `table`, the table itself, and its `address`."""

    def __init__(self, name: str, arrays: tuple[tuple[str, types.Array], ...]) -> None:
        self.arrays = arrays
        self.place = {each: (index, kind) for index, (each, kind) in enumerate(arrays)}
        super().__init__(name=f"ArrayTable({name}, {', '.join(f'{each}: {kind}' for each, kind in arrays)})")


@register_model(ArrayTable)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: ArrayTable) -> None:
        super().__init__(manager, kind, WORD)


@infer_getattr
class _Attributes(AttributeTemplate):
    key = ArrayTable

    def generic_resolve(self, kind: ArrayTable, name: str) -> Any:  # type: ignore[override]
        if name == "address":
            return types.int64
        if name == "table":
            return types.Array(types.int64, 1, "C")
        return kind.place[name][1] if name in kind.place else None


@lower_getattr_generic(ArrayTable)
def _attribute(context: Any, builder: Any, kind: ArrayTable, value: Any, name: str) -> Any:
    if name == "address":
        return value
    if name == "table":
        rows = context.get_constant(types.intp, COLUMNS * len(kind.arrays))
        return _array(context, builder, types.Array(types.int64, 1, "C"), value, [rows])
    index, array = kind.place[name]
    data, *shape = (_word(builder, value, COLUMNS * index + k) for k in range(1 + array.ndim))
    return _array(context, builder, array, data, shape)


def _word(builder: Any, address: Any, index: int) -> Any:
    """A word of the table, which the compiler may take as constant."""
    place = builder.inttoptr(builder.add(address, WORD(8 * index)), WORD.as_pointer())
    loaded = builder.load(place, align=8)
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


def _array(context: Any, builder: Any, kind: types.Array, data: Any, shape: list[Any]) -> Any:
    """A C-ordered array at an address, without a reference count."""
    array = make_array(kind)(context, builder)
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides = [WORD(size)]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    pointer = builder.inttoptr(data, context.get_data_type(kind.dtype).as_pointer())
    populate_array(array, data=pointer, shape=shape, strides=strides, itemsize=WORD(size), meminfo=None)
    return array._getvalue()


def reader(name: str, **arrays: tuple[Any, int]) -> Callable[[int], Any]:
    """A helper for kernels: the arrays of the table at an address, as attributes.

    Args:
        name: of the type, in messages of the compiler.
        arrays: dtype and dimensions (1 to 3) of each array, in the order in which `addresses` was given them.
    """
    kinds = tuple((each, types.Array(_scalar(dtype), ndim, "C")) for each, (dtype, ndim) in arrays.items())
    kind = ArrayTable(name, kinds)

    @intrinsic
    def as_table(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return args[0]

        return kind(types.int64), codegen

    @njit_inline
    def table_at(address: int) -> Any:
        return as_table(address)

    return table_at


def _scalar(dtype: Any) -> types.Type:
    from numba.np.numpy_support import from_dtype

    return from_dtype(np.dtype(dtype))
