"""A cold cache of kernels: processes share out the large ones, which each would compile for itself in its first runs.

All kernels of the default comparison take some 30 s of CPU; the two shares here are about 13 s each. What a process
meets after its share it finds in the cache, or compiles when the other is not done with it yet.
"""

from __future__ import annotations

import sys
from pathlib import Path


def is_cold() -> bool:
    """Whether no kernel is in the cache; False as well where nobody has asked for kernels yet."""
    if "numba" not in sys.modules:
        return False
    folder: str = getattr(sys.modules["numba"].config, "CACHE_DIR", "")
    return bool(folder) and next(Path(folder).rglob("*.nbi"), None) is None


def compile_share(part: int) -> None:
    """Compile a share, by asking for its kernels or running a small machine; any two neighbouring numbers make all."""
    (_reclaim_and_walk if part % 2 else _access_and_hint_faults)()


def _reclaim_and_walk() -> None:
    from klrubench.engine.kthread import turn_of
    from klrubench.mm.vmscan import kswapd_mglru

    turn_of(kswapd_mglru)  # aging, and with it the page-table walk, are part of it


def _access_and_hint_faults() -> None:
    from klrubench.machine import load_machine
    from klrubench.simulate import simulate
    from klrubench.study.plugins import find_policy, find_workload

    workload = find_workload("zipf")(footprint_gib=0.25)
    simulate(load_machine("cxl-asic"), workload, find_policy("numa_balancing")(), 1, duration_s=5.0, fold=8)
