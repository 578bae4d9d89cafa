"""No winner's curse: the best trials run again in full, on seeds and workloads that chose none of them.

Three sets of seeds take part: those of the sweep; fresh ones that choose the winner among the best trials and the
default; and others that only judge it. The winner per workload and the leave-one-out winner come from the trials' own
values by workload, and are judged on the same fresh seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klrubench.errors import RunFailedError
from klrubench.study.executor import raise_failures
from klrubench.study.spec import Part, RunSpec, policy_part
from klrubench.study.statistics import EQUAL_POINTS, Estimate, overall
from klrubench.study.sweep.measures import Measure
from klrubench.study.sweep.plan import BASE, TOP, Plan, bases_of, held_out
from klrubench.study.sweep.search import Results
from klrubench.study.sweep.trials import Trial, front, ranked

Suite = dict[str, list[float]]
"""By workload: one number a seed, as means are taken of it."""


@dataclass(frozen=True)
class Judge:
    """Runs in full length of any policy, on the workloads and seeds of the final judgement."""

    plan: Plan
    results: Results
    bases: dict[str, RunSpec]
    choosing: tuple[int, ...]
    judging: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan, results: Results) -> Judge:
        """The judge of a plan: full length, scale by compare's rule, seeds after those of the sweep."""
        told, asked = plan.question, plan.asked
        texts = [*told.workload, *held_out(plan)]
        # no coarser than the sweep's scale: that is where the ranges were found to hold
        most = max(cell.base.fold for cell in plan.cells)
        bases = [
            dataclasses.replace(base, fold=min(base.fold, most), work=base.work * max(1, base.fold // most))
            for base in bases_of(told, texts, plan.part, asked.full_duration, told.scale)
        ]
        first, second = asked.seeds + 1, 2 * asked.seeds + 1
        return cls(
            plan,
            results,
            {base.workload.label: base for base in bases},
            tuple(range(first, second)),
            tuple(range(second, second + asked.fresh_seeds)),
        )

    @property
    def unseen(self) -> list[str]:
        """Labels of the held-out workloads."""
        return [label for label in self.bases if label not in self.plan.workloads]

    def specs(self, part: Part, workloads: Sequence[str], seeds: Sequence[int]) -> list[RunSpec]:
        """The runs of a policy."""
        return [dataclasses.replace(self.bases[w], policy=part, seed=seed) for w in workloads for seed in seeds]

    def numbers(self, part: Part, measure: Measure, workloads: Sequence[str], seeds: Sequence[int]) -> Suite:
        """A measure of a policy by workload; raises RunFailedError where a run failed."""
        own, top = self.specs(part, workloads, seeds), self.specs(policy_part(TOP), workloads, seeds)
        before = len(self.results.failures)
        runs = self.results.of([*own, *top])
        raise_failures(self.results.failures[before:], len(own) + len(top))
        found: Suite = {}
        for spec, ideal in zip(own, top, strict=True):
            value = measure.log_or_plain(runs[spec.run_id], runs[ideal.run_id])
            found.setdefault(spec.workload.label, []).append(value)
        return found


def confirm(plan: Plan, trials: Sequence[Trial], results: Results) -> dict[str, Any]:
    """Judge the winners of a sweep.

    Returns:
        Plain data for the storage: `measure`, `unit`, `seeds`, `duration_s`, `scales`, `workloads`, `held_out`, `rows`
        (who, values, in_sweep, fresh, held, against_default, against_base: each a mean with its interval),
        `winner` (`values`, `label`, `number`), `beats_base`, `by_workload`.

    Raises:
        RunFailedError: no trial is complete and within the constraints.
    """
    judge = Judge.of(plan, results)
    if not ranked(trials):
        bounds = f" within {', '.join(each.text for each in plan.constraints)}" if plan.constraints else ""
        raise RunFailedError(
            f"no trial of {len(trials)} is complete{bounds}: there is no winner; allow more or search on"
        )
    compute_at_once(judge, trials)
    if len(plan.objectives) > 1:
        return {**_about(judge), **_several(judge, trials)}
    return {**_about(judge), **_one(judge, trials)}


def compute_at_once(judge: Judge, trials: Sequence[Trial]) -> int:
    """Run what the judgement surely needs in one go, so that all processes have work; returns the number of runs."""
    plan, tuned = judge.plan, judge.plan.workloads
    everywhere = list(judge.bases)
    specs = [s for name in (TOP, BASE) for s in judge.specs(policy_part(name), everywhere, judge.judging)]
    specs += judge.specs(policy_part(TOP), tuned, judge.choosing)
    specs += judge.specs(_default(plan), everywhere, judge.judging)
    for part in [_default(plan), *(plan.varied(trial.values) for trial in _finalists(plan, trials))]:
        specs += judge.specs(part, tuned, judge.choosing)
    if len(plan.objectives) == 1:
        for chosen in (per_workload(plan, trials), leave_one_out(plan, trials)):
            for label, trial in chosen.items():
                specs += judge.specs(plan.varied(trial.values), [label], judge.judging)
    judge.results.of(specs)
    return len(specs)


def _finalists(plan: Plan, trials: Sequence[Trial]) -> list[Trial]:
    if len(plan.objectives) == 1:
        return ranked(trials)[: plan.asked.top]
    found, most = front(trials), max(2, plan.asked.top)
    if len(found) <= most:
        return found
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]


def _default(plan: Plan) -> Part:
    return plan.varied({})


def _about(judge: Judge) -> dict[str, Any]:
    first = judge.plan.objectives[0]
    return {
        "measure": first.name,
        "unit": first.unit,
        "choosing_seeds": list(judge.choosing),
        "seeds": list(judge.judging),
        "duration_s": judge.plan.asked.full_duration,
        "scales": {label: base.fold for label, base in judge.bases.items()},
        "workloads": judge.plan.workloads,
        "held_out": judge.unseen,
    }


def _one(judge: Judge, trials: Sequence[Trial]) -> dict[str, Any]:
    plan, measure = judge.plan, judge.plan.objectives[0]
    start, tuned, unseen = _default(plan), plan.workloads, judge.unseen
    number, values = _winner(judge, trials)
    best = plan.varied(values)
    by_number: dict[int | None, Trial] = {trial.number: trial for trial in trials}
    first = next((trial for trial in trials if trial.values == plan.space.values(plan.space.start())), None)
    base, usual = policy_part(BASE), judge.numbers(start, measure, tuned, judge.judging)
    floor = judge.numbers(base, measure, tuned, judge.judging)
    own = judge.numbers(best, measure, tuned, judge.judging)
    rows = [
        _row(judge, "first_touch", base, {}, None, floor, None, floor),
        _row(judge, "default", start, plan.space.values(plan.space.start()), first, usual, None, floor),
        _row(judge, "tuned on all", best, values, by_number.get(number), own, usual, floor),
    ]
    if len(tuned) > 1:
        each, out = per_workload(plan, trials), leave_one_out(plan, trials)
        rows.append(_mixed_row(judge, "tuned per workload", each, usual, floor, in_sweep=True))
        rows.append(_mixed_row(judge, "leave one out", out, usual, floor, in_sweep=False))
    gain = _difference(measure, own, floor)
    by_workload = {}
    for label in [*tuned, *unseen]:
        parts = {"first_touch": base, "default": start, "tuned": best}
        if len(tuned) > 1 and label in tuned:
            parts["tuned_alone"] = plan.varied(each[label].values)
        told = {name: judge.numbers(part, measure, [label], judge.judging) for name, part in parts.items()}
        by_workload[label] = {name: _mean(measure, suite) for name, suite in told.items()}
    winner = {"number": number, "values": values, "label": best.label}
    return {"rows": rows, "winner": winner, "beats_base": gain, "by_workload": by_workload}


def _winner(judge: Judge, trials: Sequence[Trial]) -> tuple[int | None, dict[str, Any]]:
    """Number and parameters of the best of the finalists and the default, on fresh seeds, within the constraints."""
    plan = judge.plan
    start = plan.space.values(plan.space.start())
    points: list[tuple[int | None, dict[str, Any]]] = [(t.number, t.values) for t in _finalists(plan, trials)]
    if start not in [values for _, values in points]:
        points.append((next((trial.number for trial in trials if trial.values == start), None), start))
    scored = [(*_score(judge, values), number if number is not None else -1, values) for number, values in points]
    _, _, number, values = min(scored, key=lambda each: each[:3])
    return (None if number < 0 else number), values


def _score(judge: Judge, values: Mapping[str, Any]) -> tuple[float, float]:
    """How far beyond the constraints, then the objective, both on the choosing seeds."""
    plan, part = judge.plan, judge.plan.varied(values)
    beyond = 0.0
    for bound in plan.constraints:
        suite = judge.numbers(part, bound.measure, plan.workloads, judge.choosing)
        beyond += max(0.0, bound.violation(bound.measure.shown(overall(list(suite.values())).log)))
    suite = judge.numbers(part, plan.objectives[0], plan.workloads, judge.choosing)
    return beyond, overall(list(suite.values())).log


def _cells_of(plan: Plan, label: str, inside: bool) -> list[int]:
    return [k for k, cell in enumerate(plan.cells) if (cell.workload == label) is inside]


def per_workload(plan: Plan, trials: Sequence[Trial]) -> dict[str, Trial]:
    """By workload, the trial that was best on it."""
    return {label: _best_on(plan, trials, _cells_of(plan, label, True)) for label in plan.workloads}


def leave_one_out(plan: Plan, trials: Sequence[Trial]) -> dict[str, Trial]:
    """By workload, the trial that was best on all the others; nothing with a single workload."""
    if len(plan.workloads) < 2:
        return {}
    return {label: _best_on(plan, trials, _cells_of(plan, label, False)) for label in plan.workloads}


def _best_on(plan: Plan, trials: Sequence[Trial], cells: list[int]) -> Trial:
    name = plan.objectives[0].name
    return min(ranked(trials), key=lambda trial: (trial.mean(name, cells), trial.number))


def _row(
    judge: Judge,
    who: str,
    part: Part,
    values: Mapping[str, Any],
    trial: Trial | None,
    fresh: Suite,
    usual: Suite | None,
    floor: Suite,
) -> dict[str, Any]:
    measure = judge.plan.objectives[0]
    held = judge.numbers(part, measure, judge.unseen, judge.judging) if judge.unseen else {}
    row = {
        "who": who,
        "values": {axis.name: [values[axis.name]] for axis in judge.plan.space.axes if axis.name in values},
        "in_sweep": trial.shown(measure.name) if trial is not None and trial.cells else None,
        "fresh": _mean(measure, fresh),
        "held": _mean(measure, held) if held else None,
        "against_base": _difference(measure, fresh, floor),
    }
    if usual is not None:
        row["against_default"] = _difference(measure, fresh, usual)
        if held:
            other = judge.numbers(_default(judge.plan), measure, judge.unseen, judge.judging)
            row["held_against_default"] = _difference(measure, held, other)
    return row


def _mixed_row(
    judge: Judge, who: str, chosen: Mapping[str, Trial], usual: Suite, floor: Suite, in_sweep: bool
) -> dict[str, Any]:
    """A row whose parameters differ by workload."""
    plan, measure = judge.plan, judge.plan.objectives[0]
    suite: Suite = {}
    for label, trial in chosen.items():
        suite |= judge.numbers(plan.varied(trial.values), measure, [label], judge.judging)
    inside = [trial.mean(measure.name, _cells_of(plan, label, True)) for label, trial in chosen.items()]
    return {
        "who": who,
        "values": {axis.name: [t.values[axis.name] for t in chosen.values()] for axis in plan.space.axes},
        "by_workload": {label: trial.values for label, trial in chosen.items()},
        "in_sweep": measure.shown(math.fsum(inside) / len(inside)) if in_sweep else None,
        "fresh": _mean(measure, suite),
        "held": None,
        "against_base": _difference(measure, suite, floor),
        "against_default": _difference(measure, suite, usual),
    }


def _mean(measure: Measure, suite: Suite) -> dict[str, Any]:
    """A mean in the measure's unit with the ends of its interval (None with one seed)."""
    found = overall(list(suite.values()))
    ends = (None, None) if found.half is None else (found.log - found.half, found.log + found.half)
    return {"mean": measure.shown(found.log), **_ends(measure, ends), "seeds": found.seeds}


def _ends(measure: Measure, ends: Sequence[float | None]) -> dict[str, float | None]:
    low, high = (None if end is None else measure.shown(end) for end in ends)
    return {"low": low, "high": high}


def _difference(measure: Measure, own: Suite, other: Suite) -> dict[str, Any]:
    """How much more `own` has than `other`, seeds paired: points of slowdown, % of a latency, or its unit."""
    pairs = [[a - b for a, b in zip(own[label], other[label], strict=True)] for label in own]
    found = overall(pairs)
    scale = _scale(measure, [other[label] for label in own])
    ends = (None, None) if found.half is None else (found.log - found.half, found.log + found.half)
    middle, low, high = (None if log is None else scale(log) for log in (found.log, *ends))
    return {"mean": middle, "low": low, "high": high, "word": _word(measure, found, low, high)}


def _scale(measure: Measure, other: list[list[float]]) -> Any:
    if not measure.relative:
        return float
    level = math.exp(overall(other).log) if measure.against_top else 1.0
    return lambda log: 100 * level * math.expm1(log)


def _word(measure: Measure, found: Estimate, low: float | None, high: float | None) -> str:
    if low is None or high is None or found.half is None:
        return "1 seed"
    if measure.relative and low >= -EQUAL_POINTS and high <= EQUAL_POINTS:
        return "equal"
    if found.half == 0.0:
        return "exact"
    return "n.s." if low <= 0 <= high else "less" if high < 0 else "more"


def _several(judge: Judge, trials: Sequence[Trial]) -> dict[str, Any]:
    """The front on fresh seeds: every objective of a few of its points, and of the default."""
    plan = judge.plan
    rows: list[dict[str, Any]] = []
    start = plan.space.values(plan.space.start())
    points = [("default", start), *((f"front #{trial.number}", trial.values) for trial in _finalists(plan, trials))]
    for who, values in points:
        part = plan.varied(values)
        means = {m.name: _mean(m, judge.numbers(part, m, plan.workloads, judge.judging)) for m in plan.objectives}
        rows.append({"who": who, "values": {k: [v] for k, v in values.items()}, "means": means, "label": part.label})
    finalists = [{"values": {k: v[0] for k, v in row["values"].items()}, "label": row["label"]} for row in rows[1:]]
    return {"rows": rows, "winners": finalists, "front_size": len(front(trials))}
