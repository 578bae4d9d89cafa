"""Claims of a study: each a number that its stored results must give again, with the command that computes them.

`results/reference/claims.toml`, beside `results.parquet` (whole runs, `kept.keep`), has two kinds of tables:

    [runs.suite]                                  # what was run; claims name it by `runs`, the first is the default
    command = "klrubench compare --suite default"
    minutes = 9
    where = { duration_s = 120, seed = [1, 2, 3] }  # optional: which stored runs are meant

    [[claim]]
    id = "kv.klruscand"
    text = "klruscand on kv: slowdown against all memory in DRAM, %"
    of = { workload = "kv", policy = "klruscand", column = "slowdown_pct" }
    expected = 12.9
    tolerance = 0.3

`of` selects runs and says what is taken of them:

- `workload`, `policy`: labels; a list of workloads is a suite (geometric mean of times, mean of all else)
- `column`: `slowdown_pct`, `charged_pct`, `steady_pct`, `charged_steady_pct` (against `against`, default `all_top`, on
  paired seeds), `gap_closed` (median over workloads), any column of `table.row`, or a part of one: `cpu.kswapd`,
  `vmstat.pgpromote_success`, `bound.gate`; `times` multiplies it (100 for a share in %)
- `machine`, `ratio`, `scale` ("1/64"), `duration_s`, `kernel`, `hz`, `daemon_cpus`, `cost` ("walk_pte=10"), `sysctl`,
  `seed` (a list) where runs of several are stored; unless said, costs and sysctls are the machine's own and threads
  are on spare cores
- `minus`, `over` (in `claim`, beside `of`): tables of what is different on the other side, e.g.
  `minus = { policy = "first_touch" }` for a difference on paired seeds, `over` for a ratio
- or `file = "figures/tuning.csv"` (or .tsv, below the same folder), `column`, and values of other columns that name
  one row

How the reference study is made: run every command of `[runs.*]` into one results folder; then
`klrubench claims --keep FOLDER` keeps the runs that the tables select, `klrubench claims --write` brings CLAIMS.md up
to date, and `klrubench claims --check` says what does not hold, in FINDINGS.md too (`findings.py`).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klrubench.errors import UnknownNameError, UsageError
from klrubench.study.folder import shown

FILE = "claims.toml"
VARY = ("machine", "ratio", "fold", "duration_s", "kernel", "hz", "daemon_cpus", "cost", "sysctl")
_OF = {"workload", "policy", "column", "times", "against", "scale", "seed", *VARY}
_CLAIM = ("id", "text", "of", "expected", "tolerance", "runs", "minus", "over", "unit")
_RUNS = ("command", "minutes", "where")


@dataclass(frozen=True)
class Runs:
    """What was run for some claims: the command, about how long it takes, and which of the stored runs are meant."""

    name: str
    command: str
    minutes: float
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A number that is claimed.

    Attributes:
        name: its id.
        text: what it is the number of.
        runs: what has to be run for it.
        of: what is taken of which runs; minus, over: the other side (empty: none).
        expected, tolerance: in the column's unit.
    """

    name: str
    text: str
    runs: Runs
    of: Mapping[str, Any]
    minus: Mapping[str, Any]
    over: Mapping[str, Any]
    expected: float
    tolerance: float
    unit: str = ""


def load_claims(file: Path) -> list[Claim]:
    """The claims of a file, in its order.

    Raises:
        UsageError: it cannot be read, or something in it makes no sense, in one line.
    """
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{shown(file)}: {str(error.strerror).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown(file)}: not TOML: {error}") from None
    try:
        _known("table", told, ("runs", "claim"))
        runs = {name: _runs(name, each) for name, each in told.get("runs", {}).items()}
        claims = [_claim(each, runs) for each in told.get("claim", [])]
    except UsageError as error:
        raise UsageError(f"{shown(file)}: {error}") from None
    names = [claim.name for claim in claims]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{shown(file)}: two claims have the id {twice}")
    return claims


def runs_tables(file: Path) -> list[Runs]:
    """What was run, as a claims file says (its `[runs.*]`); raises as `load_claims`."""
    load_claims(file)
    told = tomllib.loads(file.read_text(encoding="utf-8"))
    return [_runs(name, each) for name, each in told.get("runs", {}).items()]


def _known(kind: str, told: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in told:
        if name not in names:
            raise UnknownNameError(kind, name, names)


def _runs(name: str, told: Mapping[str, Any]) -> Runs:
    _known(f"key of runs.{name}", told, _RUNS)
    if not isinstance(told.get("command"), str) or not isinstance(told.get("minutes"), (int, float)):
        raise UsageError(f"runs.{name} needs command = '...' and minutes = N")
    return Runs(name, told["command"], float(told["minutes"]), _selection(f"runs.{name}", told.get("where", {})))


def _claim(told: Mapping[str, Any], runs: Mapping[str, Runs]) -> Claim:
    name = str(told.get("id", ""))
    _known(f"key of claim {name or '?'}", told, _CLAIM)
    lacks = [key for key in ("id", "text", "of", "expected", "tolerance") if key not in told]
    if lacks:
        raise UsageError(f"claim {name or told.get('text', '?')}: it needs {', '.join(lacks)}")
    chosen = str(told.get("runs", next(iter(runs), "")))
    if chosen not in runs:
        raise UnknownNameError(f"table [runs.*] for claim {name}", chosen, runs)
    sides = {side: told.get(side, {}) for side in ("of", "minus", "over")}
    free = isinstance(sides["of"], dict) and "file" in sides["of"]
    sides = {side: _selection(f"claim {name}", each, free) for side, each in sides.items()}
    numbers = [told["expected"], told["tolerance"]]
    if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in numbers) or told["tolerance"] < 0:
        raise UsageError(f"claim {name}: expected and tolerance are numbers, the tolerance not below 0")
    if "column" not in sides["of"] or (sides["minus"] and sides["over"]):
        raise UsageError(f"claim {name}: of needs a column, and there is either minus or over")
    return Claim(
        name, str(told["text"]), runs[chosen], **sides, expected=float(told["expected"]),
        tolerance=float(told["tolerance"]), unit=str(told.get("unit", "")),
    )  # fmt: skip


def _selection(where: str, told: Any, free: bool = False) -> dict[str, Any]:
    """A table as it selects runs; `free`: or rows of a file, by columns of any name."""
    if not isinstance(told, dict):
        raise UsageError(f"{where}: write {{ name = value }}")
    if free:
        return dict(told)
    _known(f"name in {where}", told, sorted(_OF))
    found = dict(told)
    if "scale" in found:
        from klrubench.study.spec import parse_scale

        found["fold"] = parse_scale(found.pop("scale")) or 0
    return found
