"""A sweep from Python: `klrubench.sweep("klruscand", ["kv"], trials=50)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.study.gather import open_store
from klrubench.study.store import Store
from klrubench.study.sweep import drive
from klrubench.study.sweep.plan import Asked
from klrubench.study.sweep.progress import SweepProgress
from klrubench.study.sweep.storage import load
from klrubench.study.sweep.trials import Trial, trials_of
from klrubench.study.table import frame
from klrubench.study.worker import Task, work

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Sweep:
    """A finished sweep.

    Attributes:
        name: for `klrubench sweep show`.
        winner: the policy with the winning parameters, as `compare` takes it; of several objectives the first of
            `winners`.
        winners: one; of several objectives points of the front.
        winner_file: a study file with default and winner (`compare(study=...)`).
        trials: one row a trial: number, state, feasible, its objectives, its parameters, why it failed.
        summary: all that `klrubench sweep --json` prints.
    """

    name: str
    winner: str
    winners: tuple[str, ...]
    winner_file: Path
    trials: pl.DataFrame
    summary: dict[str, Any]


def sweep(
    policy: str,
    workloads: Sequence[str] = (),
    *,
    held_out: Sequence[str] = (),
    param: Sequence[str] = (),
    fix: Mapping[str, Any] | None = None,
    objective: Sequence[str] = (),
    constraint: Sequence[str] = (),
    sampler: str = "tpe",
    trials: int = 100,
    seeds: int = 3,
    duration_s: float = 60.0,
    scale: str = "auto",
    seed: int = 1,
    deterministic: bool = False,
    top: int = 3,
    fresh_seeds: int = 5,
    full_duration_s: float = 120.0,
    machine: str | None = None,
    ratio: str | None = None,
    kernel: str | None = None,
    hz: int | None = None,
    sysctls: Mapping[str, int | str] | None = None,
    costs: Mapping[str, str] | None = None,
    daemon_cpus: str | None = None,
    name: str | None = None,
    storage: str | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    store: Store | Path | str | None = None,
    progress: SweepProgress | None = None,
    say: Callable[[str], None] = lambda line: None,
    task: Task = work,
) -> Sweep:
    """Search a policy's parameters and judge the winner; arguments are the options of `klrubench sweep`.

    The same call goes on where one was stopped, and computes nothing once it is complete.

    Raises:
        UsageError: something that was given makes no sense, in one line.
        InterruptedRunsError: Ctrl-C; all finished trials and runs are kept.
        RunFailedError: trial after trial fails, or none is within the constraints.
        StoreError: the storage or the results cannot be written.
    """
    system = {
        "machine": machine,
        "ratio": ratio,
        "kernel": kernel,
        "hz": hz,
        "sysctl": dict(sysctls) if sysctls else None,
        "cost": dict(costs) if costs else None,
        "daemon_cpus": daemon_cpus,
    }
    asked = Asked(
        policy,
        workload=tuple(workloads),
        held_out=tuple(held_out),
        param=tuple(param),
        fix={key: str(value) for key, value in (fix or {}).items()},
        objective=tuple(objective),
        constraint=tuple(constraint),
        sampler=sampler,
        trials=trials,
        seeds=seeds,
        duration=duration_s,
        scale=scale,
        system={key: value for key, value in system.items() if value is not None},
        seed=seed,
        deterministic=deterministic,
        full_duration=full_duration_s,
        fresh_seeds=fresh_seeds,
        top=top,
    )
    place = open_store(store, say)
    found = drive.sweep(
        asked,
        name=name,
        storage=storage,
        store=place,
        jobs=jobs,
        executor=executor,
        say=say,
        progress=progress,
        task=task,
    )
    confirmed = found.summary["confirmed"]
    winners = [confirmed["winner"]] if "winner" in confirmed else confirmed["winners"]
    labels = tuple(dict.fromkeys(each["label"] for each in winners))
    study = load(drive.place_of(storage, place), found.name)
    rows = [_row(trial, found.summary["about"]["objectives"]) for trial in trials_of(study)]
    return Sweep(found.name, labels[0], labels, found.winner, frame(rows), found.summary)


def _row(trial: Trial, objectives: Sequence[str]) -> dict[str, Any]:
    values = trial.objectives or (None,) * len(objectives)
    facts = {"trial": trial.number, "state": trial.state, "feasible": trial.feasible}
    return {**facts, **dict(zip(objectives, values, strict=True)), **(trial.values or trial.drawn), "why": trial.why}
