"""Workers of this machine: each keeps to a group of runs; one that dies is replaced, a run that kills is named."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from klrubench.errors import RunFailedError
from klrubench.study.executors import Groups, Keep
from klrubench.study.executors.cold import compile_share
from klrubench.study.spec import RunSpec
from klrubench.study.worker import Answer, Task

STRIKES = 3
"""Workers that a run may take with it before it is given up."""

DEATHS_IN_A_ROW = 12
"""Workers that may die one after another without a single result: then it is not a run's fault."""

_ONE_THREAD = ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS")


class _Worker:
    """One process or thread and the runs that are its to do."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool
        self.own: deque[RunSpec] = deque()
        self.doing: RunSpec | None = None


class Crew:
    """Workers that stay for several rounds of runs, the groups nobody has begun, and how often a run's worker died.

    A worker keeps to a group, whose stream it has in memory; when no group is left it takes half of what another has.
    """

    def __init__(self, jobs: int, new_pool: Callable[[], Executor], end_pool: Callable[[Any], None]) -> None:
        self.jobs, self.new_pool, self.end_pool = jobs, new_pool, end_pool
        self.workers: list[_Worker] = []
        self.groups: deque[deque[RunSpec]] = deque()
        self.running: dict[Future[Answer], _Worker] = {}
        self.strikes: Counter[str] = Counter()
        self.deaths = 0

    def compute(self, groups: Groups, task: Task, keep: Keep) -> None:
        """Do all runs.

        Raises:
            KeyboardInterrupt: after the workers were ended and the answers that were there have been kept.
            RunFailedError: workers die whatever they are given.
        """
        self.groups = deque(deque(group) for group in groups)
        self.task, self.keep = task, keep
        while len(self.workers) < min(self.jobs, sum(map(len, groups))):
            self.workers.append(_Worker(self.new_pool()))
        try:
            self._work()
        except BaseException:
            self._keep_what_is_there()
            for worker in self.workers:
                self.end_pool(worker.pool)
            raise

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.pool.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        for worker in self.workers:
            self._start(worker)
        while self.running:
            wait(self.running, return_when=FIRST_COMPLETED)
            for future in [future for future in self.running if future.done()]:
                worker = self.running.pop(future)
                self._collect(future, worker)
                self._start(worker)
            for worker in self.workers:
                if worker.doing is None:  # a worker that died has left runs behind
                    self._start(worker)

    def _start(self, worker: _Worker) -> None:
        """Give a worker its next run, if there is one."""
        if not worker.own:
            worker.own = self._more()
            if self.workers.index(worker) % 2:  # kernels that are not cached yet are compiled from both ends
                worker.own.reverse()
        if not worker.own:
            return
        worker.doing = worker.own.popleft()
        try:
            self._submit(worker, worker.doing)
        except BrokenProcessPool:  # it died while it waited, which is no run's fault
            worker.pool = self.new_pool()
            self._submit(worker, worker.doing)

    def _submit(self, worker: _Worker, spec: RunSpec) -> None:
        with _without_main():
            self.running[worker.pool.submit(self.task, spec)] = worker

    def _more(self) -> deque[RunSpec]:
        if self.groups:
            return self.groups.popleft()
        richest = max(self.workers, key=lambda worker: len(worker.own))
        return deque(reversed([richest.own.pop() for _ in range((len(richest.own) + 1) // 2)]))

    def _collect(self, future: Future[Answer], worker: _Worker) -> None:
        """Keep a run's answer; where its worker died, replace that and do the run again, up to a limit."""
        spec, worker.doing = worker.doing, None
        assert spec is not None
        try:
            answer = future.result()
        except BrokenProcessPool:
            self._bury(worker, spec)
        else:
            self.deaths = 0
            self.keep(spec, answer)

    def _bury(self, worker: _Worker, spec: RunSpec) -> None:
        worker.pool.shutdown(wait=True, cancel_futures=True)
        worker.pool = self.new_pool()
        self.deaths += 1
        if self.deaths >= DEATHS_IN_A_ROW:
            raise RunFailedError(f"{self.deaths} workers in a row died: is there too little memory? try --jobs 1")
        self.strikes[spec.run_id] += 1
        if self.strikes[spec.run_id] < STRIKES:
            worker.own.append(spec)
        else:
            self.keep(spec, Answer(None, 0.0, _died(self.strikes[spec.run_id])))

    def _keep_what_is_there(self) -> None:
        for future, worker in list(self.running.items()):
            if worker.doing and future.done() and not future.cancelled() and future.exception() is None:
                self.keep(worker.doing, future.result())


def _died(times: int) -> str:
    return f"its worker process died {times} times (killed, out of memory, or a crash in compiled code)"


def new_process(share: int | None = None) -> ProcessPoolExecutor:
    """A pool of one spawned process; `share` of the kernels is what it begins with compiling."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker, initargs=(share,))


def _start_worker(share: int | None) -> None:
    """Ctrl-C is the parent's to handle; a worker whose parent is gone ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if share is not None:
        compile_share(share)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def kill(pool: Any) -> None:
    """End the workers now: a run may take long and its result is not wanted any more."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Workers read these when they start."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Spawned processes import the parent's main module again; no task needs it, and a script without a guard would
    compute everything once more in every worker."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
