"""What a study says, from its storage alone: counts, importances, slices, contour, best so far, front, judgement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from klrubench.study.sweep.space import Axis
from klrubench.study.sweep.trials import Trial, best_so_far, front, ranked, trials_of

if TYPE_CHECKING:
    import optuna

SLICES = 6
CONTOUR = (8, 6)
FLAT_BINS = 4
FLAT_LEAST = 3
FEW = 8
FLAT_POINTS = 0.1
"""A parameter is flat when the bests of the quarters of its range are within so many per cent of first-touch's time."""


def summary(study: optuna.Study) -> dict[str, Any]:
    """All that a table or figure of a study needs, as plain data.

    Keys: name, about (the study's own facts), spent, counts, best (ranked first), importance ({objective: {parameter:
    share}}), flat (names), best_so_far, slices, contour, front, failures, confirmed (None before the judgement).
    """
    about = dict(study.user_attrs)
    trials = trials_of(study)
    axes = [Axis(**{**each, "choices": tuple(each["choices"])}) for each in about.get("axes", [])]
    importance = {name: importances(study, k) for k, name in enumerate(about.get("objectives", ["value"]))}
    first = ranked(trials)
    one = len(about.get("objectives", [])) == 1
    return {
        "name": study.study_name,
        "about": {key: value for key, value in about.items() if key not in ("confirmed", "spent", "axes")},
        "spent": about.get("spent", {}),
        "counts": counts(trials),
        "best": _plain(first[0]) if first and one else None,
        "importance": importance,
        "flat": [axis.name for axis in axes if one and flat(axis, trials)],
        "best_so_far": [{"trial": n, "objective": v, "values": dict(p)} for n, v, p in best_so_far(trials)]
        if one
        else [],
        "slices": {axis.name: slices(axis, trials) for axis in axes} if one else {},
        "contour": contour(*pair, trials) if one and (pair := _pair(axes, importance)) else None,
        "front": [_plain(each) for each in front(trials)] if not one else [],
        "failures": sorted({trial.why for trial in trials if trial.why})[:5],
        "confirmed": about.get("confirmed"),
    }


def _plain(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.number, "objectives": list(trial.objectives), "values": trial.values}


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Trials by how they ended, and those that were complete but beyond a constraint."""
    found = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
    beyond = sum(trial.state == "complete" and not trial.feasible for trial in trials)
    return {"trials": len(trials), **found, "beyond": beyond, "cells": sum(len(trial.cells) for trial in trials)}


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """PED-ANOVA: share of the variance among the best tenth that each parameter explains; none with too few trials."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    whole = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.values is not None and trial.state.name == "COMPLETE"
    ]
    if len(whole) < 2 or len({trial.values[objective] for trial in whole}) < 2:
        return {}
    try:
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: trial.values[objective]
        )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _known(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state == "complete" and trial.feasible]


def _single(axis: Axis) -> tuple[Any, ...]:
    """The values of a parameter that has only a few; none of a range."""
    few = axis.whole and axis.high - axis.low < FEW
    return tuple(range(int(axis.low), int(axis.high) + 1)) if few else axis.choices


def _bin(axis: Axis, trial: Trial, bins: int) -> int:
    known = _single(axis)
    if known:
        return known.index(trial.drawn[axis.name])
    return min(bins - 1, max(0, int(axis.part(trial.drawn[axis.name]) * bins)))


def slices(axis: Axis, trials: Sequence[Trial], bins: int = SLICES) -> list[dict[str, Any]]:
    """Along one parameter: for each stretch of its range the number of full trials, their best and their median."""
    known = _single(axis)
    bins = len(known) or bins
    groups: list[list[float]] = [[] for _ in range(bins)]
    for trial in _known(trials):
        groups[_bin(axis, trial, bins)].append(trial.objectives[0])
    found = []
    for k, values in enumerate(groups):
        ends = {"value": known[k]} if known else {"low": axis.at(k / bins), "high": axis.at((k + 1) / bins)}
        middle = sorted(values)[len(values) // 2] if values else None
        found.append({**ends, "trials": len(values), "best": min(values, default=None), "median": middle})
    return found


def flat(axis: Axis, trials: Sequence[Trial]) -> bool:
    """Whether the best value does not depend on a parameter: it is the same in each quarter of its range.

    False where a quarter has under three full trials: then nothing can be said.
    """
    cut = slices(axis, trials, FLAT_BINS)
    best = [each["best"] for each in cut if each["trials"] >= FLAT_LEAST]
    return len(best) == len(cut) > 1 and max(best) - min(best) <= FLAT_POINTS


def _pair(axes: Sequence[Axis], importance: dict[str, dict[str, float]]) -> tuple[Axis, Axis] | None:
    """Interval and batch where both are searched; else the two parameters that matter most."""
    named = {axis.name: axis for axis in axes}
    if {"interval_ms", "batch"} <= set(named):
        return named["interval_ms"], named["batch"]
    share = next(iter(importance.values()), {})
    order = sorted(axes, key=lambda axis: -share.get(axis.name, 0.0))
    return (order[0], order[1]) if len(order) > 1 else None


def contour(across: Axis, up: Axis, trials: Sequence[Trial]) -> dict[str, Any]:
    """Best value of the full trials in each field of a grid over two parameters; `None` in an empty field."""
    columns, rows = (_bins(axis, most) for axis, most in zip((across, up), CONTOUR, strict=True))
    grid: list[list[float | None]] = [[None] * columns for _ in range(rows)]
    for trial in _known(trials):
        row, column = _bin(up, trial, rows), _bin(across, trial, columns)
        held = grid[row][column]
        grid[row][column] = trial.objectives[0] if held is None else min(held, trial.objectives[0])
    return {
        "across": across.name,
        "up": up.name,
        "columns": [_edge(across, k, columns) for k in range(columns)],
        "rows": [_edge(up, k, rows) for k in range(rows)],
        "best": grid,
    }


def _bins(axis: Axis, most: int) -> int:
    return len(_single(axis)) or most


def _edge(axis: Axis, k: int, bins: int) -> Any:
    known = _single(axis)
    return known[k] if known else axis.at(k / bins)
