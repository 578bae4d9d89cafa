"""Compute many runs, in this process or in spawned ones; every result is stored as soon as it is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from klrubench.errors import KlrubenchError, RunFailedError, StoreError
from klrubench.study.executors import Backend, open_executor, usable_cpus
from klrubench.study.executors.cold import is_cold
from klrubench.study.folder import shown
from klrubench.study.manifest import manifest
from klrubench.study.progress import Progress, Quiet
from klrubench.study.spec import RunSpec
from klrubench.study.store import Store
from klrubench.study.worker import Answer, Task, work


class InterruptedRunsError(KlrubenchError):
    """Ctrl-C: what was computed is kept (exit code 130)."""

    exit_code = 130


@dataclass(frozen=True)
class Failure:
    """A run that did not end well.

    Attributes:
        spec: the run.
        message: what went wrong, in one line.
        error: class of klrubench.errors to report it with.
        detail: the traceback, for whoever looks for the bug; empty for an error a user can make.
    """

    spec: RunSpec
    message: str
    error: type[KlrubenchError] = RunFailedError
    detail: str = ""


@dataclass
class Batch:
    """What came of some runs.

    Attributes:
        records: `{"id", "spec", "result", "manifest"}` of every run that ended well, by run id.
        failures: the others.
        unstored: ids of results that could not be written and exist in `records` only.
        store_error: why.
    """

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unstored: list[str] = field(default_factory=list)
    store_error: StoreError | None = None


def run_all(
    specs: list[RunSpec],
    *,
    jobs: int | None = None,
    executor: str | Backend | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
    task: Task = work,
) -> Batch:
    """Compute all runs; one that fails does not stop the others.

    Args:
        specs: the runs, each id once.
        jobs: processes or threads (default: one a CPU); one process is this one.
        executor: what `--executor` says (see `klrubench.study.executors`), or one that is open already.
        store: where each result is written the moment it is there; `None` keeps them in memory.
        progress: who is told.
        task: what a worker does with a run; a function that can be pickled.

    Raises:
        InterruptedRunsError: Ctrl-C; says how many results are kept.
        StoreError: the store cannot be written, noticed before anything is computed.
        UsageError: there is no such executor, or nobody answers there.
    """
    batch, progress = Batch(), progress or Quiet()
    if store is not None:
        store.check_writable()
    with contextlib.ExitStack() as stack:
        if isinstance(executor, Backend):
            backend = executor
        else:
            here = max(1, min(jobs or usable_cpus(), len(specs)))
            backend = stack.enter_context(open_executor(executor, here if _is_local(executor) else jobs))
        for line in backend.told:
            progress.note(line)
        _say_if_cold(progress)
        progress.start(specs)
        try:
            backend.compute(grouped(specs), task, _keeper(batch, store, progress))
        except KeyboardInterrupt:
            raise InterruptedRunsError(_interrupted(batch, store, len(specs))) from None
        finally:
            progress.stop()
            _store_again(batch, store)
    return batch


def _is_local(executor: str | None) -> bool:
    return executor is None or executor in ("processes", "threads")


def _say_if_cold(progress: Progress) -> None:
    """Compilation takes a while and happens in the workers' first runs: say so, or it looks as if nothing went on."""
    if is_cold():
        progress.note("compiling kernels (once)")


def grouped(specs: list[RunSpec]) -> list[list[RunSpec]]:
    """Runs that meet the same stream, together; the group with most work first, so that the end is even."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.group, []).append(spec)
    return sorted(groups.values(), key=lambda group: -sum(spec.work for spec in group))


def _keeper(batch: Batch, store: Store | None, progress: Progress) -> Callable[[RunSpec, Answer], None]:
    def keep(spec: RunSpec, answer: Answer) -> None:
        if answer.result is None:
            batch.failures.append(Failure(spec, answer.message, answer.error, answer.detail))
        else:
            record = {"id": spec.run_id, "spec": spec.to_record(), "result": answer.result}
            _keep(batch, store, {**record, "manifest": manifest(answer.wall_s, answer.host)})
        progress.done(spec)

    return keep


def _keep(batch: Batch, store: Store | None, record: dict[str, Any]) -> None:
    batch.records[record["id"]] = record
    if store is None:
        return
    try:
        store.put(record["id"], record["spec"], record["result"], record["manifest"])
    except StoreError as error:
        batch.unstored.append(record["id"])
        batch.store_error = error


def _store_again(batch: Batch, store: Store | None) -> None:
    """Try once more at the end: room may have been made meanwhile."""
    waiting, batch.unstored, batch.store_error = batch.unstored, [], None
    for run_id in waiting:
        _keep(batch, store, batch.records[run_id])


def _interrupted(batch: Batch, store: Store | None, total: int) -> str:
    kept = len(batch.records) - len(batch.unstored)
    where = f"in {shown(store.path)}; the same command goes on from there" if store is not None else "in memory"
    return f"interrupted: {kept} of {total} runs are kept {where}"


def raise_failures(failures: list[Failure], total: int) -> None:
    """Raise what a command ends with when runs failed; nothing when none did.

    Raises:
        KlrubenchError: of the runs' own kind where all of them failed alike (a value that no run can use).
        RunFailedError: else; names the first few.
    """
    if not failures:
        return
    kinds = {failure.error for failure in failures}
    messages = list(dict.fromkeys(failure.message for failure in failures))
    if len(failures) == total and len(kinds) == 1 and RunFailedError not in kinds:
        raise failures[0].error("; ".join(messages[:3]))
    named = [f"{failure.spec.title}: {failure.message}" for failure in failures[:3]]
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    raise RunFailedError(f"{len(failures)} of {total} runs failed: {'; '.join(named)}{more}")
