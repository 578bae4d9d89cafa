"""A small study on disk, runs of it, and tasks that answer, fail or die: what the tests of `study` share."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from klrubench.errors import ScaleError
from klrubench.study.spec import RunSpec, policy_part, workload_part
from klrubench.study.worker import Answer

POLICY = '''
"""A policy file."""

from klrubench.policy import Policy, param


class {cls}(Policy):
    """{doc}"""

    role = "{role}"
    place = {place!r}
    interval_ms: float = param({interval}, low=1, high=60_000, help="period")
'''

WORKLOAD = '''
from klrubench.workload import Workload, param


class {cls}(Workload):
    """{doc}"""

    control = {control}
    idle: float = param(0.0, low=0, high=99, help="share of cold pages")
'''


def write_policy(folder: Path, name: str, *, doc: str = "Says nothing.", role: str = "policy", **more: Any) -> Path:
    """A policy file in a study folder."""
    place, interval = more.get("place"), more.get("interval", 2000)
    text = POLICY.format(cls=name.title().replace("_", ""), doc=doc, role=role, place=place, interval=interval)
    return write(folder / "policies" / f"{name}.py", text)


def write_workload(folder: Path, name: str, *, doc: str = "Touches pages.", control: bool = False) -> Path:
    """A workload file in a study folder."""
    text = WORKLOAD.format(cls=name.title().replace("_", ""), doc=doc, control=control)
    return write(folder / "workloads" / f"{name}.py", text)


def write(path: Path, text: str) -> Path:
    """A text file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_study(folder: Path) -> Path:
    """A study with two policies and one workload."""
    write(folder / "pyproject.toml", "[tool.klrubench]\n")
    write_policy(folder, "mine")
    write_policy(folder, "other")
    write_workload(folder, "toy")
    return folder


def toy_spec(seed: int = 1, policy: str = "mine", workload: str = "toy", work: float = 1.0, **more: Any) -> RunSpec:
    """A run of the study one stands in, on a machine that nothing simulates."""
    machine = {"name": "toy-machine", "ratio": [1.0, 2.0], "source": "invented", "costs": {"walk_pte": {"ns": 5.0}}}
    options = {"daemon_cpus": "spare", "chunk": 4096}
    given = {"machine": machine, "duration_s": 120.0, "fold": 32, "options": options, **more}
    return RunSpec(workload=workload_part(workload), policy=policy_part(policy), seed=seed, work=work, **given)


def toy_result(spec: RunSpec, time_s: float | None = None) -> dict[str, Any]:
    """A result with every part that a real one has; a pure function of the spec."""
    time_s = time_s if time_s is not None else 100.0 + spec.seed + len(spec.policy.label)
    metrics = {
        "time_s": time_s,
        "steady_time_s": time_s / 2,
        "charged_time_s": time_s * 1.1,
        "charged_steady_time_s": time_s * 0.55,
        "accesses": 1000,
        "promoted_again_share": None,
    }
    rest = {
        "cpu": {"klruscand": 1.5},
        "daemon_threads": ["klruscand"],
        "bound": {"gate": 0.25},
        "vmstat": {},
        "notes": [],
    }
    return {"metrics": metrics, **rest, "series": {"t_s": [0.0, 1.0, 2.0], "accesses": [0, 500, 1000]}}


def answer(spec: RunSpec) -> Answer:
    """A task that succeeds."""
    return Answer(toy_result(spec), wall_s=0.01)


def fail_on_two(spec: RunSpec) -> Answer:
    """A task whose run with seed 2 fails."""
    if spec.seed == 2:
        return Answer(None, message="policies/mine.py:7: ZeroDivisionError: division by zero")
    return answer(spec)


def refuse_all(spec: RunSpec) -> Answer:
    """A task that no scale suits."""
    return Answer(None, message="scale 1/512: the scan size falls under a page", error=ScaleError)


def die_on_two(spec: RunSpec) -> Answer:
    """A task whose run with seed 2 takes its worker with it, every time."""
    if spec.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return answer(spec)


def die_once(spec: RunSpec) -> Answer:
    """A task that takes its worker with it the first time that anything is run below the current folder."""
    try:
        (Path.cwd() / "died").touch(exist_ok=False)
    except FileExistsError:
        return answer(spec)
    os.kill(os.getpid(), signal.SIGKILL)
    return answer(spec)


def interrupt_on_three(spec: RunSpec) -> Answer:
    """A task during whose third run somebody presses Ctrl-C."""
    if spec.seed == 3:
        raise KeyboardInterrupt
    return answer(spec)


def slow(spec: RunSpec) -> Answer:
    """A task that leaves time for a Ctrl-C."""
    time.sleep(0.3 if spec.seed <= 2 else 30)
    return answer(spec)


def say_who(spec: RunSpec) -> Answer:
    """A task that tells which process it ran in, where a manifest has the CPU."""
    return Answer(toy_result(spec), host={"cpu": str(os.getpid())})
