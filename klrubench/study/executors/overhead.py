"""What an executor costs beside the work itself: tasks that do nothing, timed."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace

from klrubench.study.executors import Backend
from klrubench.study.identity import framework_hashes
from klrubench.study.spec import RunSpec, make_spec, policy_part, workload_part
from klrubench.study.worker import Answer

TASKS = 200


@dataclass(frozen=True)
class Overhead:
    """What was measured.

    Attributes:
        first_s: until the first answer: start of the workers and imports.
        task_ms: wall time a task after that, `TASKS` of them, each with the whole description of a run.
        strangers: hosts whose klrubench is not this one.
    """

    first_s: float
    task_ms: float
    strangers: tuple[str, ...]


def nothing(spec: RunSpec) -> Answer:
    """A task that only says where it is, and which klrubench it has."""
    return Answer(None, host={"name": socket.gethostname(), "same": framework_hashes() == spec.framework})


def overhead(backend: Backend) -> Overhead:
    """Time tasks that do nothing; every group is a single run, so that nothing is handed over in bulk."""
    from klrubench.machine import load_machine

    spec = make_spec(load_machine("cxl-asic"), workload_part("kv"), policy_part("klruscand"), duration_s=1.0)
    found: list[Answer] = []

    def keep(spec: RunSpec, answer: Answer) -> None:
        found.append(answer)

    begin = time.perf_counter()
    backend.compute([[replace(spec, seed=seed)] for seed in range(1, backend.slots + 1)], nothing, keep)
    first_s = time.perf_counter() - begin
    begin = time.perf_counter()
    backend.compute([[replace(spec, seed=seed)] for seed in range(1, TASKS + 1)], nothing, keep)
    task_ms = 1000 * (time.perf_counter() - begin) / TASKS
    strangers = sorted({answer.host["name"] for answer in found if not answer.host.get("same")})
    return Overhead(first_s, task_ms, tuple(strangers))
