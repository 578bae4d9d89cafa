"""What a sweep asks, resolved: the policy and its space, and the cells that every trial runs."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from klrubench.errors import UsageError
from klrubench.params import parse_spec
from klrubench.study.expand import INTERVALS
from klrubench.study.identity import digest
from klrubench.study.plugins import load, policy_source
from klrubench.study.spec import (
    Part,
    RunSpec,
    auto_fold,
    full_accesses,
    make_spec,
    parse_scale,
    policy_part,
    resolve_options,
    varied,
    workload_part,
)
from klrubench.study.suite import Question, question
from klrubench.study.sweep.measures import Constraint, Measure, constraints, objectives
from klrubench.study.sweep.space import Space, space_of

if TYPE_CHECKING:
    from klrubench.machine import Machine

SWEEP_ACCESSES = 1e7
"""Simulated accesses that `--scale auto` aims at in a sweep, a sixth of compare's; winners are run again in full."""

DEFAULT_WORKLOADS = ("kv", "gups:rate=2", "hotset_shift")
HELD_OUT = 3
Fits = Callable[[RunSpec], bool]
PERIODS = ("interval_ms", "period_ms", "epoch_ms", "scan_period_min_ms", "sample_ms")
"""Names under which policies have their period, and Cori finds it."""

TOP, BASE = "all_top", "first_touch"


@dataclass(frozen=True)
class Asked:
    """A sweep as typed.

    Attributes:
        policy: `NAME[:k=v,...]`; what is given there is held.
        workload: where it is tuned; empty: `DEFAULT_WORKLOADS`.
        held_out: workloads that only judge the winner; empty: others of the default suite; `("none",)`: none.
        param, fix: `NAME=LOW:HIGH[:log]` or `NAME=A/B`, and `NAME: value`.
        objective, constraint: names of measures; `MEASURE<=NUMBER`.
        sampler: name of `samplers.SAMPLERS`.
        trials, seeds, duration: budget, paired seeds a trial, seconds of work of a run in the sweep.
        scale: `auto` (about 1e7 accesses a run) or 1 over a power of two.
        system: machine, ratio, kernel, hz, sysctl, cost, daemon_cpus, as `suite.Question` takes them.
        seed: of the sampler.
        deterministic: batches of one size whatever the number of processes.
        full_duration, fresh_seeds, top: seconds and seeds of the runs that judge the winners, and how many are judged.
    """

    policy: str
    workload: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    param: tuple[str, ...] = ()
    fix: Mapping[str, str] = field(default_factory=dict)
    objective: tuple[str, ...] = ()
    constraint: tuple[str, ...] = ()
    sampler: str = "tpe"
    trials: int = 100
    seeds: int = 3
    duration: float = 60.0
    scale: str = "auto"
    system: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1
    deterministic: bool = False
    full_duration: float = 120.0
    fresh_seeds: int = 5
    top: int = 3


@dataclass(frozen=True)
class Cell:
    """One workload and seed that every trial runs; `base` is that run with the default parameters."""

    workload: str
    seed: int
    base: RunSpec


@dataclass(frozen=True)
class Plan:
    """A sweep, resolved.

    Attributes:
        asked: as typed.
        question: machine and the rest, all defaults filled in.
        part: the policy with what is held.
        space: what is searched.
        objectives, constraints: what is made small, and within which bounds.
        cells: what a trial runs, in the order it runs them: workloads in turn, shuffled, seed by seed.
    """

    asked: Asked
    question: Question
    part: Part
    space: Space
    objectives: list[Measure]
    constraints: list[Constraint]
    cells: list[Cell]

    @property
    def workloads(self) -> list[str]:
        """Labels of the workloads it is tuned on, in the order given."""
        return [cell.workload for cell in sorted(self.cells, key=lambda cell: self._order[cell.workload, cell.seed])][
            : len(self.cells) // self.asked.seeds
        ]

    @cached_property
    def _order(self) -> dict[tuple[str, int], int]:
        labels = [workload_part(text).label for text in self.question.workload]
        return {
            (label, s): s * len(labels) + k for k, label in enumerate(labels) for s in range(1, self.asked.seeds + 1)
        }

    @property
    def prunable(self) -> bool:
        """Whether trials may end early: one objective, and cells enough for the test to say anything."""
        return len(self.objectives) == 1 and len(self.cells) > FIRST_STAGE

    def stages(self) -> list[tuple[int, int]]:
        """Cells first .. last - 1 that are run before the pruner looks again."""
        several, total = len(self.workloads), len(self.cells)
        if not self.prunable:
            return [(0, total)]
        ends = [min(total, max(FIRST_STAGE, several))]
        while ends[-1] < total:
            ends.append(min(total, ends[-1] + max(2, several)))
        return list(zip([0, *ends], ends, strict=False))

    def varied(self, values: Mapping[str, Any]) -> Part:
        """The policy with these parameters; raises UsageError where they do not go together."""
        return varied(self.part, {**self.space.fixed, **values})

    def specs(self, part: Part) -> list[RunSpec]:
        """A policy's run of every cell, in their order."""
        return [dataclasses.replace(cell.base, policy=part) for cell in self.cells]

    @cached_property
    def identity(self) -> str:
        """Hash of everything that a trial's value follows from; not of the number of trials or processes."""
        asked = self.asked
        how = [*(each.name for each in self.objectives), *(each.text for each in self.constraints), asked.sampler]
        runs = [cell.base.run_id for cell in self.cells]
        return digest(*runs, *how, *map(str, self.space.to_record().items()), str(asked.seed), str(asked.deterministic))


FIRST_STAGE = 4
"""Cells before the first look: with fewer, Wilcoxon's test cannot reach p < .1."""


def resolve(asked: Asked) -> Plan:
    """Look everything up and make the runs of a trial with the default parameters.

    Raises:
        UsageError: a name, range or value that makes no sense, in one line.
    """
    name, given = parse_spec(asked.policy)
    cls = load(policy_source(name))
    space = space_of(cls, given, asked.param, asked.fix)
    part = policy_part(asked.policy if not asked.fix else _with(asked.policy, asked.fix))
    if not part.facts.get("contestant", True):
        raise UsageError(f"policy {name} is a bound: a kernel cannot run it, so there is nothing to tune")
    told = question(
        "default",
        policy=[asked.policy],
        workload=list(asked.workload or DEFAULT_WORKLOADS),
        seeds=asked.seeds,
        duration=asked.duration,
        scale=asked.scale,
        **asked.system,
    )
    return Plan(
        asked, told, part, space, objectives(asked.objective), constraints(asked.constraint), _cells(told, part, asked)
    )


def _with(policy: str, fixed: Mapping[str, str]) -> str:
    words = ",".join(f"{name}={value}" for name, value in fixed.items())
    return f"{policy}{',' if ':' in policy else ':'}{words}"


def machine_of(told: Question) -> Machine:
    """The one machine of a sweep; raises UsageError for several."""
    from klrubench.machine import load_machine

    if len(told.machine) != 1 or len(told.ratio) > 1:
        raise UsageError("a sweep has one machine and one ratio; tune on several workloads instead, or sweep twice")
    ratio = told.ratio[0] if told.ratio else None
    return load_machine(
        told.machine[0], ratio=ratio, kernel=told.kernel, hz=told.hz, sysctls=told.sysctl, costs=told.cost
    )


def _cells(told: Question, part: Part, asked: Asked) -> list[Cell]:
    bases = bases_of(told, list(told.workload), part, told.duration, told.scale, SWEEP_ACCESSES)
    draw, cells = random.Random(f"klrubench sweep {asked.seed}"), []
    for seed in range(1, asked.seeds + 1):
        row = [Cell(base.workload.label, seed, dataclasses.replace(base, seed=seed)) for base in bases]
        draw.shuffle(row)
        cells += row
    return cells


def bases_of(
    told: Question, workloads: Sequence[str], part: Part, duration_s: float, scale: str, aim: float | None = None
) -> list[RunSpec]:
    """A policy's run of each workload with seed 1; scale `auto` means about `aim` accesses (6e7)."""
    machine, options = machine_of(told), resolve_options({"daemon_cpus": told.daemon_cpus})
    found = {}
    for text in workloads:
        workload = workload_part(text)
        full = full_accesses(machine, workload, duration_s)
        fold = parse_scale(scale) or (auto_fold(full, aim) if aim else auto_fold(full))
        found[workload.label] = make_spec(
            machine, workload, part, duration_s=duration_s, fold=fold, options=options, full=full
        )
    return list(found.values())


def held_out(plan: Plan) -> list[str]:
    """Workloads that only judge: those asked for, or the first of the default suite neither tuned on nor controls."""
    if plan.asked.held_out == ("none",):
        return []
    tuned = set(plan.workloads)
    if plan.asked.held_out:
        both = [text for text in plan.asked.held_out if workload_part(text).label in tuned]
        if both:
            raise UsageError(f"--held-out {both[0]}: the sweep tunes on it too")
        return list(plan.asked.held_out)
    parts = [workload_part(text) for text in question("default").workload]
    return [part.label for part in parts if part.label not in tuned and not part.facts["control"]][:HELD_OUT]


def in_time(plan: Plan) -> tuple[Plan, list[str]]:
    """Lower the period's upper end to what fits four times into a run, unless it was typed; says so, or warns.

    A setting that hardly scans within a short run is first-touch, and would win where migration does not pay.
    """
    axis = next((axis for name in PERIODS if (axis := plan.space.axis(name)) is not None), None)
    most = 1000 * plan.asked.duration / INTERVALS
    if axis is None or axis.high <= most:
        return plan, []
    if (
        any(text.partition("=")[0].strip() == axis.name and "=" in text for text in plan.asked.param)
        or axis.low >= most
    ):
        line = f"{axis.name} up to {axis.high:g}: beyond {most:g} under {INTERVALS} fit into {plan.asked.duration:g} s"
        return plan, [f"warning: {line}, and what hardly scans looks like first_touch; --duration makes room"]
    space = plan.space.with_ends(axis.name, axis.low, most)
    line = f"{axis.name} up to {most:g}, not {axis.high:g}: {INTERVALS} fit into {plan.asked.duration:g} s"
    return dataclasses.replace(plan, space=space), [line]


def legal(plan: Plan, fits: Fits) -> tuple[Plan, list[str]]:
    """Raise lower ends that the coarse scale cannot hold, and say so.

    Args:
        plan: the sweep.
        fits: whether the scale of a run holds its constants (none falls under one simulated unit).
    """
    coarsest = max((cell.base for cell in plan.cells), key=lambda spec: spec.fold)
    said = []
    for axis in plan.space.axes:
        if axis.choices or not axis.whole or axis.low >= coarsest.fold:
            continue
        low = axis.low
        while low < axis.high and not _holds(plan, coarsest, axis.name, int(low), fits):
            low = min(axis.high, max(low * 2, low + 1))
        if low > axis.low:
            said.append(f"{axis.name} from {low:g}, not {axis.low:g}: the least that scale 1/{coarsest.fold} can hold")
            plan = dataclasses.replace(plan, space=plan.space.with_ends(axis.name, low, axis.high))
    return plan, said


def _holds(plan: Plan, spec: RunSpec, name: str, value: int, fits: Fits) -> bool:
    try:
        part = plan.varied({name: value})
    except UsageError:
        return True  # it goes together with no default, which is not the scale's fault
    return fits(dataclasses.replace(spec, policy=part))
