"""Types of what kernels take and return, for readers and mypy: numba ignores annotations and compiles for what it is given."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Int: TypeAlias = int | np.int64  # compiled code knows int64 alone; in Python it is an int on some paths
Unsigned: TypeAlias = int | np.uint64
