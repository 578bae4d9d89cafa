"""A cold cache of kernels: processes share out the large ones, which each would compile for itself in its first runs.

All kernels of the default comparison take some 35 s of CPU; the two shares here are about 15 s each. What a process
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
    from klrubench.engine.kthread import WAKE_WORD, turn_of
    from klrubench.machine import load_machine
    from klrubench.mm.pghot import kpromoted_turn
    from klrubench.simulate import System, simulate
    from klrubench.study.plugins import find_policy, find_workload

    def keep_kswapd_asleep(system: System) -> None:  # its turn belongs to the other share
        for thread in system.kernel_threads.started:
            thread.row[WAKE_WORD] = 0

    workload, policy = find_workload("zipf")(footprint_gib=0.25), find_policy("numa_balancing")()
    simulate(load_machine("cxl-asic"), workload, policy, 1, duration_s=5.0, fold=8, watch=keep_kswapd_asleep)
    turn_of(kpromoted_turn)
