"""Every policy tuned with the same budget: default and tuned side by side, on seeds and workloads that tuned nothing.

Each policy with parameters gets one sweep (`study.sweep`) of as many trials, with the same sampler, seed, workloads,
seeds, machine and objective: charged slowdown. Its winner is chosen among the best trials and the default on fresh
seeds, and judged on further ones, which all policies share: differences are paired. The study's name holds the budget,
so that a sweep with more trials never stands beside one with fewer; runs that both need are computed once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from klrubench.errors import RunFailedError, UsageError
from klrubench.params import parse_spec
from klrubench.study.executor import InterruptedRunsError
from klrubench.study.executors import Backend, open_executor
from klrubench.study.expand import check_names, warnings
from klrubench.study.gather import open_store
from klrubench.study.identity import digest
from klrubench.study.manifest import manifest
from klrubench.study.plugins import load
from klrubench.study.spec import Part, RunSpec, policy_part
from klrubench.study.store import Store
from klrubench.study.suite import Question, question, read_study
from klrubench.study.sweep import samplers
from klrubench.study.sweep.confirm import Judge
from klrubench.study.sweep.drive import Swept, sweep
from klrubench.study.sweep.plan import BASE, DEFAULT_WORKLOADS, TOP, Asked, Plan, held_out, resolve
from klrubench.study.sweep.progress import Silent, SweepProgress
from klrubench.study.sweep.search import Results
from klrubench.study.sweep.space import declared_axis
from klrubench.study.sweep.storage import FOLDER
from klrubench.study.sweep.winner import write
from klrubench.study.tuned_answer import ACCOUNTS, Contestant, Say, Tuned, cells_of, judged, order_of
from klrubench.study.worker import Task, work

DEFAULT_BUDGET = 48
"""Trials a policy: six batches of eight; at four parameters the best hardly moves from there on."""

SWEEP_S, SWEEP_SEEDS, JUDGING_SEEDS = 60.0, 3, 5
"""Longest run and most seeds of a trial, and the seeds that judge where none are asked for: those of `sweep`."""


def compare_tuned(
    policies: Sequence[str] | None = None,
    workloads: Sequence[str] | None = None,
    *,
    budget: int | None = None,
    held_out: Sequence[str] | None = None,
    sampler: str = "tpe",
    sampler_seed: int = 1,
    top: int = 3,
    suite: str = "default",
    study: str | Path | None = None,
    jobs: int | None = None,
    executor: str | Backend | None = None,
    store: Store | Path | str | None = None,
    progress: SweepProgress | None = None,
    say: Say = lambda line: None,
    task: Task = work,
    **given: Any,
) -> Tuned:
    """Tune every policy with the same budget, and judge default and tuned. The same call goes on where one was stopped.

    Args:
        policies: `NAME[:k=v,...]`, what is given is held; default: those of the suite. The bounds are always added.
        workloads: tuned on; default: kv, gups:rate=2, hotset_shift.
        budget: trials a policy (48).
        held_out: workloads that only judge; default: others of the default suite; `["none"]`: none.
        sampler, sampler_seed: of all sweeps (`sweep.samplers.SAMPLERS`).
        top: best trials that are run again to choose the winner.
        suite, study, jobs, executor, store, progress, say: as for `compare`.
        task: what a worker does with a run.
        given: machine, ratios, seeds (that judge: 5), duration_s, scale, kernel, hz, sysctls, costs, daemon_cpus, as
            for `compare`. A trial has 3 seeds, or fewer where fewer judge, and runs of 60 s at most.

    Raises:
        UsageError: something that was given makes no sense, in one line; before anything is computed.
        InterruptedRunsError: Ctrl-C; finished trials and runs are kept.
        RunFailedError: a policy fails trial after trial; the sweeps of those before it are kept.
        StoreError: results cannot be written.
    """
    trials = DEFAULT_BUDGET if budget is None else budget
    if trials < 1:
        raise UsageError(f"--budget {trials}: a policy needs a trial at least")
    told = _question(suite, study, policies, workloads, given)
    about = _asked(told, trials, held_out, sampler, sampler_seed, top)
    rows, plans = _field(told.policy, about)
    place = open_store(store, say)
    place.check_writable()
    for line in warnings(told, [_run_of(plan, plan.part) for plan in plans.values()]):
        say(f"warning: {line}")
    counting = Counting(progress or Silent())
    opened = contextlib.nullcontext(executor) if isinstance(executor, Backend) else open_executor(executor, jobs)
    with opened as backend:
        for line in backend.told:
            say(line)
        swept: dict[str, Swept] = {}
        for number, (label, plan) in enumerate(plans.items(), 1):
            where = f"policy {number} of {len(plans)}, {label}"
            swept[label] = _sweep(plan, where, place, backend, counting, say, task)
        done = [_finished(each, plans.get(each.label), swept) for each in rows]
        counting.at("all policies").begin(0, 1, "judging")
        judge = Judge.of(next(iter(plans.values())), Results(place, backend, counting, task))
        shown, suites = judged(judge, done, say)
        counting.stop()
    found = Tuned(
        shown,
        cells_of(judge, shown, suites),
        {account: order_of(judge, shown, suites, account) for account in ACCOUNTS},
        _manifest(told, about, judge, swept),
        place.path / FOLDER / f"tuned-{_name(judge, swept)}.json",
        counting.computed,
    )
    write(found.file, json.dumps(found.to_record(), indent=2, ensure_ascii=False) + "\n")
    return found


# --- what is asked ----------------------------------------------------------------------------------------------------
_NAMES = {"ratios": "ratio", "placements": "placement", "duration_s": "duration", "sysctls": "sysctl", "costs": "cost"}


def _question(
    suite: str,
    study: str | Path | None,
    policies: Sequence[str] | None,
    workloads: Sequence[str] | None,
    given: Mapping[str, Any],
) -> Question:
    """The question with the workloads to tune on and the seeds that judge; raises UsageError for axes."""
    renamed = {_NAMES.get(name, name): value for name, value in given.items()}
    file = read_study(Path(study)) if study is not None else {}
    if renamed.get("seeds") is None and "seeds" not in file:
        renamed["seeds"] = JUDGING_SEEDS
    if not workloads and "workload" not in file:
        workloads = DEFAULT_WORKLOADS
    told = question(suite, study, policy=policies, workload=workloads, **renamed)
    if len(told.machine) > 1 or len(told.ratio) > 1:
        raise UsageError("--tuned: a sweep has one machine and one ratio; give one --machine and one --ratio")
    if told.rates or told.placement:
        raise UsageError("--tuned takes no --rates or --placement: write -w kv:rate=2,placement=lower, a -w each")
    if told.first_seed != 1:
        raise UsageError(f"--tuned takes no first_seed={told.first_seed}: seeds from 1 on tune, choose, then judge")
    if told.baseline != TOP:
        raise UsageError(f"--tuned takes no --baseline {told.baseline}: sweeps make the slowdown against {TOP} small")
    check_names(told)
    return told


def _asked(
    told: Question, trials: int, unseen: Sequence[str] | None, sampler: str, sampler_seed: int, top: int
) -> Asked:
    """The sweep of every policy; only the policy is to be filled in."""
    system = {
        "machine": told.machine[0],
        "ratio": next(iter(told.ratio), None),
        "kernel": told.kernel,
        "hz": told.hz,
        "sysctl": told.sysctl or None,
        "cost": told.cost or None,
        "daemon_cpus": told.daemon_cpus,
    }
    return Asked(
        "",
        workload=told.workload,
        held_out=tuple(unseen or ()),
        sampler=sampler,
        trials=trials,
        seeds=min(SWEEP_SEEDS, told.seeds),
        duration=min(SWEEP_S, told.duration),
        scale=told.scale,
        system={key: value for key, value in system.items() if value is not None},
        seed=sampler_seed,
        deterministic=True,
        full_duration=told.duration,
        fresh_seeds=told.seeds,
        top=top,
    )


def _field(policies: Iterable[str], about: Asked) -> tuple[list[Contestant], dict[str, Plan]]:
    """All rows but all_top, and the resolved sweeps of those that have something to tune; raises UsageError."""
    rows, plans = [], {}
    samplers.check(about.sampler, 1)
    for text in policies:
        part = policy_part(text)
        if part.name == TOP:
            continue
        why = _why_not(part, text)
        ranked = _can_run(part) or part.name == BASE
        rows.append(Contestant(text, part, why=why, ranked=ranked))
        if not why:
            plans[text] = resolve(dataclasses.replace(about, policy=text))
    if not plans:
        raise UsageError(
            "--tuned: none of these policies has a parameter to tune; klrubench list policies names others"
        )
    held_out(next(iter(plans.values())))
    return sorted(rows, key=lambda each: not _can_run(each.default)), plans


def _can_run(part: Part) -> bool:
    return bool(part.facts["contestant"]) and part.facts["role"] == "policy"


def _why_not(part: Part, text: str) -> str:
    if not _can_run(part):
        return f"a {part.facts['role']}"
    cls = load(part.source)
    axes = [name for name, each in cls.parameters.items() if each.tune and declared_axis(cls, name) is not None]
    if not axes:
        return "no parameter to tune"
    return "" if set(axes) - set(parse_spec(text)[1]) else "all its parameters are held"


def _run_of(plan: Plan, part: Part) -> RunSpec:
    return dataclasses.replace(plan.cells[0].base, policy=part)


# --- the sweeps -------------------------------------------------------------------------------------------------------
class Counting:
    """Passes on what a sweep tells, with the policy it is at, and counts the runs that are computed."""

    def __init__(self, inner: SweepProgress) -> None:
        self._inner, self._where = inner, ""
        self.computed = 0

    def at(self, where: str) -> Counting:
        """The same from here on, at another policy."""
        self._where = where
        self._inner.batch(0, "")  # the best trial of the policy before
        return self

    def begin(self, done: int, trials: int, what: str) -> None:
        """Pass it on, with where it is."""
        self._inner.begin(done, trials, f"{what}, {self._where}")

    def batch(self, done: int, best: str) -> None:
        """Pass it on."""
        self._inner.batch(done, best)

    def start(self, specs: list[RunSpec]) -> None:
        """Pass it on."""
        self._inner.start(specs)

    def done(self, spec: RunSpec) -> None:
        """Count the run and pass it on."""
        self.computed += 1
        self._inner.done(spec)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._inner.note(text)

    def stop(self) -> None:
        """Pass it on."""
        self._inner.stop()


def _sweep(plan: Plan, where: str, place: Store, backend: Backend, progress: Counting, say: Say, task: Task) -> Swept:
    """One policy's sweep; what ends it is said with the policy's name."""
    asked = plan.asked
    name = f"{plan.part.name}-tuned{asked.trials}-{plan.identity[:8]}"
    try:
        return sweep(
            asked,
            name=name,
            store=place,
            executor=backend,
            say=lambda line: say(f"{where}: {line}"),
            progress=progress.at(where),
            task=task,
        )
    except InterruptedRunsError as error:
        raise InterruptedRunsError(f"{where}: {error}") from None
    except RunFailedError as error:
        raise RunFailedError(f"{where}: {error}") from None


def _finished(each: Contestant, plan: Plan | None, swept: Mapping[str, Swept]) -> Contestant:
    if plan is None:
        return each
    told = swept[each.label].summary
    return dataclasses.replace(each, tuned=plan.varied(told["confirmed"]["winner"]["values"]), sweep=told)


# --- what it stands on ------------------------------------------------------------------------------------------------
def _manifest(told: Question, about: Asked, judge: Judge, swept: Mapping[str, Swept]) -> dict[str, Any]:
    facts = {label: each.summary["about"] for label, each in swept.items()}
    first, around = next(iter(facts.values())), manifest(0.0)
    return {
        "budget": about.trials,
        "objective": first["objectives"][0],
        "sampler": {
            "name": about.sampler,
            "seed": about.seed,
            "deterministic": about.deterministic,
            "pruner": first["pruner"],
        },
        "spaces": {label: each["space"] for label, each in facts.items()},
        "sweeps": {label: each.name for label, each in swept.items()},
        "top": about.top,
        "seeds": {
            "sweep": list(range(1, about.seeds + 1)),
            "choosing": list(judge.choosing),
            "judging": list(judge.judging),
        },
        "duration_s": {"sweep": about.duration, "judging": about.full_duration},
        "scales": {"sweep": first["scales"], "judging": {label: base.fold for label, base in judge.bases.items()}},
        "workloads": judge.plan.workloads,
        "held_out": judge.unseen,
        **{name: getattr(told, name) for name in ("kernel", "hz", "sysctl", "cost", "daemon_cpus")},
        "machine": told.machine[0],
        "ratio": next(iter(told.ratio), None),
        "versions": first["versions"],
        **{name: around[name] for name in ("commit", "study_commit", "command") if name in around},
    }


def _name(judge: Judge, swept: Mapping[str, Swept]) -> str:
    runs = [dataclasses.replace(base, seed=seed).run_id for base in judge.bases.values() for seed in judge.judging]
    return digest(*(each.name for each in swept.values()), *runs, str(judge.plan.asked.top))[:8]
