"""The shares of kernels that processes compile at first: they must be those that runs call, types included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from klrubench.study.executors import cold

SCRIPT = """
from klrubench.engine.kthread import _compiled
from klrubench.engine.quantum import run_alone
from klrubench.machine import load_machine
from klrubench.mm.numa_scan import _task_numa_work
from klrubench.simulate import simulate
from klrubench.study.executors.cold import compile_share
from klrubench.study.plugins import find_policy, find_workload

compile_share(4), compile_share(7)

def compiled():
    kernels = {"run_alone": run_alone, "scan": _task_numa_work}
    return {name: len(kernel.signatures) for name, kernel in kernels.items()} | {"turns": _compiled.cache_info().misses}

shared = compiled()
for policy in ("klruscand", "random_promotion", "numa_balancing"):
    simulate(load_machine("cxl-asic"), find_workload("uniform")(), find_policy(policy)(), 1, duration_s=10.0, fold=512)
print([(name, shared[name], now) for name, now in compiled().items()])
"""


def test_shares_are_the_kernels_that_runs_call() -> None:
    """One signature each and two turns after the shares, and none more after runs that need all three."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([("run_alone", 1, 1), ("scan", 1, 1), ("turns", 2, 2)])


def test_a_folder_without_kernels_is_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index file of numba's is what makes the cache warm."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert cold.is_cold()
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "kernel.nbi").touch()
    assert not cold.is_cold()


CACHED = """
import klrubench.simulate
from klrubench.engine.jit import kernel_hash
from klrubench.engine.quantum import run_alone
from klrubench.mm.lru import lru_add
from klrubench.mm.vmscan import evict_folios
from klrubench.simulate.placement import allocate
print([kernel_hash() in str(kernel._cache.cache_path) for kernel in (run_alone, lru_add, evict_folios, allocate)])
"""


@pytest.mark.parametrize("first", ["numba", "klrubench.machine", "klrubench.mm.fault", "klrubench.engine.array_table"])
def test_kernels_are_cached_by_the_hash_of_all_sources_whatever_is_imported_first(first: str, tmp_path: Path) -> None:
    """Beside its source a kernel would outlive an edit of a helper in another file."""
    script = f"import {first}\n" + CACHED
    environment = {**os.environ, "KLRUBENCH_CACHE": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str([True] * 4)
