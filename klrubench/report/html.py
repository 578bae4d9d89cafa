"""One HTML file with everything that is stored: it opens without a network, plotly's script is inside, once."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from klrubench.errors import UsageError
from klrubench.report.cite import cite_text
from klrubench.report.methods import methods_text
from klrubench.report.sweep_page import plots, sections
from klrubench.report.text import fixed, missing, share
from klrubench.study.again import command_of
from klrubench.study.facts import facts
from klrubench.study.overview import comparisons, runs_of, slowdowns, sweeps
from klrubench.study.scores import BASELINE
from klrubench.study.sources import of_runs, sources
from klrubench.study.store import Store
from klrubench.study.sweep.journals import journals
from klrubench.study.sweep.storage import FOLDER
from klrubench.study.table import ratio_text

_PAGE = Path(__file__).parent / "page"
LINES = ("DRAM hit %", "promoted, MiB/s", "demoted, MiB/s", "kernel threads, % of a core")
POINTS = 400_000
"""Numbers of time lines in a page at most: about 2.5 MB; more runs get fewer points each."""

MOST_POINTS, LEAST_POINTS = 150, 12
RUN_NUMBERS = 220
"""What a run's row and words take, as numbers of time lines: a page of a thousand runs is to stay under 8 MB."""

_MIB_PAGES = 256


def report(store: Store, say: Callable[[str], None] = lambda line: None) -> str:
    """The page: all stored runs, and the sweeps whose journals are in the folder.

    Args:
        store: the results folder.
        say: told a line for each journal that cannot be read; the page is made without it.

    Raises:
        UsageError: plotly is not installed.
    """
    script = plotly_script()
    runs, newest = runs_of(store)
    records = [record for _, record in runs]
    own = slowdowns(runs)
    compared = comparisons([record for code, record in runs if code == newest])
    swept = sweeps(runs)
    searched = list(journals(store.path / FOLDER, say))
    points = _points(len(records))
    data = {
        "lines": LINES,
        "runs": {record["id"]: _run(store, record, points) for record in records},
        "comparisons": [_bars(group) for group in compared],
        "sweeps": [_plot(sweep) for sweep in swept],
        "figures": [figure for k, found in enumerate(searched) for figure in plots(found, k, len(searched))],
        "first": _first(records),
    }
    body = "\n".join(
        [
            f"<h1>klrubench: {len(records)} runs</h1>",
            "<p class=note>Policies are compared under a stated model; absolute times are not claimed. Click a "
            "column's head to sort, a row to see that run.</p>",
            *_comparisons(compared),
            "<h2>All runs</h2>",
            '<p><label>Filter: <input id="filter" placeholder="words: kv klruscand 1/32"></label> '
            '<span id="shown" class="note"></span></p>',
            *_runs_table(runs, own, newest),
            "<h2>One run</h2>",
            '<h3 id="run-title"></h3><div id="run-plot" class="plot"></div>',
            "<p>Where its time went, in seconds; the parts add up to its time:</p>",
            '<pre id="run-parts"></pre>',
            "<p>How to repeat it, and look inside:</p>",
            '<pre id="run-command"></pre><pre id="run-manifest"></pre>',
            *sections(searched),
            *_sweeps(swept),
            "<h2>How it was done</h2>",
            f"<p>{html.escape(methods_text(facts(records)))}</p>",
            "<h2>Manifest</h2>",
            f"<pre>{html.escape(json.dumps(facts(records), indent=1, sort_keys=True))}</pre>",
            "<h2>Sources</h2>",
            f"<pre>{html.escape(cite_text(sources(of_runs(records)), 110))}</pre>",
        ]
    )
    return _document(body, data, script)


def _points(runs: int) -> int:
    """Points that each run's time lines get on a page of so many runs."""
    numbers = min(POINTS, POINTS + 100_000 - RUN_NUMBERS * runs)
    return max(LEAST_POINTS, numbers // (5 * runs))


def plotly_script() -> str:
    """plotly's own script.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UsageError("report needs plotly: pip install 'klrubench[report]'") from None
    return str(get_plotlyjs())


def _document(body: str, data: Mapping[str, Any], script: str) -> str:
    style, own = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"><title>klrubench</title>',
            # nothing is fetched: the page says so to the browser
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
            "style-src 'unsafe-inline'; img-src data: blob:\">",
            f"<style>{style}</style></head><body>",
            body,
            f'<script type="application/json" id="data">{packed}</script>',
            f"<script>{script}</script>",
            f"<script>{own}</script>",
            "</body></html>\n",
        ]
    )


def _first(records: Sequence[Mapping[str, Any]]) -> str:
    """The run that is shown at first: one of a policy, if there is any."""
    policies = [r for r in records if r["spec"]["policy"]["facts"].get("role", "policy") == "policy"]
    return str((policies or list(records))[-1]["id"])


def _cell(text: Any, value: Any = None, word: bool = False) -> str:
    number = f' data-v="{value!r}"' if isinstance(value, (int, float)) and not missing(value) else ""
    return f"<td{' class=word' if word else ''}{number}>{html.escape(str(text))}</td>"


def _table(heads: Sequence[str], words: int, rows: Sequence[str], name: str = "") -> list[str]:
    cells = "".join(f"<th{' class=word' if k < words else ''}>{html.escape(head)}</th>" for k, head in enumerate(heads))
    own = f' id="{name}"' if name else ""
    return [f"<div class=scroll><table{own}><thead><tr>{cells}</tr></thead><tbody>", *rows, "</tbody></table></div>"]


_HEADS = (
    "workload", "policy", "machine", "ratio", "code", "id", "seed", "scale", "work, s", "time, s", "slowdown, %",
    "charged, %", "DRAM hit, %", "promoted, MiB/s", "again, %", "precision, %", "kernel threads, s", "application, s",
)  # fmt: skip


def _runs_table(runs: Sequence[tuple[str, Any]], own: Mapping[str, tuple[float, float]], newest: str) -> list[str]:
    rows = []
    for code, record in runs:
        spec, metrics = record["spec"], record["result"]["metrics"]
        slow, charged = own.get(record["id"], (None, None))
        words = (
            spec["workload"]["label"], spec["policy"]["label"], spec["machine"]["name"],
            ratio_text(spec["machine"]["ratio"]), "newest" if code == newest else code, record["id"][:10],
        )  # fmt: skip
        numbers = (
            (spec["seed"], str(spec["seed"])), (1 / spec["fold"], "1" if spec["fold"] == 1 else f"1/{spec['fold']}"),
            (spec["duration_s"], f"{spec['duration_s']:g}"), _number(metrics, "time_s", 2), (slow, fixed(slow, 2)),
            (charged, fixed(charged, 2)), _share(metrics, "dram_hit_share"), _number(metrics, "promoted_mib_s", 1),
            _share(metrics, "promoted_again_share"), _share(metrics, "precision"), _number(metrics, "daemon_cpu_s", 2),
            _number(metrics, "app_cpu_s", 2),
        )  # fmt: skip
        cells = "".join(_cell(word, word=True) for word in words) + "".join(_cell(text, v) for v, text in numbers)
        rows.append(f'<tr data-id="{record["id"]}">{cells}</tr>')
    return _table(_HEADS, 6, rows, "runs")


def _number(metrics: Mapping[str, Any], name: str, digits: int) -> tuple[Any, str]:
    return metrics.get(name), fixed(metrics.get(name), digits)


def _share(metrics: Mapping[str, Any], name: str) -> tuple[Any, str]:
    return metrics.get(name), share(metrics.get(name), 1)


def _comparisons(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["<h2>Comparison</h2>"]
    if not groups:
        return [*lines, "<p>No run of all_top is stored to compare with.</p>"]
    lines.append(
        "<p class=note>Slowdown against all pages in DRAM, on paired seeds, with 95 % intervals (t on log ratios); "
        "charged: kernel threads' CPU time spread over the application's CPUs. Runs by the newest code only.</p>"
    )
    for k, group in enumerate(groups):
        lines += [f"<h3>{html.escape(group['title'])}</h3>", f'<div id="compare-{k}" class="plot"></div>']
        heads = ("setting", "policy", "seeds", "slowdown, %", "low", "high", "steady, %", "charged, %", "gap closed, %",
                 "DRAM hit, %")  # fmt: skip
        lines += _table(heads, 2, [_compared(row) for row in group["rows"]])
    return lines


def _compared(row: Mapping[str, Any]) -> str:
    numbers = [(row[name], fixed(row[name], 2)) for name in
               ("slowdown_pct", "low_pct", "high_pct", "steady_pct", "charged_pct")]  # fmt: skip
    numbers += [(row[name], share(row[name], 1)) for name in ("gap_closed", "dram_hit_share")]
    cells = _cell(row["setting"], word=True) + _cell(row["policy"], word=True) + _cell(row["seeds"], row["seeds"])
    return f"<tr>{cells}{''.join(_cell(text, value) for value, text in numbers)}</tr>"


def _bars(group: Mapping[str, Any]) -> dict[str, Any]:
    settings = list(dict.fromkeys(row["setting"] for row in group["rows"]))
    policies = list(dict.fromkeys(row["policy"] for row in group["rows"] if row["policy"] != BASELINE))
    cells = {(row["setting"], row["policy"]): row for row in group["rows"]}
    drawn = []
    for policy in policies:
        own = [cells.get((setting, policy)) for setting in settings]
        drawn.append(
            {
                "name": policy,
                "y": [_short(each["slowdown_pct"]) if each else None for each in own],
                "above": [_between(each, "high_pct", "slowdown_pct") for each in own],
                "below": [_between(each, "slowdown_pct", "low_pct") for each in own],
            }
        )
    return {"settings": settings, "policies": drawn}


def _between(row: Mapping[str, Any] | None, high: str, low: str) -> float:
    if row is None or missing(row[high]) or missing(row[low]):
        return 0.0
    return float(_short(row[high] - row[low]) or 0.0)


def _sweeps(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    lines = ["<h2>Parameters that were varied</h2>"]
    for k, sweep in enumerate(found):
        lines.append(f"<h3>{html.escape(sweep['policy'])}: {html.escape(sweep['parameter'])}</h3>")
        lines.append(f'<div id="sweep-{k}" class="plot"></div>')
    return lines


def _plot(sweep: Mapping[str, Any]) -> dict[str, Any]:
    lines = []
    for line in sweep["lines"]:
        spread = list(zip(line["y"], line["low"], line["high"], strict=True))
        above = [0.0 if high is None else _short(high - y) for y, _, high in spread]
        below = [0.0 if low is None else _short(y - low) for y, low, _ in spread]
        lines.append({**{key: line[key] for key in ("name", "x")}, "y": [_short(y) for y in line["y"]], "above": above,
                      "below": below})  # fmt: skip
    return {**sweep, "lines": lines}


def _run(store: Store, record: Mapping[str, Any], points: int) -> dict[str, Any]:
    spec, manifest = record["spec"], record["manifest"]
    whole = store.get(record["id"], series=True) or record
    times, lines = _time_lines(whole["result"].get("series") or {}, min(points, MOST_POINTS))
    seconds = [f"{fixed(value, 3):>10}  {name}" for name, value in (record["result"].get("parts") or {}).items()]
    total = record["result"]["metrics"]["time_s"]
    commit = manifest.get("commit") or {}
    about = [
        f"run {record['id']}",
        f"computed {manifest.get('created', '')} in {manifest.get('wall_s', 0):g} s on {manifest.get('cpu', '')}",
        f"commit {commit.get('id', 'unknown')}{' and changes' if commit.get('dirty') else ''}",
    ]
    return {
        "title": f"{spec['policy']['label']} on {spec['workload']['label']}, seed {spec['seed']}",
        "command": command_of(record),
        "parts": "\n".join([*seconds, f"{total:10.3f}  total"]),
        "manifest": "\n".join(about),
        "t": times,
        "y": lines,
    }


def _time_lines(series: Mapping[str, Sequence[float]], points: int) -> tuple[list[Any], list[list[Any]]]:
    """Ends of at most `points` stretches, and over each the values of `LINES`: from cumulative counters."""
    times = list(series.get("t_s") or ())
    if len(times) < 2:
        return [], [[] for _ in LINES]
    n = min(points, len(times) - 1)
    edges = [k * (len(times) - 1) // n for k in range(n + 1)]
    pairs = [(a, b) for a, b in itertools.pairwise(edges) if times[b] > times[a]]
    hits = list(_ratio(series, "hits_top", "misses", pairs, 100.0))
    moved = [
        list(_ratio(series, name, "t_s", pairs, 1 / _MIB_PAGES)) for name in ("pgpromote_success", "pgdemote_kswapd")
    ]
    return [_short(times[b]) for _, b in pairs], [
        hits,
        *moved,
        list(_ratio(series, "daemon_cpu_s", "t_s", pairs, 100.0)),
    ]


def _ratio(
    series: Mapping[str, Sequence[float]], above: str, below: str, pairs: Sequence[tuple[int, int]], factor: float
) -> Iterator[float | None]:
    top, base = series[above], series[below]
    for a, b in pairs:
        yield _short(factor * (top[b] - top[a]) / (base[b] - base[a])) if base[b] > base[a] else None


def _short(value: float | None) -> float | None:
    """Four significant digits: the page stays small, and no more can be seen."""
    return None if missing(value) or value is None else float(f"{value:.4g}")
