"""A study whose runs cost nothing: times follow from the parameters, the workload and the seed."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

from study_fakes import write, write_policy

from klrubench.errors import ScaleError
from klrubench.study.spec import RunSpec
from klrubench.study.sweep.plan import Asked
from klrubench.study.worker import Answer

POLICY = '''
"""A policy file."""

from klrubench.policy import Policy, param


class Mine(Policy):
    """Something to tune."""

    interval_ms: float = param(2000, low=10, high=60_000, log=True, help="period")
    batch: int = param(1 << 17, low=64, high=1 << 21, log=True, help="pages a flush")
    threshold: int = param(2, low=1, high=7, help="sightings")
    quick: bool = param(False, help="another way")
    kind: str = param("a", choices=("a", "b", "c"), help="version", tune=False)
    words: str = param("", help="free text")
'''

WORKLOAD = '''
import numpy as np

from klrubench.workload import Workload


class _Round:
    def __init__(self, pages):
        self.pages = pages

    def fill(self, out, first):
        out[:] = (np.arange(first, first + len(out)) % self.pages).astype(np.uint32)


class {cls}(Workload):
    """Page after page, round and round: each waits equally long for its next touch."""

    def stream(self, layout):
        return _Round(layout.pages)
'''

BEST = {"one": 640.0, "two": 1280.0, "three": 320.0, "four": 640.0}
"""The best interval of each workload, ms."""


def write_sweep_study(folder: Path) -> Path:
    """A study with a policy to tune, the references, and four workloads."""
    write(folder / "pyproject.toml", "[tool.klrubench]\n")
    write(folder / "policies" / "mine.py", POLICY)
    write_policy(folder, "all_top", role="bound", place="top")
    write_policy(folder, "first_touch", role="bound")
    for name in BEST:
        write(folder / "workloads" / f"{name}.py", WORKLOAD.format(cls=name.title()))
    return folder


def asked(**more: Any) -> Asked:
    """A small sweep of it."""
    about: dict[str, Any] = {
        "workload": ("one", "two", "three"),
        "held_out": ("four",),
        "trials": 24,
        "seeds": 3,
        "deterministic": True,
        "fresh_seeds": 3,
    }
    return Asked("mine", **{**about, **more})


def slowdown(spec: RunSpec) -> float:
    """A valley over the interval, deeper with threshold 3; batch does nothing."""
    if spec.policy.name == "all_top":
        return 0.0
    noise = 0.004 * math.sin(12.9898 * spec.seed + len(spec.workload.label))
    if spec.policy.name == "first_touch":
        return 0.3 + noise
    values = spec.policy.params
    away = abs(math.log2(values["interval_ms"] / BEST[spec.workload.name]))
    own = 0.002 * math.sin(78.233 * spec.seed + values["interval_ms"])
    return 0.1 + 0.04 * away + 0.02 * abs(values["threshold"] - 3) + 0.01 * values["quick"] + noise + own


def valley(spec: RunSpec) -> Answer:
    """A task that succeeds."""
    time_s = spec.duration_s * (1 + slowdown(spec))
    busy = 0.0
    if spec.policy.name == "mine":
        busy = min(1.0, 100 / spec.policy.params["interval_ms"])
    metrics = {
        "time_s": time_s,
        "charged_time_s": time_s,
        "steady_time_s": time_s / 2,
        "charged_steady_time_s": time_s / 2,
        "promoted_mib_s": 1000 * busy,
        "daemon_cpu_s": busy * time_s,
        "op_p99_ns": 1000.0 * (1 + slowdown(spec)),
        "convergence_s": None,
    }
    return Answer({"metrics": metrics, "cpu": {}, "daemon_threads": [], "bound": {}, "vmstat": {}, "notes": []}, 0.001)


def coarse(spec: RunSpec) -> Answer:
    """A task whose scale cannot hold a batch under 1000."""
    if spec.policy.name == "mine" and spec.policy.params["batch"] < 1000:
        return Answer(None, message="scale 1/512 leaves less than one of batch", error=ScaleError)
    return valley(spec)


def moody(spec: RunSpec) -> Answer:
    """A task that cannot do threshold 7."""
    if spec.policy.name == "mine" and spec.policy.params["threshold"] == 7:
        return Answer(None, message="policies/mine.py:7: ValueError: seven")
    return valley(spec)


def broken(spec: RunSpec) -> Answer:
    """A task that can do nothing but the references."""
    if spec.policy.name == "mine":
        return Answer(None, message="policies/mine.py:1: ValueError: no")
    return valley(spec)


class Stopping:
    """A task that stops with its n-th run: by Ctrl-C, or killed at once."""

    def __init__(self, after: int, kill: bool = False) -> None:
        self.after, self.kill, self.seen = after, kill, 0

    def __call__(self, spec: RunSpec) -> Answer:
        self.seen += 1
        if self.seen == self.after:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return valley(spec)


def trials_of_journal(folder: Path, name: str = "") -> list[tuple[Any, ...]]:
    """Everything of a study's trials that must not depend on how often it was stopped."""
    from klrubench.study.sweep.storage import Place, load

    sweeps = folder / "sweeps"
    name = name or next(sweeps.glob("*.journal")).stem
    study = load(Place(None, sweeps), name)
    return [
        (t.number, t.state.name, dict(t.params), t.values, dict(t.intermediate_values), t.user_attrs.get("cells"))
        for t in study.get_trials()
    ]
