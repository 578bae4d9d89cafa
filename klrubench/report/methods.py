"""The paragraph on methods that a paper needs, out of the facts of stored runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from klrubench.study.statistics import EQUAL_POINTS


def methods_text(facts: Mapping[str, Any]) -> str:
    """One paragraph; every number in it is of the runs that `facts` (`study.facts.facts`) were taken from."""
    get = facts.get
    versions = _by_name(get("versions", ()))
    tool = f"klrubench {' and '.join(versions.pop('klrubench', ['(version not recorded)']))}"
    commits = f", commit {_listed(facts['commits'])}" if get("commits") else ""
    work = _listed([f"{name} ({sizes[0]:g} GiB)" for name, sizes in _by_name(get("footprints_gib", ())).items()])
    others = [name for name in facts["workloads"] if name not in dict(get("footprints_gib", ()))]
    work = ", ".join(filter(None, (work, _listed(others))))
    machines = _listed([f"{name}{f' with tiers sized {ratio}' if ratio else ''}" for name, ratio in facts["machines"]])
    seeds = facts["seeds"]
    parts = [
        f"We simulated Linux memory tiering with {tool}{commits}, a trace- and generator-driven simulator whose "
        "page-table walks, lists, watermarks, migration gate and kernel threads follow the kernel's own, and whose "
        "costs are data with sources (klrubench cite).",
        f"The machine {_plural('model is', 'models are', facts['machines'])} {machines}, under the rules of kernel "
        f"{_listed(facts['kernels'])} at HZ={_listed(facts['hz'])}.",
        f"The {_plural('workload is', 'workloads are', facts['workloads'])} {work}; a run is the work that an unloaded "
        f"all-DRAM machine does in {_listed([f'{value:g}' for value in facts['durations_s']])} s, the same for every "
        "policy, and what is measured is the virtual time that it takes.",
        f"We ran {_listed(get('policies', ())) or 'no policy'}"
        + (
            f" beside {_plural('the bound', 'the bounds', facts['bounds'])} {_listed(facts['bounds'])}"
            if get("bounds")
            else ""
        )
        + f", with {_plural('seed', 'seeds', seeds)} {_ranges(seeds)} "
        "(a seed draws stream, page order and daemon phases; policies share it): "
        f"{facts['runs']} runs, {_hours(facts['wall_s'])} of computing.",
        _scale(facts["folds"]),
        f"Kernel threads ran on {_cpus(facts['daemon_cpus'])}.",
    ]
    if len(seeds) > 1:
        parts.append(
            "Slowdowns are against all pages in DRAM, with 95 % t intervals on paired log ratios over seeds; verdicts "
            f"are adjusted by Holm over policies, and differences surely within {EQUAL_POINTS:g} point count as equal."
        )
    else:
        parts.append("There is one seed, so no interval and no test is given.")
    libraries = ", ".join(f"{name} {' and '.join(values)}" for name, values in versions.items())
    host = f" on {_listed(facts['cpus'])}" if get("cpus") else ""
    parts.append(f"Software: {libraries or 'not recorded'}{host}.")
    parts.append(
        "A run is a pure function of machine, workload, policy and seed; klrubench verify recomputes stored runs and "
        "compares bytes. Policies are compared under a stated model; absolute times are not claimed."
    )
    return " ".join(parts)


def _by_name(pairs: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _listed(values: Sequence[Any]) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _plural(one: str, more: str, values: Sequence[Any]) -> str:
    return one if len(values) == 1 else more


def _ranges(seeds: Sequence[int]) -> str:
    whole = list(range(seeds[0], seeds[-1] + 1)) == list(seeds)
    return f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 2 else _listed(seeds)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def _scale(folds: Sequence[int]) -> str:
    scales = _listed(["1" if fold == 1 else f"1/{fold}" for fold in folds])
    if list(folds) == [1]:
        return "Machines were simulated at full size."
    return (
        f"Machines were simulated at scale {scales}: pages, accesses, capacities, bandwidth, budgets and limits shrink "
        "together, costs an event grow back, and times stay as they are."
    )


def _cpus(values: Sequence[str]) -> str:
    words = {"spare": "spare cores (their time is charged in a column of its own)", "shared": "the application's cores"}
    return _listed([words.get(value, value) for value in values])
