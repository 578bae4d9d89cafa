"""Where runs are computed: processes or threads of this machine, or the workers of a dask or Slurm cluster.

All stand behind `concurrent.futures` and are given groups of runs that share a stream; `--executor` names one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from klrubench.errors import UnknownNameError, UsageError
from klrubench.study.spec import RunSpec
from klrubench.study.worker import Answer, Task

Groups = list[list[RunSpec]]
Keep = Callable[[RunSpec, Answer], None]

KINDS = {
    "processes": "spawned processes of this machine, --jobs of them (the default)",
    "threads": "threads of this process, --jobs of them",
    "dask:ADDRESS": "the workers of a dask scheduler, such as dask:tcp://host:8786",
    "dask:FILE": "the same, by the scheduler file that `dask scheduler --scheduler-file FILE` writes",
    "slurm:PROFILE.toml": "dask workers in Slurm jobs that are asked for and ended with the command",
}


class Compute(Protocol):
    """Do a task with all runs of some groups and hand each answer to `keep`, in the order in which they come."""

    def __call__(self, groups: Groups, task: Task, keep: Keep) -> None:
        """Return when all is done; KeyboardInterrupt goes through after what is there has been kept."""


@dataclass(frozen=True)
class Backend:
    """A place to compute in.

    Attributes:
        name: as given with `--executor`.
        slots: runs that are computed at a time.
        compute: what does it.
        told: what a person may want to know of it (workers, job script), a line each.
    """

    name: str
    slots: int
    compute: Compute
    told: tuple[str, ...] = ()


def open_executor(text: str | None, jobs: int | None = None) -> AbstractContextManager[Backend]:
    """The executor that `--executor` names, to be used in a `with`, which gives back what was asked for.

    Args:
        text: one of `KINDS`; None: processes.
        jobs: processes or threads of this machine (default: one a CPU it may use).

    Raises:
        UnknownNameError: no such kind. UsageError: nobody answers at that address, a bad profile, or dask is missing.
    """
    kind, _, rest = (text or "processes").partition(":")
    if kind in ("processes", "threads"):
        if rest:
            raise UsageError(f"--executor {text}: {kind} takes nothing after it; say how many with --jobs")
        from klrubench.study.executors.local import local_backend

        return local_backend(kind, jobs or usable_cpus())
    if kind not in ("dask", "slurm"):
        raise UnknownNameError("executor", text or "", KINDS)
    if not rest:
        wanted = "an address or a scheduler file" if kind == "dask" else "a profile: slurm:PROFILE.toml"
        raise UsageError(f"--executor {text}: it needs {wanted}")
    if jobs is not None:
        raise UsageError(f"--jobs {jobs}: the workers of --executor {text} are counted where they are started")
    from klrubench.study.executors.cluster import dask_backend, slurm_backend

    return (dask_backend if kind == "dask" else slurm_backend)(rest)


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["KINDS", "Backend", "Groups", "Keep", "open_executor", "usable_cpus"]
