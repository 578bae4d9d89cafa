"""What a sweep makes small, and what it must not pass: measures of a run, paired with first-touch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klrubench.errors import ParameterError, RunFailedError, UnknownNameError
from klrubench.study.statistics import percent

Metrics = Mapping[str, Any]
CONVERGENCE = "convergence_s"


@dataclass(frozen=True)
class Measure:
    """A number of a run, smaller is better.

    Attributes:
        name: what `--objective` and `--constraint` call it.
        unit: of its value as tables and constraints have it.
        help: what it is.
        raw: the run's number.
        relative: compared by ratio (a time); else by difference (already zero without migration).
        against_top: its value is per cent above the same work with all memory in DRAM.
    """

    name: str
    unit: str
    help: str
    raw: Callable[[Metrics], float | None]
    relative: bool = False
    against_top: bool = False

    def log_or_plain(self, run: Metrics, top: Metrics) -> float:
        """The number that means and intervals are taken of: log ratio to all_top, log, or the number itself."""
        own = self.number(run)
        if not self.relative:
            return own
        return math.log(own / top["time_s"]) if self.against_top else math.log(own)

    def number(self, run: Metrics) -> float:
        """The run's number; raises RunFailedError where it has none."""
        found = self.raw(run)
        if found is None or not math.isfinite(found) or (self.relative and found <= 0):
            raise RunFailedError(f"a run has no {self.name}; choose another --objective")
        return float(found)

    def shown(self, mean: float) -> float:
        """A mean of `log_or_plain` as tables have it."""
        if self.against_top:
            return percent(mean)
        return math.exp(mean) if self.relative else mean


def _convergence(run: Metrics) -> float:
    """Seconds; a run that never converged counts its whole length, which is less than it would have needed."""
    found = run.get(CONVERGENCE)
    return float(run["time_s"] if found is None else found)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("charged", "%", "slowdown, kernel threads charged", lambda run: run["charged_time_s"], True, True),
        Measure("spare", "%", "slowdown, kernel threads on spare cores", lambda run: run["time_s"], True, True),
        Measure("traffic", "MiB/s", "memory promoted a second", lambda run: run["promoted_mib_s"]),
        Measure(
            "daemon_cpu", "cores", "CPUs that kernel threads keep busy", lambda run: run["daemon_cpu_s"] / run["time_s"]
        ),
        Measure("p99", "ns", "99th percentile of operation latency", lambda run: run.get("op_p99_ns"), True),
        Measure("convergence", "s", "until the hit share stays (never: the whole run)", _convergence),
    )
}
ALIASES = {"slowdown": "charged", "charged_slowdown": "charged", "spare_slowdown": "spare", "migration": "traffic"}
ALIASES |= {"cpu": "daemon_cpu", "op_p99": "p99"}


def measure(name: str) -> Measure:
    """The measure of that name; raises UnknownNameError."""
    word = ALIASES.get(name.strip(), name.strip())
    if word not in MEASURES:
        raise UnknownNameError("objective", name, MEASURES)
    return MEASURES[word]


def objectives(names: Sequence[str]) -> list[Measure]:
    """The measures to make small, each once; raises UnknownNameError."""
    found = {each.name: each for each in map(measure, names or ("charged",))}
    return list(found.values())


@dataclass(frozen=True)
class Constraint:
    """A bound on the mean of a measure over all cells.

    Attributes:
        measure: of what.
        bound: greatest (or, with `at_least`, least) value, in the measure's unit.
    """

    measure: Measure
    bound: float
    at_least: bool = False

    @property
    def text(self) -> str:
        """As typed: `daemon_cpu<=0.02`."""
        return f"{self.measure.name}{'>=' if self.at_least else '<='}{self.bound:g}"

    def violation(self, value: float) -> float:
        """How far a value is beyond the bound; 0 or less is allowed."""
        return self.bound - value if self.at_least else value - self.bound


_CONSTRAINT = re.compile(r"\s*([a-z_0-9]+)\s*(<=|>=|<|>)\s*(\S+)\s*")


def constraints(texts: Sequence[str]) -> list[Constraint]:
    """`MEASURE<=NUMBER` as constraints; raises ParameterError or UnknownNameError."""
    return [_constraint(text) for text in texts]


def _constraint(text: str) -> Constraint:
    matched = _CONSTRAINT.fullmatch(text)
    try:
        if matched is None:
            raise ValueError
        bound = float(matched[3])
    except ValueError:
        raise ParameterError(f"--constraint '{text}': write MEASURE<=NUMBER, e.g. daemon_cpu<=0.02") from None
    return Constraint(measure(matched[1]), bound, matched[2].startswith(">"))
