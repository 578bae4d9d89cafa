"""Processes and threads of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count, repeat

from klrubench.study.executors import Backend, Groups, Keep
from klrubench.study.executors.cold import is_cold
from klrubench.study.executors.crew import Crew, kill, new_process, one_thread_each
from klrubench.study.worker import Task


@contextlib.contextmanager
def local_backend(kind: str, jobs: int) -> Iterator[Backend]:
    """`processes` or `threads`, `jobs` of them, which stay between rounds of runs; a single process is this one."""
    if kind == "processes" and jobs == 1:
        yield Backend(kind, 1, _here)
        return
    crew = Crew(jobs, _new_thread, _let_go) if kind == "threads" else Crew(jobs, _new_processes(), kill)
    with one_thread_each() if kind == "processes" else contextlib.nullcontext():
        try:
            yield Backend(kind, jobs, crew.compute)
        finally:
            crew.close()


def _here(groups: Groups, task: Task, keep: Keep) -> None:
    for group in groups:
        for spec in group:
            keep(spec, task(spec))


def _new_processes() -> Callable[[], Executor]:
    shares = count() if is_cold() else repeat(None)
    return lambda: new_process(next(shares))


def _new_thread() -> Executor:
    return ThreadPoolExecutor(1, "klrubench")


def _let_go(pool: Executor) -> None:
    """A thread cannot be killed: it ends with the run that it is at."""
    pool.shutdown(wait=False, cancel_futures=True)
