"""The shares of kernels that processes compile at first: they must be those that runs call, types included."""

from __future__ import annotations

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
