"""njit for kernels that allocate nothing.

Without reference counts a helper that takes arrays costs no atomic operations: the parser, written as short functions,
reads 34 instead of 13 million lines a second.
"""

from __future__ import annotations

from functools import partial

from klrubench.engine.jit import njit

__all__ = ["kernel"]

kernel = partial(njit, _nrt=False)
