"""The records of some runs: from the store what is there, computed what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from klrubench.errors import StoreError
from klrubench.study.executor import Batch, Failure, run_all
from klrubench.study.executors import Backend
from klrubench.study.folder import results_folder
from klrubench.study.progress import Progress
from klrubench.study.spec import RunSpec
from klrubench.study.store import Store

Say = Callable[[str], None]


class Workers(NamedTuple):
    """Who computes, and who is told; as for `run_all`."""

    jobs: int | None = None
    executor: str | Backend | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Gathered:
    """Records and what came of the rest.

    Attributes:
        records: by run id, of the runs that ended well.
        cached: ids of those that were stored already.
        batch: what was computed now.
    """

    records: dict[str, dict[str, Any]]
    cached: frozenset[str]
    batch: Batch

    @property
    def failures(self) -> list[Failure]:
        """Runs that did not end well."""
        return self.batch.failures

    @property
    def store_error(self) -> StoreError | None:
        """Why computed results could not be kept."""
        return self.batch.store_error


def open_store(store: Store | Path | str | None, say: Say = lambda line: None) -> Store:
    """The store to use; says on stderr where results go when that is not a study's folder."""
    if isinstance(store, Store):
        return store
    if store is not None:
        return Store(Path(store))
    folder, line = results_folder()
    if line:
        say(line)
    return Store(folder)


def gather(runs: list[RunSpec], store: Store, workers: Workers, say: Say) -> Gathered:
    """The records of all runs; says what the store has lost.

    Raises:
        InterruptedRunsError: Ctrl-C; results are kept.
        StoreError: results cannot be written (noticed before computing).
    """
    found = {run.run_id: store.get(run.run_id) for run in runs}
    for line in store.notes:
        say(f"warning: {line}")
    missing = [run for run in runs if found[run.run_id] is None]
    batch = run_all(missing, store=store, **workers._asdict()) if missing else Batch()
    there = {run_id: record for run_id, record in found.items() if record is not None}
    return Gathered({**there, **batch.records}, frozenset(there), batch)
