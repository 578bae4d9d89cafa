"""A person's own counters beside those of a simulated run: second, then /proc/vmstat names, as they were read."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import UsageError

if TYPE_CHECKING:
    from klrubench.simulate.system import System

TIME = "second"
KERNEL_NAMES = {"numa_pages_migrated": "numa_fault_promotions"}
"""Counters of /proc/vmstat that have another name here."""
LONGEST_S = 100_000


@dataclass(frozen=True)
class Series:
    """Counters over time: seconds since the first row, what each has gained since then, and columns not known here."""

    source: str
    seconds: list[float]
    counters: dict[str, list[float]]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One counter on both sides, at the seconds of the measured series.

    Attributes:
        end: simulated less measured at the last second, as a share of what was measured by then.
        largest: the largest such difference at any second (as a share of the same end value), and its second.
    """

    name: str
    measured: list[float]
    simulated: list[float]
    end: float | None
    largest: float | None
    largest_at_s: float


@dataclass(frozen=True)
class Held:
    """A measured series beside a simulated run of the same length."""

    source: str
    policy: str
    workload: str
    machine: str
    fold: int
    seed: int
    seconds: list[float]
    pairs: list[Pair]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "pairs": [vars(pair) for pair in self.pairs]}


def read_series(file: Path) -> Series:
    """A CSV file with a header: `second`, then names as in /proc/vmstat; values as they were read, growing with time.

    Raises:
        UsageError: no such file, or the line that makes no sense.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as text:
            rows = [[cell.strip() for cell in row] for row in csv.reader(text) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(f"{file}: not a text file with commas") from None
    if not rows or TIME not in rows[0]:
        found = ", ".join(rows[0][:3]) if rows else "nothing"
        raise UsageError(f"{file}: the first line must name the columns, '{TIME}' among them; it has: {found}")
    names = rows[0]
    known = _check_names(file, names)
    values = [_numbers(file, number, row, len(names)) for number, row in enumerate(rows[1:], 2)]
    if len(values) < 2:
        raise UsageError(f"{file}: {len(values)} rows of counters; at least 2 are needed")
    columns = dict(zip(names, map(list, zip(*values, strict=True)), strict=True))
    seconds = columns.pop(TIME)
    _check_growth(file, TIME, seconds, strictly=True)
    for name in known:
        _check_growth(file, name, columns[name], strictly=False)
    if seconds[-1] - seconds[0] > LONGEST_S:
        raise UsageError(f"{file}: {seconds[-1] - seconds[0]:g} s from first to last row; {LONGEST_S} s at most")
    gained = {name: [value - columns[name][0] for value in columns[name]] for name in known}
    ignored = tuple(name for name in columns if name not in known)
    return Series(str(file), [second - seconds[0] for second in seconds], gained, ignored)


def _check_names(file: Path, names: list[str]) -> list[str]:
    """The columns that klrubench counts too."""
    from klrubench.mm.state import STATS

    every = {*STATS, *KERNEL_NAMES}
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{file}: column '{name}' is there twice")
    known = [name for name in names if name in every]
    if not known:
        others = ", ".join(name for name in names if name != TIME) or "none"
        raise UsageError(
            f"{file}: no counter that klrubench has (pgpromote_success, pgdemote_kswapd ...); it has: {others}"
        )
    return known


def _numbers(file: Path, line: int, row: list[str], wanted: int) -> list[float]:
    if len(row) != wanted:
        raise UsageError(f"{file}:{line}: {len(row)} values, {wanted} columns")
    found = []
    for cell in row:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UsageError(f"{file}:{line}: '{cell}' is no number from 0 on")
        found.append(value)
    return found


def _check_growth(file: Path, name: str, column: list[float], strictly: bool) -> None:
    for line, (before, after) in enumerate(itertools.pairwise(column), 3):
        if after < before or (strictly and after == before):
            raise UsageError(
                f"{file}:{line}: {name} goes from {before:g} to {after:g}; rows must be in order of time, counters "
                "cumulative"
            )


def hold_against(
    series: Series,
    policy: str,
    workload: str,
    *,
    machine: str = "cxl-asic",
    seed: int = 1,
    scale: str | None = None,
    daemon_cpus: str = "spare",
    say: Callable[[str], None] = lambda line: None,
    **system: Any,
) -> Held:
    """Simulate a run as long as the series and put both side by side.

    Args:
        policy, workload: `NAME[:k=v,...]`.
        machine, seed, scale, daemon_cpus: as for `run`; `system` are ratio, kernel, hz, sysctls and costs of the
            machine.

    Raises:
        UsageError: something that was given makes no sense, in one line.
    """
    from klrubench.machine import load_machine
    from klrubench.study.spec import make_spec, parse_scale, policy_part, workload_part

    made = load_machine(machine, **system)
    spec = make_spec(
        made,
        workload_part(workload),
        policy_part(policy),
        seed,
        duration_s=max(1.0, series.seconds[-1]),
        fold=parse_scale(scale),
        options={"daemon_cpus": daemon_cpus},
    )
    if series.ignored:
        say(f"not counted by klrubench: {', '.join(series.ignored)}")
    say(f"{spec.policy.label} on {spec.workload.label}, {spec.duration_s:g} s, scale 1/{spec.fold} ...")
    seconds, counters = _simulated(spec, made)
    pairs = [_pair(name, series, seconds, counters[KERNEL_NAMES.get(name, name)]) for name in series.counters]
    return Held(
        series.source, spec.policy.label, spec.workload.label, made.header(), spec.fold, seed, series.seconds, pairs
    )


def _simulated(spec: Any, machine: Any) -> tuple[list[float], Mapping[str, list[float]]]:
    """Every counter at each second of a run, full size."""
    from klrubench.mm.state import STATS
    from klrubench.simulate import Options, simulate

    rows: list[tuple[float, list[int]]] = [(0.0, [0] * len(STATS))]

    def watch(system: System) -> None:
        system.every_ms(1000, lambda: rows.append((system.now_ps / 1e12, system.mm.stat.tolist())))

    options = Options(**spec.options)
    simulate(
        machine,
        spec.workload.build(),
        spec.policy.build(),
        spec.seed,
        duration_s=spec.duration_s,
        fold=spec.fold,
        options=options,
        watch=watch,
    )
    columns = zip(*(counts for _, counts in rows), strict=True)
    full = {name: [count * spec.fold for count in column] for name, column in zip(STATS, columns, strict=True)}
    return [second for second, _ in rows], full


def _pair(name: str, series: Series, seconds: list[float], counts: list[float]) -> Pair:
    import numpy as np

    measured = series.counters[name]
    simulated = [float(value) for value in np.interp(series.seconds, seconds, counts)]
    whole = measured[-1]
    if not whole:
        return Pair(name, measured, simulated, None, None, series.seconds[-1])
    apart = [(ours - theirs) / whole for ours, theirs in zip(simulated, measured, strict=True)]
    at = max(range(len(apart)), key=lambda k: abs(apart[k]))
    return Pair(name, measured, simulated, apart[-1], apart[at], series.seconds[at])
