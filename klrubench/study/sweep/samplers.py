"""Samplers by name; each trial gets a freshly seeded one, so that a resumed sweep goes on as one without a break."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from klrubench.errors import UnknownNameError, UsageError
from klrubench.study.identity import digest
from klrubench.study.sweep.cori import points
from klrubench.study.sweep.space import Axis, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from klrubench.study.spec import RunSpec

SAMPLERS = {
    "tpe": "tree of Parzen estimators, all parameters together (the default)",
    "cmaes": "CMA-ES with margin for integers: many cheap trials, one objective",
    "qmc": "scrambled Sobol points: even coverage for slices and contours",
    "nsga2": "evolution, two objectives, many trials",
    "nsga3": "evolution, three and more objectives, many trials",
    "grid": "all combinations of a few values of each parameter",
    "random": "independent draws",
    "gp": "Gaussian process: few costly trials (needs torch)",
    "cori": "multiples of the dominant reuse time as period, the rest at its default",
}
PLANNED = ("grid", "cori")
_NEEDS = {"cmaes": "cmaes", "gp": "torch"}
_ONE_OBJECTIVE = ("cmaes", "cori")


def check(name: str, n_objectives: int) -> None:
    """Raise UnknownNameError or UsageError where that sampler cannot be had or cannot do it."""
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    module = _NEEDS.get(name)
    if module is not None and find_spec(module) is None:
        more = "'klrubench[gp]'" if name == "gp" else module
        raise UsageError(f"--sampler {name} needs {module}: pip install {more}; or use --sampler tpe")
    if n_objectives > 1 and name in _ONE_OBJECTIVE:
        raise UsageError(f"--sampler {name} takes one --objective; use tpe, nsga2 or nsga3 for several")


def derived(seed: int, number: int) -> int:
    """The seed of a trial's draws: a pure function of the study's seed and the trial's number."""
    return int(digest("sampler", str(seed), str(number))[:8], 16)


def make(name: str, seed: int, number: int) -> BaseSampler:
    """The sampler that draws trial `number`."""
    from optuna import samplers

    own = derived(seed, number)
    if name == "tpe":
        return samplers.TPESampler(seed=own, multivariate=True, constant_liar=True)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=own, with_margin=True, warn_independent_sampling=False)
    if name == "qmc":
        # one sequence for the whole study: its scrambling must not change from trial to trial
        return samplers.QMCSampler(scramble=True, seed=derived(seed, -1), warn_independent_sampling=False)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=own, population_size=POPULATION)
    if name == "nsga3":
        return samplers.NSGAIIISampler(seed=own, population_size=POPULATION)
    if name == "gp":
        return samplers.GPSampler(seed=own, deterministic_objective=False)
    return samplers.RandomSampler(seed=own)


POPULATION = 30


def planned(name: str, space: Space, specs: Sequence[RunSpec], trials: int, seed: int) -> list[dict[str, Any]]:
    """Points tried before the sampler is asked: the defaults first, then Cori's period; for grid and cori, all.

    Raises:
        UsageError: cori without a period.
    """
    first = [space.start()]
    if name == "grid":
        return _each_once([*first, *grid(space, trials - 1, seed)])
    if name == "cori":
        return _each_once([*first, *points(space, specs)])
    try:
        return _each_once([*first, *points(space, specs)[:1]])
    except UsageError:
        return first


def grid(space: Space, most: int, seed: int) -> list[dict[str, Any]]:
    """The finest full grid of at most `most` points, shuffled (a sweep that is stopped has still covered the range)."""
    steps = {axis.name: 1 for axis in space.axes}
    while True:
        grown = _finer(space, steps, most)
        if grown is None:
            break
        steps[grown] += 1
    values = [_levels(axis, steps[axis.name]) for axis in space.axes]
    found = [dict(zip(steps, each, strict=True)) for each in itertools.product(*values)]
    random.Random(derived(seed, -2)).shuffle(found)
    return found


def _finer(space: Space, steps: dict[str, int], most: int) -> str | None:
    """The axis with fewest values that can take one more without passing `most` points."""
    for axis in sorted(space.axes, key=lambda axis: steps[axis.name]):
        total = 1
        for other in space.axes:
            total *= len(_levels(other, steps[other.name] + (other is axis)))
        if total <= most and len(_levels(axis, steps[axis.name] + 1)) > len(_levels(axis, steps[axis.name])):
            return axis.name
    return None


def _levels(axis: Axis, count: int) -> list[Any]:
    """`count` values spread over the range, ends included; one: the middle."""
    if axis.choices:
        return list(axis.choices[:count])
    parts = [0.5] if count == 1 else [k / (count - 1) for k in range(count)]
    return list(dict.fromkeys(axis.at(part) for part in parts))


def _each_once(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({str(sorted(point.items())): point for point in found}.values())
