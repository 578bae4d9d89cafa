"""The answer of a comparison of tuned policies: every row on every workload, judged on seeds that chose nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import KlrubenchError
from klrubench.study.executor import InterruptedRunsError
from klrubench.study.ranking import Difference, Order, Suite, differences, order
from klrubench.study.spec import Part
from klrubench.study.statistics import Estimate, overall
from klrubench.study.sweep.confirm import Judge
from klrubench.study.sweep.measures import MEASURES

if TYPE_CHECKING:
    import polars as pl

ACCOUNTS = ("charged", "spare")
SUITE, HELD_OUT = "tuned on", "held out"
UNCHANGED = Difference(0.0, 0.0, 0.0, None, "same")
"""Where the default won: nothing to test, and no member of the family that Holm's correction is for."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contestant:
    """A policy of the table.

    Attributes:
        label: as typed; what is given there is held.
        default: with its defaults.
        tuned: the winner of its sweep (the default itself where no trial was better); None: not tuned.
        why: why it is not tuned.
        ranked: takes part in the order: what a kernel can run, and first_touch.
        sweep: summary of its sweep (`sweep.show.summary`).
    """

    label: str
    default: Part
    tuned: Part | None = None
    why: str = ""
    ranked: bool = True
    sweep: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_won(self) -> bool:
        """Tuned in vain: on fresh seeds none of the best trials was better than the default."""
        return self.tuned is not None and self.tuned.params == self.default.params


@dataclass(frozen=True)
class Cell:
    """A policy on one workload, or on all it was tuned on, or on all that were held out.

    Attributes:
        policy: label.
        scope: `SUITE` or `HELD_OUT`.
        workload: label; empty: the mean over the scope.
        account: `charged` or `spare`.
        default, tuned: slowdown against all_top on the judging seeds; `tuned` is None where it is not tuned.
        difference: tuned - default, seeds paired; Holm over the policies of this column; `UNCHANGED`: the default won.
    """

    policy: str
    scope: str
    workload: str
    account: str
    default: Estimate
    tuned: Estimate | None
    difference: Difference | None


@dataclass(frozen=True)
class Tuned:
    """The answer.

    Attributes:
        contestants: rows, in the order asked.
        cells: see `Cell`.
        orders: by account, who is ahead of whom before and after, on the workloads tuned on.
        manifest: budget, space, sampler, seeds, machine, versions, commit.
        file: where all this is kept as JSON.
        computed: runs computed now.
    """

    contestants: list[Contestant]
    cells: list[Cell]
    orders: dict[str, Order]
    manifest: dict[str, Any]
    file: Path
    computed: int

    def cell(self, policy: str, scope: str, workload: str, account: str) -> Cell | None:
        """The cell of a policy; None where nothing is held out."""
        at = (policy, scope, workload, account)
        return next((c for c in self.cells if (c.policy, c.scope, c.workload, c.account) == at), None)

    def frame(self) -> pl.DataFrame:
        """One row a cell: policy, scope, workload (empty: all), account, slowdowns in % and their difference."""
        from klrubench.study.table import frame

        return frame([_flat(each) for each in self.cells])

    def to_record(self) -> dict[str, Any]:
        """Plain data: manifest, policies (winner, trials, judgement of the sweep), cells, order."""
        return {
            "manifest": self.manifest,
            "policies": [_told(each) for each in self.contestants],
            "results": [_flat(each) for each in self.cells],
            "order": {
                account: {
                    "default": found.default,
                    "tuned": found.tuned,
                    "pairs": [{**dataclasses.asdict(pair), "change": pair.change} for pair in found.pairs],
                }
                for account, found in self.orders.items()
            },
        }


def _flat(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(cell, name) for name in ("policy", "scope", "workload", "account")}
    for name, found in (("default", cell.default), ("tuned", cell.tuned)):
        ends = (found.pct, found.low_pct, found.high_pct) if found else (None, None, None)
        row |= {f"{name}_{end}": value for end, value in zip(("pct", "low_pct", "high_pct"), ends, strict=True)}
    names = {"points": "difference", "low": "difference_low", "high": "difference_high", "p": "p", "word": "verdict"}
    return row | {new: getattr(cell.difference, old, None) for old, new in names.items()}


def _told(each: Contestant) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": each.label, "default": each.default.label, "why_not_tuned": each.why}
    if each.tuned is None:
        return row
    told = each.sweep
    winner = {"tuned": each.tuned.label, "values": told["confirmed"]["winner"]["values"]}
    return {**row, **winner, "sweep": told["name"], "trials": told["counts"], "judgement": told["confirmed"]["rows"]}


Suites = dict[tuple[str, bool, str], Suite]
"""By label, whether tuned, and account: log ratios to all_top on every workload, a number a judging seed."""


def judged(judge: Judge, done: Sequence[Contestant], say: Say) -> tuple[list[Contestant], Suites]:
    """Both accounts of every policy; one that is not tuned and cannot be run here is left out, and that is said."""
    everywhere, shown = list(judge.bases), []
    found: Suites = {}
    parts = [part for each in done for part in (each.default, each.tuned) if part is not None]
    judge.results.of([spec for part in parts for spec in judge.specs(part, everywhere, judge.judging)])
    judge.results.failures.clear()
    for each in done:
        try:
            found |= {
                (each.label, part is each.tuned, account): judge.numbers(
                    part, MEASURES[account], everywhere, judge.judging
                )
                for part in (each.default, each.tuned)
                if part is not None
                for account in ACCOUNTS
            }
            shown.append(each)
        except InterruptedRunsError:
            raise
        except KlrubenchError as error:
            if each.tuned is not None:
                raise
            say(f"warning: {each.label} is left out: {error}")
    return shown, found


def cells_of(judge: Judge, shown: Sequence[Contestant], suites: Suites) -> list[Cell]:
    tuned = judge.plan.workloads
    columns = [(SUITE, "", tuned), *((SUITE, label, [label]) for label in tuned)]
    if judge.unseen:
        columns += [(HELD_OUT, "", judge.unseen), *((HELD_OUT, label, [label]) for label in judge.unseen)]
    found = []
    for scope, workload, labels in columns:
        for account in ACCOUNTS:
            own = {key[:2]: _part_of(suite, labels) for key, suite in suites.items() if key[2] == account}
            tested = [each.label for each in shown if each.tuned and not each.default_won]
            gains = differences({label: (own[label, True], own[label, False]) for label in tested})
            gains |= {each.label: UNCHANGED for each in shown if each.default_won}
            for each in shown:
                after = own.get((each.label, True))
                levels = [overall(list(suite.values())) if suite else None for suite in (own[each.label, False], after)]
                assert levels[0] is not None
                found.append(Cell(each.label, scope, workload, account, levels[0], levels[1], gains.get(each.label)))
    return found


def _part_of(suite: Suite, labels: Sequence[str]) -> Suite:
    return {label: suite[label] for label in labels}


def order_of(judge: Judge, shown: Sequence[Contestant], suites: Suites, account: str) -> Order:
    ranked, tuned = [each for each in shown if each.ranked], judge.plan.workloads
    before = {each.label: _part_of(suites[each.label, False, account], tuned) for each in ranked}
    after = {each.label: _part_of(suites[each.label, each.tuned is not None, account], tuned) for each in ranked}
    return order(before, after)
