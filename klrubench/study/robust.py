"""Does the verdict survive? The same comparison under other costs, latencies, MLP, rates and DRAM:CXL ratios.

Each factor is moved alone over its levels, which tells what flips a verdict; then all of them together in eight
settings, a resolution III fraction of the two-level design (generators D = AB, E = AC; Box and Hunter, Technometrics
3(3), 1961), which tells whether it survives when several move. Spare and charged kernel threads are judged in all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import UsageError
from klrubench.params import parse_spec
from klrubench.study.expand import check_names
from klrubench.study.gather import Gathered, Say, Workers, gather, open_store
from klrubench.study.progress import Progress
from klrubench.study.spec import (
    AUTO_FOLD_LIMIT,
    Part,
    RunSpec,
    auto_fold,
    full_accesses,
    make_spec,
    parse_scale,
    policy_part,
    resolve_options,
    workload_part,
)
from klrubench.study.statistics import EQUAL_POINTS, Estimate, estimate, log_ratios
from klrubench.study.store import Store
from klrubench.study.suite import Question, question
from klrubench.study.table import row

if TYPE_CHECKING:
    from klrubench.machine import Machine

BASELINE = "first_touch"
COARSER = 4
"""The runs are so many times coarser than a comparison's: there are twenty times as many of them."""

FACTORS: dict[str, tuple[float, ...]] = {
    "cost": (0.5, 2.0, 4.0),
    "latency": (0.75, 1.5),
    "mlp": (0.5, 2.0),
    "rate": (0.25, 4.0),
    "DRAM": (0.5, 2.0),
}
"""Levels of each factor, as multiples: of every kernel cost, of the lower tiers' latency, of the misses in flight, of
the touches a page and second, and of the top tier's part in the ratio. Ranges of costs and latencies: those that the
cost table and the machine presets span; MLP and rate: what the workloads' sources differ by."""

GENERATORS = {"rate": ("cost", "latency"), "DRAM": ("cost", "mlp")}


@dataclass(frozen=True)
class Setting:
    """Multiples of some factors; none: as asked for. `alone`: one factor moves."""

    factors: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """`cost x4, rate x0.25`."""
        return ", ".join(f"{name} x{factor:g}" for name, factor in self.factors) or "as asked"

    @property
    def alone(self) -> bool:
        """Whether a single factor moves."""
        return len(self.factors) == 1

    def get(self, name: str) -> float:
        """Multiple of a factor."""
        return dict(self.factors).get(name, 1.0)


def settings() -> list[Setting]:
    """As asked, each factor alone, then the eight combined settings of lowest and highest levels."""
    found = [Setting(), *(Setting(((name, level),)) for name, levels in FACTORS.items() for level in levels)]
    free = [name for name in FACTORS if name not in GENERATORS]
    for signs in product((-1, 1), repeat=len(free)):
        sign = dict(zip(free, signs, strict=True))
        sign |= {name: sign[a] * sign[b] for name, (a, b) in GENERATORS.items()}
        ends = ((name, levels[0] if sign[name] < 0 else levels[-1]) for name, levels in FACTORS.items())
        found.append(Setting(tuple(ends)))
    return found


@dataclass(frozen=True)
class Cell:
    """A policy against the baseline under one setting, in points of slowdown against the baseline's time.

    Attributes:
        word: `better`, `worse`, `equal` (surely within +- 1 point) or `unsure` (the interval holds 0).
    """

    setting: Setting
    points: float
    low: float | None
    high: float | None
    word: str


@dataclass(frozen=True)
class Survival:
    """What became of one verdict.

    Attributes:
        workload, policy: labels.
        charged: kernel threads' CPU time charged, or on spare cores.
        cells: by setting, the one as asked first.
    """

    workload: str
    policy: str
    charged: bool
    cells: tuple[Cell, ...]

    @property
    def asked(self) -> Cell:
        """The verdict as asked."""
        return self.cells[0]

    @property
    def holds(self) -> int:
        """Other settings with the same word."""
        return sum(cell.word == self.asked.word for cell in self.cells[1:])

    def moved(self, word: str, alone: bool = True) -> list[Cell]:
        """Settings of one factor (or the combined ones) that end with another word than as asked: this one."""
        return [cell for cell in self.cells[1:] if cell.word == word != self.asked.word and cell.setting.alone == alone]


def robust_runs(question: Question, baseline: str) -> dict[tuple[str, Setting], list[RunSpec]]:
    """The runs of every workload and setting, the baseline's among them.

    Raises:
        UsageError: several machines or ratios, or a name or value that does not exist.
    """
    if len(question.machine) > 1 or len(question.ratio) > 1 or question.rates or len(question.placement) > 1:
        raise UsageError("--robust walks rates and ratios itself: give one machine, at most one ratio, and no axis")
    check_names(question)
    parts = [policy_part(text) for text in dict.fromkeys((baseline, *question.policy))]
    base, *others = parts
    chosen = [base, *(part for part in others if part.facts["contestant"] and part.facts["role"] == "policy")]
    machine, options = _machine(question), resolve_options({"daemon_cpus": question.daemon_cpus})
    found: dict[tuple[str, Setting], list[RunSpec]] = {}
    for text in question.workload:
        values = {"placement": question.placement[0]} if question.placement else {}
        asked = workload_part(text, **values)
        full = full_accesses(machine, asked, question.duration)
        fold = parse_scale(question.scale) or min(AUTO_FOLD_LIMIT, COARSER * auto_fold(full))
        for setting in settings():
            workload = _moved_workload(asked, setting)
            if workload is None:
                continue
            moved = _moved_machine(question, machine, setting)
            first = [
                make_spec(moved, workload, part, duration_s=question.duration, fold=fold, options=options)
                for part in chosen
            ]
            seeds = question.all_seeds
            found[asked.label, setting] = [dataclasses.replace(spec, seed=seed) for spec in first for seed in seeds]
    return found


def _machine(question: Question, costs: dict[str, str] | None = None, ratio: str | None = None) -> Machine:
    from klrubench.machine import load_machine

    return load_machine(
        question.machine[0],
        ratio=ratio or next(iter(question.ratio), None),
        kernel=question.kernel,
        hz=question.hz,
        sysctls=question.sysctl,
        costs=question.cost if costs is None else costs,
    )


def _moved_machine(question: Question, machine: Machine, setting: Setting) -> Machine:
    moved = machine
    if setting.get("DRAM") != 1 and machine.ratio:
        parts = [machine.ratio[0] * setting.get("DRAM"), *machine.ratio[1:]]
        moved = _machine(question, ratio=":".join(f"{part:g}" for part in parts))
    factor, cost = setting.get("latency"), setting.get("cost")
    nodes = tuple(
        node
        if node.tier == 0
        else dataclasses.replace(
            node, read_ns=tuple(factor * ns for ns in node.read_ns), write_ns=tuple(factor * ns for ns in node.write_ns)
        )
        for node in moved.nodes
    )
    costs = {name: dataclasses.replace(each, ns=cost * each.ns) for name, each in moved.costs.items()}
    return dataclasses.replace(moved, nodes=nodes, costs=costs)


def _moved_workload(part: Part, setting: Setting) -> Part | None:
    """The workload with its MLP and rate moved; None where a factor that moves has no meaning for it (closed loop)."""
    values = dict(part.params)
    for name in ("mlp", "rate"):
        factor = setting.get(name)
        if factor == 1:
            continue
        if not values.get(name) or values[name] * factor < (1 if name == "mlp" else 0):
            return None
        values[name] *= factor
    label_name = parse_spec(part.label)[0]
    return workload_part(label_name, **values)


def judge(
    found: dict[tuple[str, Setting], list[RunSpec]], records: Callable[[str], dict[str, Any] | None], baseline: str
) -> list[Survival]:
    """The verdicts, of every workload and policy, spare and charged.

    Args:
        found: of `robust_runs`.
        records: a run's record by its id; None where it failed (its setting is then left out).
        baseline: label of the policy that the others are held against.
    """
    cells: dict[tuple[str, str, bool], list[Cell]] = {}
    for (workload, setting), specs in found.items():
        rows = [row(record) for spec in specs if (record := records(spec.run_id)) is not None]
        for charged in (False, True):
            value = "charged_time_s" if charged else "time_s"
            times = {(each["policy"], each["seed"]): each[value] for each in rows}
            for policy in dict.fromkeys(each["policy"] for each in rows if each["policy"] != baseline):
                seeds = [seed for name, seed in times if name == policy and (baseline, seed) in times]
                logs = log_ratios([times[policy, seed] for seed in seeds], [times[baseline, seed] for seed in seeds])
                if logs:
                    cells.setdefault((workload, policy, charged), []).append(_cell(setting, estimate(logs)))
    pairs = dict.fromkeys((workload, policy) for workload, policy, _ in cells)
    return [
        Survival(workload, policy, charged, tuple(cells[workload, policy, charged]))
        for workload, policy in pairs
        for charged in (False, True)
        if not cells[workload, policy, charged][0].setting.factors
    ]


def _cell(setting: Setting, found: Estimate) -> Cell:
    low, high = found.low_pct, found.high_pct
    return Cell(setting, found.pct, low, high, _word(found.pct, low, high))


def _word(points: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "unsure"
    if low >= -EQUAL_POINTS and high <= EQUAL_POINTS:
        return "equal"
    if high < 0:
        return "better"
    return "worse" if low > 0 else "unsure"


@dataclass(frozen=True)
class Robustness:
    """The answer: what survives, and what came of the runs.

    Attributes:
        baseline: label of the policy that the others are held against.
        survivals: by workload and policy, spare then charged.
        gathered: which runs were there, which were computed, and which failed.
    """

    baseline: str
    survivals: list[Survival]
    gathered: Gathered


def compare_robustly(
    policies: Sequence[str] | None = None,
    workloads: Sequence[str] | None = None,
    *,
    suite: str = "default",
    study: str | Path | None = None,
    baseline: str | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    store: Store | Path | str | None = None,
    progress: Progress | None = None,
    say: Say = lambda line: None,
    **given: Any,
) -> Robustness:
    """Compare under every setting, computing only what is not stored yet; takes what `compare` takes.

    Args:
        baseline: the policy that the others are held against (default: first_touch, no migration).

    Raises:
        UsageError: something that was given makes no sense, in one line.
        InterruptedRunsError: Ctrl-C; results are kept.
    """
    renamed = {_NAMES.get(name, name): value for name, value in given.items()}
    asked = question(suite, study, policy=policies, workload=workloads, **renamed)
    against = baseline or BASELINE
    found = robust_runs(asked, against)
    runs = list({spec.run_id: spec for specs in found.values() for spec in specs}.values())
    gathered = gather(runs, open_store(store, say), Workers(jobs, executor, progress), say)
    label = policy_part(against).label
    return Robustness(label, judge(found, gathered.records.get, label), gathered)


_NAMES = {
    "ratios": "ratio",
    "placements": "placement",
    "duration_s": "duration",
    "sysctls": "sysctl",
    "costs": "cost",
}
