"""Workers elsewhere: those of a dask scheduler, and dask workers in Slurm jobs.

A task is a share of a group of runs, which its worker computes one after another with the stream in memory. dask gives
the tasks of a worker that dies to another one, and gives up those that were with several workers when they died; their
runs are then tasks of their own, and what is given up again is tried with nothing beside it, so that only the run that
kills is lost.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from klrubench.errors import UsageError
from klrubench.study.executors import Backend, Groups, Keep
from klrubench.study.executors.slurm import SlurmProfile, read_profile
from klrubench.study.spec import RunSpec
from klrubench.study.worker import Answer, Task

CONNECT_S = 10
WAIT_S = 30
"""How long is waited for the first worker of a scheduler that has none."""

RETRIES = 2
SHARES = 3
"""Tasks that each slot gets at least, where there are enough runs: the end is even."""

NEEDED = "it needs dask.distributed; pip install 'klrubench[cluster]' brings it"


@contextlib.contextmanager
def dask_backend(where: str) -> Iterator[Backend]:
    """The workers of the scheduler at an address or of a scheduler file.

    Raises:
        UsageError: no such file, nobody answers, no worker comes, or dask is missing.
    """
    name = f"dask:{where}"
    is_file = "://" not in where and not where.rpartition(":")[2].isdigit()
    if is_file and not Path(where).is_file():
        raise UsageError(
            f"--executor {name}: no such scheduler file; dask scheduler --scheduler-file {where} writes it"
        )
    with _client(name, **({"scheduler_file": where} if is_file else {"address": where})) as client:
        slots = _wait_for_workers(client, name)
        yield Backend(name, slots, partial(_compute, client, slots), (f"{name}: {_count(slots, 'thread')} of workers",))


@contextlib.contextmanager
def slurm_backend(where: str) -> Iterator[Backend]:
    """dask workers in as many Slurm jobs as a profile asks for; they end with the `with`.

    Raises:
        UsageError: a bad profile, no sbatch, or dask-jobqueue is missing.
    """
    profile, name = read_profile(Path(where)), f"slurm:{where}"
    with slurm_cluster(profile, name) as cluster, _client(name, address=cluster) as client:
        cluster.scale(jobs=profile.jobs)
        slots = profile.jobs * profile.cores
        jobs, cores = _count(profile.jobs, "job"), _count(profile.cores, "core")
        told = f"{name}: {jobs} of {cores} asked for; runs begin with the first"
        yield Backend(name, slots, partial(_compute, client, slots), (told,))


def slurm_cluster(profile: SlurmProfile, name: str) -> Any:
    """A `dask_jobqueue.SLURMCluster` that has asked for no job yet; `job_script()` is what sbatch would be given."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise UsageError(f"--executor {name}: {NEEDED}") from None
    return SLURMCluster(**profile.cluster_options())


@contextlib.contextmanager
def _client(name: str, **where: Any) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(f"--executor {name}: {NEEDED}") from None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of versions that differ in what does not matter here; klrubench's own are compared
        try:
            client = Client(**where, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"--executor {name}: no dask scheduler answers there ({why})") from None
    try:
        yield client
    finally:
        client.close(timeout=CONNECT_S)


def _wait_for_workers(client: Any, name: str) -> int:
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=WAIT_S)
    slots = sum(client.nthreads().values())
    if slots == 0:
        raise UsageError(f"--executor {name}: the scheduler has no worker; start some: dask worker ADDRESS")
    return slots


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def shares(groups: Groups, slots: int) -> Groups:
    """Groups cut into tasks, each of one group: at least `SHARES` a slot where there are as many runs."""
    total = sum(map(len, groups))
    most = max(1, total // (SHARES * max(1, slots)))
    found = []
    for group in groups:
        pieces = -(-len(group) // most)
        bounds = [len(group) * k // pieces for k in range(pieces + 1)]
        found += [group[first:last] for first, last in pairwise(bounds)]
    return found


def work_in_turn(task: Task, specs: list[RunSpec]) -> list[Answer]:
    """What a worker does with its share."""
    for name in ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    return [task(spec) for spec in specs]


def _compute(client: Any, slots: int, groups: Groups, task: Task, keep: Keep) -> None:
    executor = client.get_executor(pure=False, retries=RETRIES)
    lost = _round(executor, shares(groups, slots), task, keep)
    suspects = _round(executor, [[spec] for spec, _ in lost], task, keep)
    for suspect, _ in suspects:  # with nothing beside it: dask also blames what waits at a worker that dies
        for spec, why in _round(executor, [[suspect]], task, keep):
            keep(spec, Answer(None, message=why))


def _round(executor: Executor, tasks: Groups, task: Task, keep: Keep) -> list[tuple[RunSpec, str]]:
    """Do all tasks; returns the runs of those that could not be ended, and why."""
    running: dict[Future[list[Answer]], list[RunSpec]] = {
        executor.submit(work_in_turn, task, specs): specs for specs in tasks
    }
    lost = []
    try:
        for future in as_completed(running):
            error = future.exception()
            if error is not None:
                lost += [(spec, _said(error)) for spec in running[future]]
                continue
            for spec, answer in zip(running[future], future.result(), strict=True):
                keep(spec, answer)
    except BaseException:
        for future in running:
            future.cancel()
        raise
    return lost


def _said(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its worker died each time it was tried (killed, out of memory, or a crash in compiled code)"
    return f"its worker failed: {type(error).__name__}: {' '.join(str(error).split())}"
