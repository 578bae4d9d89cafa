"""What claims are computed from: the runs and tables of one folder, and the value that they give each claim."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import KlrubenchError, UnknownNameError, UsageError
from klrubench.study.claims import VARY, Claim, Runs
from klrubench.study.difference import versions
from klrubench.study.folder import shown
from klrubench.study.scores import BASELINE, matrix
from klrubench.study.statistics import Estimate, overall
from klrubench.study.store import Store
from klrubench.study.table import frame, row

if TYPE_CHECKING:
    import polars as pl

TIMES = {
    "slowdown_pct": "time_s",
    "charged_pct": "charged_time_s",
    "steady_pct": "steady_time_s",
    "charged_steady_pct": "charged_steady_time_s",
}
PLAIN = {"cost": "", "sysctl": "", "daemon_cpus": "spare"}
"""What runs are of where a claim does not say."""

Suite = dict[str, dict[int, float]]
"""By workload and seed: a number, of a time its log ratio to the baseline."""


@dataclass(frozen=True)
class Found:
    """A claim beside what the results give.

    Attributes:
        value, half: the number, and half of its 95 % interval (None: it has none).
        why: there is no value.
    """

    claim: Claim
    value: float | None
    half: float | None = None
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is within the tolerance of what is expected."""
        # a tolerance of 0.1 is meant in decimals: 12.9 and 13.0 are not further apart
        slack = 1e-9 * max(1.0, abs(self.claim.expected))
        return self.value is not None and abs(self.value - self.claim.expected) <= self.claim.tolerance + slack


class Results:
    """What claims are computed from: the runs and the tables of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def runs(self) -> pl.DataFrame:
        """One row a run: `table.row`, and what else was chosen (`system`)."""
        return frame({**row(record), **system(record["spec"])} for record in Store(self.folder).scan())

    def found(self, claim: Claim) -> Found:
        """A claim's value; where there is none, `why` says so in one line."""
        try:
            value, half = self._value(claim)
        except (KlrubenchError, ValueError, ArithmeticError, KeyError, TypeError) as error:
            return Found(claim, None, why=" ".join(str(error).split()) or type(error).__name__)
        if not math.isfinite(value):
            return Found(claim, None, why=f"it is {value}")
        return Found(claim, value, half)

    def _value(self, claim: Claim) -> tuple[float, float | None]:
        of = {**claim.runs.where, **claim.of} if "file" not in claim.of else dict(claim.of)
        times = float(of.pop("times", 1))
        other = {**of, **(claim.minus or claim.over)}
        if not claim.minus and not claim.over:
            value, half = self._one(of)
        elif claim.minus and "file" not in of and of["column"] != "gap_closed":
            if (of["column"] in TIMES) is not (other["column"] in TIMES):
                raise UsageError(f"{of['column']} less {other['column']}: two numbers of one kind, please")
            value, half = _difference(of["column"], self._numbers(of), self._numbers(other))
        else:
            own, base = self._one(of)[0], self._one(other)[0]
            value, half = (own - base if claim.minus else own / base), None
        return value * times if not claim.over else value, None if half is None else half * times

    def _one(self, of: Mapping[str, Any]) -> tuple[float, float | None]:
        column = of["column"]
        if "file" in of:
            return self._cell(of), None
        if column == "gap_closed":
            return self._gap(of), None
        found = overall([list(by_seed.values()) for by_seed in self._numbers(of).values()])
        return (found.pct, found.half_pct) if column in TIMES else (found.log, found.half)

    def _cell(self, of: Mapping[str, Any]) -> float:
        import polars as pl

        file = self.folder / of["file"]
        try:
            told = pl.read_csv(file, separator="\t" if file.suffix == ".tsv" else ",", comment_prefix="#")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UsageError(f"{of['file']}: {' '.join(str(error).split())[:100]}") from None
        keys = {name: value for name, value in of.items() if name not in ("file", "column")}
        for name in (*keys, of["column"]):
            if name not in told.columns:
                raise UnknownNameError(f"column of {of['file']}", name, told.columns)
        rows = [one for one in told.iter_rows(named=True) if all(one[name] == value for name, value in keys.items())]
        if len(rows) != 1:
            raise UsageError(f"{of['file']}: {len(rows)} rows with {json.dumps(keys)}")
        return float(rows[0][of["column"]])

    def _gap(self, of: Mapping[str, Any]) -> float:
        runs = self._selected({**of, "policy": None})
        rows = [one for one in matrix(runs, BASELINE).to_dicts() if one["policy"] == of["policy"]]
        values = [one["gap_closed"] for one in rows if one["gap_closed"] is not None]
        if len(values) < len(_labels(of["workload"])):
            raise UsageError("no gap: it takes runs of all_top, first_touch and oracle_static, a point apart")
        return float(statistics.median(values))

    def _numbers(self, of: Mapping[str, Any]) -> Suite:
        column, against = of["column"], of.get("against", BASELINE)
        pick = _picker(TIMES.get(column, column))
        own = _by_seed(self._selected(of), pick)
        if column in TIMES:
            top = _by_seed(self._selected({**of, "policy": against}), pick)
            own = {
                workload: {
                    seed: math.log(value / top[workload][seed]) for seed, value in each.items() if seed in top[workload]
                }
                for workload, each in own.items()
            }
        if any(not each for each in own.values()):
            raise UsageError(f"no seed in common with {against}")
        return own

    def _selected(self, of: Mapping[str, Any]) -> pl.DataFrame:
        """The runs that are meant, a policy's or (`policy` None) all; each workload, policy and seed once."""
        import polars as pl

        runs, labels = self.runs, _labels(of["workload"])
        if not runs.height:
            raise UsageError(f"no stored runs in {shown(self.folder)}")
        chosen = {name: of.get(name, PLAIN.get(name)) for name in VARY}
        runs = runs.filter(pl.col("workload").is_in(labels))
        runs = runs.filter(pl.col(name) == value for name, value in chosen.items() if value is not None)
        if "seed" in of:
            runs = runs.filter(pl.col("seed").is_in(of["seed"]))
        if of["policy"] is not None:
            runs = runs.filter(pl.col("policy") == of["policy"])
        lacks = [label for label in labels if label not in set(runs["workload"])]
        if lacks:
            asked = {name: value for name, value in chosen.items() if value not in (None, PLAIN.get(name))}
            more = f" with {json.dumps(asked)}" if asked else ""
            raise UsageError(f"no stored run of {of['policy'] or 'any policy'} on {', '.join(lacks)}{more}")
        if runs.select("workload", "policy", "seed").is_duplicated().any():
            several = [f"{name} {sorted(set(runs[name]))}" for name in VARY if runs[name].n_unique() > 1]
            raise UsageError(f"runs of several kinds are stored ({'; '.join(several) or 'other code'}): say which")
        return runs


def selected(store: Store, tables: list[Runs]) -> list[str]:
    """Ids of the runs of the newest code that any of the tables means; without tables all."""
    newest = list(versions(store).values())[-1:]
    found = []
    for record in newest[0] if newest else []:
        about = {**row(record), **system(record["spec"])}
        if not tables or any(_meant(about, each.where) for each in tables):
            found.append(str(record["id"]))
    return sorted(found)


def _meant(about: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(about.get(name) in (value if isinstance(value, list) else [value]) for name, value in where.items())


def system(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What else was chosen for a stored run.

    `fold`, `duration_s`, `kernel`, `hz`; as text (`NAME=VALUE ...`) costs and sysctls that are not the machine's own.
    """
    machine = spec["machine"]
    costs = {
        name: each["ns"] for name, each in machine["costs"].items() if each["ns"] != each.get("own_ns", each["ns"])
    }
    usual = _usual_sysctls(machine)
    sysctls = {name: value for name, value in machine.get("sysctls", {}).items() if usual.get(name, value) != value}
    texts = {"cost": costs, "sysctl": sysctls}
    words = {
        name: " ".join(f"{key}={_word(value)}" for key, value in sorted(each.items())) for name, each in texts.items()
    }
    work = {"fold": spec["fold"], "duration_s": float(spec["duration_s"])}
    return {**work, "kernel": machine.get("kernel", ""), "hz": machine.get("hz", 0), **words}


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _usual_sysctls(machine: Mapping[str, Any]) -> Mapping[str, Any]:
    from klrubench.machine import list_machines, load_machine

    if machine["name"] not in list_machines():
        return {}
    return load_machine(machine["name"], kernel=machine["kernel"], hz=machine["hz"]).sysctls


def _labels(workload: Any) -> list[str]:
    return [workload] if isinstance(workload, str) else list(workload)


def _picker(column: str) -> Callable[[Mapping[str, Any]], float]:
    whole, _, part = column.partition(".")

    def pick(run: Mapping[str, Any]) -> float:
        if column in run:
            value = run[column]
        elif part and f"{whole}_json" in run:
            value = json.loads(run[f"{whole}_json"]).get(part)
        else:
            raise UnknownNameError("column", column, [*run, *TIMES, "gap_closed"])
        if not isinstance(value, (int, float)):
            raise UsageError(f"a run has no number {column}")
        return float(value)

    return pick


def _by_seed(runs: pl.DataFrame, pick: Callable[[Mapping[str, Any]], float]) -> Suite:
    found: Suite = {}
    for run in runs.sort("seed").iter_rows(named=True):
        found.setdefault(run["workload"], {})[run["seed"]] = pick(run)
    return found


def _difference(column: str, own: Suite, other: Suite) -> tuple[float, float | None]:
    """One suite less the other, seed by seed; workloads are paired in their order."""
    sides = list(zip(own.values(), other.values(), strict=True))
    pairs = [[a[seed] - b[seed] for seed in a if seed in b] for a, b in sides]
    if not all(pairs):
        raise UsageError("the two sides have no seed in common")
    apart: Estimate = overall(pairs)
    if column not in TIMES:
        return apart.log, apart.half
    # both sides on the seeds that they share, so that the difference is that of two numbers a reader can see
    level = overall([[b[seed] for seed in a if seed in b] for a, b in sides]).log
    half = None if apart.half is None else 100 * math.exp(level + apart.log) * math.sinh(apart.half)
    return 100 * math.exp(level) * math.expm1(apart.log), half
