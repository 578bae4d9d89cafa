"""Trials as plain rows: what the winner, the tables and the figures are made of, from the storage alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from klrubench.study.sweep.measures import MEASURES, constraints

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Trial:
    """One trial that ran.

    Attributes:
        number: in the study.
        state: `complete`, `pruned` or `failed`.
        drawn, values: what the sampler drew, and the policy's parameters made of it.
        objectives: what the sampler was told (per cent above first-touch, or a difference to it), if complete.
        cells: for each (workload, seed) that was run, every measure as means are taken of it.
        feasible: within all constraints.
        why: of a failed one.
        made: when it was told, for best-so-far.
    """

    number: int
    state: str
    drawn: dict[str, Any]
    values: dict[str, Any]
    objectives: tuple[float, ...]
    cells: list[dict[str, float | None]] = field(default_factory=list)
    feasible: bool = True
    why: str = ""

    def mean(self, name: str, which: Sequence[int] | None = None) -> float:
        """Mean of a measure over cells (default: all), as means are taken of it; inf where a cell has none."""
        found = [cell[name] for k, cell in enumerate(self.cells) if which is None or k in which]
        return math.fsum(v for v in found if v is not None) / len(found) if found and None not in found else math.inf

    def shown(self, name: str, which: Sequence[int] | None = None) -> float:
        """The same in the measure's unit."""
        mean = self.mean(name, which)
        return MEASURES[name].shown(mean) if math.isfinite(mean) else math.inf


def trials_of(study: optuna.Study) -> list[Trial]:
    """All trials that ended, by number."""
    bounds = constraints(study.user_attrs.get("constraints", []))
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        if trial.state.name not in names or "lost" in attrs:
            continue
        cells = attrs.get("cells", [])
        row = Trial(
            trial.number,
            names[trial.state.name],
            dict(trial.params),
            dict(attrs.get("values", {})),
            tuple(trial.values or ()) if trial.state.name == "COMPLETE" else (),
            cells,
            why=attrs.get("why", ""),
        )
        fits = all(each.violation(row.shown(each.measure.name)) <= 0 for each in bounds) if cells else False
        found.append(Trial(**{**vars(row), "feasible": fits}))
    return found


def ranked(trials: Sequence[Trial], key: int = 0) -> list[Trial]:
    """Complete trials within the constraints, least objective first, each set of parameters once."""
    whole = [trial for trial in trials if trial.state == "complete" and trial.feasible]
    ordered = sorted(whole, key=lambda trial: (trial.objectives[key], trial.number))
    return list({str(sorted(trial.values.items())): trial for trial in reversed(ordered)}.values())[::-1]


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The Pareto front: complete trials within the constraints that no other beats in every objective; by the first."""
    whole = ranked(trials)
    return [each for each in whole if not any(_dominates(other, each) for other in whole)]


def _dominates(other: Trial, each: Trial) -> bool:
    pairs = list(zip(other.objectives, each.objectives, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def best_so_far(trials: Sequence[Trial]) -> list[tuple[int, float, Mapping[str, Any]]]:
    """Number, objective and parameters of every trial that was better than all before it."""
    found: list[tuple[int, float, Mapping[str, Any]]] = []
    for trial in trials:
        better = trial.state == "complete" and trial.feasible and (not found or trial.objectives[0] < found[-1][1])
        if better:
            found.append((trial.number, trial.objectives[0], trial.values))
    return found
