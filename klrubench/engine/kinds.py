"""Types of what kernels take and return, for readers and mypy: numba compiles for what it is given, not for these."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Int: TypeAlias = int | np.int64  # compiled code knows int64 alone; in Python it is an int on some paths
Flag: TypeAlias = bool | np.bool
