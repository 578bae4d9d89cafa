"""A sweep from the first trial to the winner's file, and on from wherever it was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import ScaleError, UsageError
from klrubench.study.executor import InterruptedRunsError
from klrubench.study.executors import Backend, open_executor
from klrubench.study.folder import shown
from klrubench.study.gather import open_store
from klrubench.study.manifest import manifest
from klrubench.study.spec import RunSpec
from klrubench.study.store import Store
from klrubench.study.sweep import samplers
from klrubench.study.sweep.confirm import confirm
from klrubench.study.sweep.measures import Measure
from klrubench.study.sweep.plan import Asked, Plan, held_out, in_time, legal, resolve
from klrubench.study.sweep.progress import Silent, SweepProgress
from klrubench.study.sweep.search import Results, Search
from klrubench.study.sweep.show import summary
from klrubench.study.sweep.storage import FOLDER, Place, TakenError, load, opened
from klrubench.study.sweep.trials import ranked, trials_of
from klrubench.study.sweep.winner import winner_toml, write
from klrubench.study.worker import Task, work

if TYPE_CHECKING:
    import optuna

SHORT, LONG = 4, 8


@dataclass(frozen=True)
class Swept:
    """A finished sweep.

    Attributes:
        name: of the study, for `klrubench sweep show`.
        where: its journal or database, for messages.
        winner: the file that `compare --study` takes.
        summary: all that tables and figures need (`show.summary`).
    """

    name: str
    where: str
    winner: Path
    summary: dict[str, Any]


def place_of(storage: str | None, store: Store) -> Place:
    """Where studies are: `--storage` (a database URL, or a folder of journals), else sweeps/ of the results folder."""
    if storage is not None and "://" in storage:
        return Place(storage, store.path / FOLDER)
    return Place(None, Path(storage) if storage else store.path / FOLDER)


def sweep(
    asked: Asked,
    *,
    name: str | None = None,
    storage: str | None = None,
    store: Store | Path | str | None = None,
    jobs: int | None = None,
    executor: str | Backend | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: SweepProgress | None = None,
    task: Task = work,
) -> Swept:
    """Search a policy's parameters, judge the winner, write it down. The same call goes on where one was stopped.

    Args:
        asked: what to search (`plan.Asked`).
        name: of the study; default: the policy and four digits of what is asked.
        storage: a database URL (several drivers may share it) or a folder of journal files.
        store: results folder; runs that are there are not computed again.
        jobs: processes or threads (default: one a CPU).
        executor: where runs are computed (see `klrubench.study.executors`), or one that is open already.
        say: told the lines that belong on stderr.
        progress: who is told how far it is.
        task: what a worker does with a run.

    Raises:
        UsageError: something that was given makes no sense, in one line.
        InterruptedRunsError: Ctrl-C; all finished trials and runs are kept.
        StoreError: the storage or the results cannot be written.
        RunFailedError: trial after trial fails, or none is within the constraints.
    """
    plan = resolve(asked)
    samplers.check(asked.sampler, len(plan.objectives))
    held_out(plan)
    place_store = open_store(store, say)
    place_store.check_writable()
    with (
        contextlib.nullcontext(executor) if isinstance(executor, Backend) else open_executor(executor, jobs) as backend
    ):
        for line in () if backend is executor else backend.told:
            say(line)
        results = Results(place_store, backend, progress or Silent(), task)
        plan, told = in_time(plan)
        plan, lines = legal(plan, lambda spec: _fits(spec, results))
        for line in [*told, *lines]:
            say(line)
        return _named(plan, place_of(storage, place_store), name, results, progress or Silent(), say)


def _fits(spec: RunSpec, results: Results) -> bool:
    """Whether the scale of a run can hold its parameters; any other trouble is for the trials to find."""
    try:
        results.of([spec])
    except InterruptedRunsError:
        raise InterruptedRunsError("interrupted before the first trial") from None
    small = any(failure.error is ScaleError for failure in results.failures)
    results.failures.clear()
    return not small


def _named(
    plan: Plan, place: Place, name: str | None, results: Results, progress: SweepProgress, say: Callable[[str], None]
) -> Swept:
    """Under the name given; else under one of its own, longer where somebody else's sweep has the short one."""
    if name is not None:
        _check_name(name)
        return _swept(plan, place, name, results, progress, say)
    for digits in (SHORT, LONG):
        try:
            return _swept(plan, place, f"{plan.part.name}-{plan.identity[:digits]}", results, progress, say)
        except TakenError:
            continue
    raise UsageError("both names that this sweep could have belong to others; give it a --name")


def _check_name(name: str) -> None:
    if not name or any(mark in name for mark in "/\\\0") or name.startswith("."):
        raise UsageError(f"--name '{name}': letters, digits, - and _ make a good name")


def _swept(
    plan: Plan, place: Place, name: str, results: Results, progress: SweepProgress, say: Callable[[str], None]
) -> Swept:
    about, searching = facts(plan, results), False
    try:
        with opened(place, name, len(plan.objectives), about) as study:
            searching = True
            _search(plan, study, place, name, results, progress, say)
            confirmed = _confirmed(plan, study, results, progress, say)
            path = place.folder / f"{name}.toml"
            found = summary(study)
            write(path, winner_toml(plan, confirmed, name, _in_short(found)))
            return Swept(name, place.shown(name), path, {**found, "winner_file": shown(path)})
    except (KeyboardInterrupt, InterruptedRunsError):
        raise InterruptedRunsError(_interrupted(plan, place, name, searching)) from None


def _search(
    plan: Plan,
    study: optuna.Study,
    place: Place,
    name: str,
    results: Results,
    progress: SweepProgress,
    say: Callable[[str], None],
) -> None:
    spent = dict(study.user_attrs.get("spent", {}))
    ended = len(trials_of(study))
    say(_opening(plan, name, place, ended))

    def told(search: Search) -> None:
        trials = trials_of(study)
        study.set_user_attr("spent", _sum(spent, search))
        place.sync()
        progress.batch(len(trials), best_line(plan.objectives, trials))

    search = Search(plan, study, results, shared=place.shared, told=told)
    progress.begin(ended, plan.asked.trials, "trials")
    search.run()
    study.set_user_attr("spent", _sum(spent, search))


def _sum(spent: dict[str, float], search: Search) -> dict[str, float]:
    """Seconds and runs of all calls that worked on the study."""
    own = {
        "wall_s": search.wall_s,
        "overhead_s": search.overhead_s,
        "runs": search.results.computed,
        "cached": search.results.found,
    }
    return {key: round(spent.get(key, 0) + value, 3) for key, value in own.items()}


def _opening(plan: Plan, name: str, place: Place, ended: int) -> str:
    cells = f"{len(plan.workloads)} workloads x {plan.asked.seeds} seeds"
    scales = sorted({cell.base.fold for cell in plan.cells})
    scale = "/".join(f"1/{fold}" for fold in scales)
    again = f"; {ended} are there" if ended else ""
    axes = ", ".join(axis.text() for axis in plan.space.axes)
    return (
        f"sweep {name}: {plan.asked.trials} trials of {cells}{again}; short and coarse runs "
        f"({plan.asked.duration:g} s, scale {scale}), winners again in full; in {place.shown(name)}; searches {axes}"
    )


def best_line(objectives: list[Measure], trials: list[Any]) -> str:
    """`best -4.3 % against first_touch at #54 interval_ms=640`; empty before the first full trial."""
    best = next(iter(ranked(trials)), None)
    if best is None:
        return ""
    measure = objectives[0]
    unit = "%" if measure.relative else measure.unit
    values = " ".join(f"{key}={value}" for key, value in best.values.items())
    return f"best {best.objectives[0]:+.2f} {unit} vs first_touch at #{best.number} {values}"


def _confirmed(
    plan: Plan, study: optuna.Study, results: Results, progress: SweepProgress, say: Callable[[str], None]
) -> dict[str, Any]:
    trials = trials_of(study)
    progress.begin(0, 1, "judging the winners in full")
    confirmed = confirm(plan, trials, results)
    progress.stop()
    confirmed["trials"] = len(trials)
    study.set_user_attr("confirmed", confirmed)
    return confirmed


def _interrupted(plan: Plan, place: Place, name: str, searching: bool) -> str:
    if not searching:
        return "interrupted before the first trial"
    kept = len(trials_of(load(place, name)))
    return (
        f"interrupted: {kept} of {plan.asked.trials} trials are kept in {place.shown(name)}, their runs in the store; "
        "the same command goes on from there"
    )


def _in_short(found: dict[str, Any]) -> str:
    counts = found["counts"]
    return (
        f"{counts['trials']} trials ({counts['complete']} full, {counts['pruned']} pruned, {counts['failed']} failed), "
        f"{found['about']['sampler']}, seed {found['about']['seed']}, made small: "
        + ", ".join(found["about"]["objectives"])
    )


def facts(plan: Plan, results: Results) -> dict[str, Any]:
    """What is kept with a study: budget, space, sampler and everything that its values follow from."""
    import optuna

    asked, told = plan.asked, plan.question
    around = manifest(0.0)
    return {
        "identity": plan.identity,
        "policy": plan.part.label,
        "machine": told.machine[0],
        "ratio": list(told.ratio),
        "workloads": plan.workloads,
        "cells": [[cell.workload, cell.seed] for cell in plan.cells],
        "space": plan.space.to_record(),
        "axes": [vars(axis) | {"choices": list(axis.choices)} for axis in plan.space.axes],
        "objectives": [each.name for each in plan.objectives],
        "constraints": [each.text for each in plan.constraints],
        "sampler": asked.sampler,
        "pruner": "wilcoxon p<0.1" if plan.prunable else "none",
        "seed": asked.seed,
        "deterministic": asked.deterministic,
        "trials": asked.trials,
        "seeds": asked.seeds,
        "duration_s": asked.duration,
        "scales": {cell.workload: cell.base.fold for cell in plan.cells},
        "versions": {**around["versions"], "optuna": optuna.__version__},
        "commit": around.get("commit"),
    }
