"""A whole answer: header, matrix or wide table, footnotes and scope, in every form a person can ask for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klrubench.report import footnotes as fn
from klrubench.report.header import Header, header_lines
from klrubench.report.lkml import WIDTH as LKML_WIDTH
from klrubench.report.lkml import lkml
from klrubench.report.matrix import Cell, Matrix, Row, Verdict, gap_rows, matrix_lines, meaning
from klrubench.report.text import WIDTH, joined, missing, points, rows_of, share, significant, tsv, wrapped
from klrubench.report.wide import legend, wide_lines

SCHEMA = "klrubench compare 1"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sheet:
    """Everything that a comparison has to show; frames or sequences of mappings alike.

    Attributes:
        facts: what the header says, by the names of `Header`, the machine as `Machine.to_dict()`.
        cells: one row a setting and policy (`scores.matrix`).
        verdicts, charged_verdicts: one row a setting (`scores.verdicts`).
        suite: one row a policy (`scores.suite_scores`).
        wide: for each setting to be shown in full, its rows (`scores.wide`).
        runs: one row a run.
        wakes: whether a policy has the choice of waking kswapd after a refused promotion.
        rates: whether rows walk along the axis of touches a page and second.
        baseline: the policy that slowdowns are against.
    """

    facts: Mapping[str, Any]
    cells: Any
    verdicts: Any
    charged_verdicts: Any = ()
    suite: Any = ()
    wide: Mapping[str, Rows] = field(default_factory=dict)
    runs: Any = ()
    wakes: bool = False
    rates: bool = False
    baseline: str = "all_top"


def header_of(sheet: Sheet) -> Header:
    """The header; busy threads are those that ran, where a rate took more than the workload's own."""
    ran = {row["workload"]: int(row["threads"]) for row in rows_of(sheet.runs) if not missing(row.get("threads"))}
    return Header.of(sheet.facts, threads={**sheet.facts.get("threads", {}), **ran}, wakes=sheet.wakes)


def text(sheet: Sheet, width: int = WIDTH, colour: bool = False) -> str:
    """The answer for a terminal: matrix first unless there is one setting only; then the wide tables asked for."""
    header = header_of(sheet)
    notes = fn.Footnotes()
    lines = [*header_lines(header, notes, width)]
    for matrix in _matrices(sheet, header, notes):
        lines += ["", *matrix_lines(matrix, notes, width, colour)]
    for setting, rows in sheet.wide.items():
        lines += ["", *_workload(setting, sheet, header, width), *wide_lines(rows, notes, width, colour)]
        lines += ["", *_sentences(setting, sheet, width)]
    lines += ["", *notes.key(width), *legend([row for rows in sheet.wide.values() for row in rows], width)]
    return "\n".join([*lines, *_remarks(sheet, header, width), *wrapped(fn.SCOPE, width, "  "), *notes.lines(width)])


def as_lkml(sheet: Sheet) -> str:
    """The answer for a mailing list: 72 columns, plain ASCII."""
    return lkml(text(sheet, LKML_WIDTH))


def as_tsv(sheet: Sheet) -> str:
    """The cells, or the wide rows if there are any, as tab-separated full numbers."""
    if not sheet.wide:
        return tsv(sheet.cells)
    rows = [{"setting": setting, **row} for setting, found in sheet.wide.items() for row in found]
    return tsv([{name: _plain(value) for name, value in row.items()} for row in rows])


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list, tuple)) else value


def as_json(sheet: Sheet) -> dict[str, Any]:
    """The answer as plain data with full numbers."""
    return {
        "schema": SCHEMA,
        "scope": fn.SCOPE,
        **dict(sheet.facts),
        "baseline": sheet.baseline,
        "cells": rows_of(sheet.cells),
        "verdicts": rows_of(sheet.verdicts),
        "charged_verdicts": rows_of(sheet.charged_verdicts),
        "suite": rows_of(sheet.suite),
        "wide": {setting: [dict(row) for row in rows] for setting, rows in sheet.wide.items()},
        "runs": rows_of(sheet.runs),
    }


def _matrices(sheet: Sheet, header: Header, notes: fn.Footnotes) -> list[Matrix]:
    """The whole run with kernel threads where they ran, then with their time charged, if that is another question."""
    cells = rows_of(sheet.cells)
    settings = list(dict.fromkeys(cell["setting"] for cell in cells))
    if len(settings) < 2 and sheet.wide:
        return []
    shown = [_matrix(sheet, cells, header, notes)]
    if header.daemon_cpus == "spare" and rows_of(sheet.charged_verdicts):
        shown.append(_charged_matrix(sheet, cells, header))
    return shown


def _against(sheet: Sheet) -> str:
    return "all-DRAM" if sheet.baseline == "all_top" else sheet.baseline


def _policies(cells: Rows, baseline: str) -> dict[str, Mapping[str, Any]]:
    """The policies that have a column, with one of their cells each."""
    return {cell["policy"]: cell for cell in cells if cell["policy"] != baseline}


def _matrix(sheet: Sheet, cells: Rows, header: Header, notes: fn.Footnotes) -> Matrix:
    policies = _policies(cells, sheet.baseline)
    suite = {row["policy"]: row for row in rows_of(sheet.suite)}
    rows = _rows(cells, sheet.verdicts, "slowdown_pct", "half_pct")
    if sheet.rates:
        rows = [_on_axis(row, notes, header) for row in rows]
    elif len(rows) > 1 and suite:
        rows.append(Row("geomean", {name: Cell(row["slowdown_pct"], row["half_pct"]) for name, row in suite.items()}))
    where = "on spare cores" if header.daemon_cpus == "spare" else "on the application's cores"
    gaps = {
        name: [cell["gap_closed"] for cell in cells if cell["policy"] == name and not cell["workload_control"]]
        for name in policies
    }
    return Matrix(
        f"Slowdown against {_against(sheet)}, %, whole run, kernel threads {where}; +-: half the 95 % interval",
        list(policies),
        rows,
        plain=frozenset(name for name, cell in policies.items() if cell["policy_role"] == "bound"),
        minor=frozenset(name for name, cell in policies.items() if cell["policy_role"] == "control"),
        text_rows=gap_rows(gaps, notes) if len(rows) > 2 and not sheet.rates else (),
        tiers=header.tiers,
        last="what it means" if sheet.rates else "best",
    )


def _charged_matrix(sheet: Sheet, cells: Rows, header: Header) -> Matrix:
    """Only what has kernel threads, and first_touch to compare with: the bounds are the same as before."""
    policies = _policies(cells, sheet.baseline)
    chosen = [name for name, cell in policies.items() if cell["contestant"] and cell.get("charged_pct") is not None]
    rows = _rows(
        [cell for cell in cells if cell["policy"] in chosen], sheet.charged_verdicts, "charged_pct", "charged_half_pct"
    )
    plain = [Row(row.label, row.cells, row.verdict) for row in rows]
    if len(rows) > 1 and not sheet.rates:
        plain.append(Row("geomean", {name: Cell(_geomean(rows, name)) for name in chosen}))
    return Matrix(
        "The same with the kernel threads' CPU time charged to the application's cores",
        chosen,
        plain,
        plain=frozenset(name for name in chosen if policies[name]["policy_role"] == "bound"),
        tiers=header.tiers,
    )


def _geomean(rows: Sequence[Row], policy: str) -> float | None:
    values = [row.cells[policy].value for row in rows if policy in row.cells]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(rows):
        return None
    return 100 * math.expm1(math.fsum(math.log1p(value / 100) for value in known) / len(known))


def _rows(cells: Rows, verdicts: Any, value: str, half: str) -> list[Row]:
    found = {row["setting"]: row for row in rows_of(verdicts)}
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        settings.setdefault(cell["setting"], []).append(cell)
    return [
        Row(
            setting,
            {cell["policy"]: Cell(cell.get(value), cell.get(half)) for cell in own},
            _verdict(found.get(setting)),
            rate=_first(own, "touches_per_page_s"),
            young=_first(own, "young_share"),
        )
        for setting, own in settings.items()
    ]


def _verdict(row: Mapping[str, Any] | None) -> Verdict:
    if row is None:
        return Verdict()
    equals = row.get("equal_to") or ()
    names = _labels(equals) if isinstance(equals, str) else tuple(equals)
    return Verdict(row["best"], row["word"], names)


def _labels(joined: str) -> tuple[str, ...]:
    """Labels of a list with commas; `NAME:a=1,b=2` has commas of its own."""
    found: list[str] = []
    for part in joined.split(","):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    return tuple(found)


def _first(cells: Rows, name: str) -> float | None:
    """What every policy meets alike (rate, young share): that of the first that has it."""
    return next((cell[name] for cell in cells if not missing(cell.get(name))), None)


def _on_axis(row: Row, notes: fn.Footnotes, header: Header) -> Row:
    return Row(
        row.label, row.cells, row.verdict, None, row.young, meaning=meaning(row, "all_lower", notes, header.tiers)
    )


def _workload(setting: str, sheet: Sheet, header: Header, width: int) -> list[str]:
    """What stands above a wide table."""
    label = setting.split(" ")[0]
    rate, young = (_first(sheet.wide[setting], name) for name in ("touches_per_page_s", "young_share"))
    parts = [
        f"{significant(rate)} touches/page/s" if rate is not None else "",
        f"{share(young)} % of the pages young within 2 s" if young is not None else "",
        f"calibration: {header.calibration[label]}" if header.calibration.get(label) else "",
    ]
    return joined([f"{setting}: {parts[0] or 'cost beside benefit'}", *parts[1:]], width, "; ", "  ")


def _sentences(setting: str, sheet: Sheet, width: int) -> list[str]:
    """The verdicts in words, with kernel threads where they ran and with their time charged."""
    titles = {"": sheet.verdicts, "charged: ": sheet.charged_verdicts if len(rows_of(sheet.charged_verdicts)) else ()}
    found = [(title, row) for title, rows in titles.items() for row in rows_of(rows) if row["setting"] == setting]
    return [line for title, row in found for line in wrapped(title + _sentence(row), width, "  ")]


_WORDS = {"equal": ": equal", "too few seeds": " (one seed)", "exact": " (exact)", "n.s.": " (not significant)"}


def _sentence(row: Mapping[str, Any]) -> str:
    if not row.get("next_best"):
        return f"{row['best']} has nothing to be compared with"
    ends = "" if missing(row.get("low_pct")) else f" [{points(row['low_pct'])}, {points(row['high_pct'])}]"
    word = _WORDS.get(row["word"], f" {row['word']}")
    return f"{row['best']} is best, {points(row['difference_pct'])}{ends} points below {row['next_best']}{word}"


def _remarks(sheet: Sheet, header: Header, width: int) -> list[str]:
    """Lines below the tables: what runs said, which workloads are saturated, what a seed changes."""
    young = {cell["setting"]: _first([cell], "young_share") for cell in rows_of(sheet.cells)}
    full = [setting for setting, part in young.items() if part is not None and part > fn.SATURATED]
    seeds = fn.seeds_change({name: text for name, text in header.seeds_change.items() if text})
    sampling = fn.SAMPLING if any(cell["policy"].startswith("random_sampling") for cell in rows_of(sheet.cells)) else ""
    return [
        piece
        for line in [*fn.told(rows_of(sheet.runs)), sampling, fn.saturated(full), seeds]
        if line
        for piece in wrapped(line, width, "  ")
    ]
