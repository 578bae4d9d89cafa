"""Worker processes that may die: the pool is rebuilt, and the run that kills workers is found and named."""

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
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from klrubench.errors import RunFailedError
from klrubench.study.spec import RunSpec
from klrubench.study.worker import Answer, Task

STRIKES = 3
"""Workers that a run may take with it before it is given up."""

DEATHS_IN_A_ROW = 12
"""Workers that may die one after another without a single result: then it is not a run's fault."""

_ONE_THREAD = ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS")


Keep = Callable[[RunSpec, Answer], None]


def compute(specs: list[RunSpec], jobs: int, task: Task, keep: Keep) -> None:
    """Do `task` with all runs in `jobs` spawned processes and hand each answer to `keep`, as they come.

    Raises:
        KeyboardInterrupt: after the workers were ended and the answers that were there have been kept.
        RunFailedError: workers die whatever they are given.
    """
    with _one_thread_each():
        _Crew(specs, jobs, task, keep).run()


class _Crew:
    """The runs that wait, those under way, and those that were under way when a worker died."""

    def __init__(self, specs: list[RunSpec], jobs: int, task: Task, keep: Keep) -> None:
        self.waiting = deque(specs)
        self.suspects: deque[RunSpec] = deque()
        self.running: dict[Future[Answer], RunSpec] = {}
        self.strikes: Counter[str] = Counter()
        self.deaths = 0
        self.jobs = jobs
        self.task = task
        self.keep = keep
        self.pool = _new_pool(jobs)

    def run(self) -> None:
        try:
            while self.waiting or self.suspects or self.running:
                self._submit()
                if self.running:
                    wait(self.running, return_when=FIRST_COMPLETED)
                    self._collect()
        except BaseException:
            self._keep_what_is_there()
            _kill(self.pool)
            raise
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        """Fill the workers. A suspect runs alone, so that a death can be laid at its door."""
        if self.suspects:
            if not self.running:
                self._start(self.suspects.popleft())
            return
        while self.waiting and len(self.running) < self.jobs and not self.suspects:
            self._start(self.waiting.popleft())

    def _start(self, spec: RunSpec) -> None:
        try:
            with _without_main():
                self.running[self.pool.submit(self.task, spec)] = spec
        except BrokenProcessPool:
            self._rebuild([spec, *self._lost(list(self.running))])

    def _collect(self) -> None:
        lost = self._lost([future for future in self.running if future.done()])
        if lost:
            self._rebuild(lost + self._lost(list(self.running)))

    def _lost(self, futures: list[Future[Answer]]) -> list[RunSpec]:
        """Wait for some runs and keep their answers; returns those whose worker died."""
        lost = []
        for future in futures:
            spec = self.running.pop(future)
            try:
                answer = future.result()
            except BrokenProcessPool:
                lost.append(spec)
            else:
                self.deaths = 0
                self.keep(spec, answer)
        return lost

    def _rebuild(self, lost: list[RunSpec]) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool = _new_pool(self.jobs)
        self.deaths += 1
        if self.deaths >= DEATHS_IN_A_ROW:
            raise RunFailedError(f"{self.deaths} workers in a row died: is there too little memory? try --jobs 1")
        for spec in lost:
            self.strikes[spec.run_id] += 1
            if self.strikes[spec.run_id] < STRIKES:
                self.suspects.append(spec)
            else:
                self.keep(spec, Answer(None, 0.0, _died(self.strikes[spec.run_id])))

    def _keep_what_is_there(self) -> None:
        for future, spec in list(self.running.items()):
            if future.done() and not future.cancelled() and future.exception() is None:
                self.keep(spec, future.result())


def _died(times: int) -> str:
    return f"its worker process died {times} times (killed, out of memory, or a crash in compiled code)"


def _new_pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a worker whose parent is gone ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers now: a run may take long and its result is not wanted any more."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
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
