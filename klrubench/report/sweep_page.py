"""Sweeps on the page of `klrubench report`: their text, and plots from their journals as data for plotly."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from klrubench.report.sweep import RELATIVE, UNITS, sweep_text
from klrubench.report.text import significant

Found = Mapping[str, Any]
WIDTH = 110
TRIALS = 20_000
"""Trials drawn on a page at most, over all sweeps; of more, every n-th."""

LEAST_TRIALS = 500
ACROSS = 3
FAINT, STRONG, MARKED = "#b8c4ce", "#0072b2", "#d55e00"


def sections(found: Sequence[Found]) -> list[str]:
    """HTML: for each sweep its tables as text and a place for each plot; nothing without sweeps."""
    lines = ["<h2>Sweeps</h2>"] if found else []
    for k, one in enumerate(found):
        about = one["about"]
        lines.append(f"<h3>{html.escape(one['name'])}: {html.escape(str(about['policy']))}</h3>")
        lines.append(f"<pre>{html.escape(sweep_text(one, WIDTH))}</pre>")
        for figure in plots(one, k, len(found)):
            lines.append(f"<p class=note>{html.escape(figure['title'])}</p>")
            lines.append(f'<div id="{figure["id"]}" class="plot"></div>')
    return lines


def plots(found: Found, k: int, sweeps: int = 1) -> list[dict[str, Any]]:
    """The plots of a sweep: `id` of their place, `title`, and `traces` and `layout` as plotly takes them.

    Args:
        found: what `study.sweep.journals.journals` yields.
        k: its place on the page.
        sweeps: how many share the page's number of points.
    """
    trials = _thinned(found["trials"], max(LEAST_TRIALS, TRIALS // max(1, sweeps)))
    several = len(found["about"]["objectives"]) > 1
    drawn = [*(_fronts(found, trials) if several else _single(found, trials)), *_importance(found)]
    return [{"id": f"search-{k}-{name}", **figure} for name, figure in drawn]


def _thinned(trials: Sequence[Found], most: int) -> list[Found]:
    """Every n-th, so that at most so many remain; points of a front are kept."""
    step = max(1, math.ceil(len(trials) / most))
    return [trial for place, trial in enumerate(trials) if place % step == 0 or trial["front"]]


def _unit(name: str) -> str:
    return f"{name}, {'% vs first-touch' if name in RELATIVE else UNITS[name]}"


def _short(value: Any) -> Any:
    """Four digits of a number; None for what no plot can show."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if value is None or isinstance(value, str) else str(value).lower()
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _single(found: Found, trials: Sequence[Found]) -> Iterator[tuple[str, dict[str, Any]]]:
    unit = _unit(found["about"]["objectives"][0])
    if found["best_so_far"]:
        yield "best", _best(found, trials, unit)
    if found["slices"] and trials:
        yield "slices", _slices(found, trials, unit)
    if found["contour"]:
        yield "contour", _contour(found["contour"], unit)


def _best(found: Found, trials: Sequence[Found], unit: str) -> dict[str, Any]:
    steps = found["best_so_far"]
    last = max(found["counts"]["trials"] - 1, steps[-1]["trial"])
    traces = [
        _dots([trial["trial"] for trial in trials], [trial["objectives"][0] for trial in trials], "full trials"),
        {
            "x": [*(step["trial"] for step in steps), last],
            "y": [_short(step["objective"]) for step in [*steps, steps[-1]]],
            "text": [*map(_words, (step["values"] for step in steps)), ""],
            "mode": "lines+markers",
            "line": {"shape": "hv", "color": STRONG},
            "name": "best so far",
        },
    ]
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": {"title": {"text": unit}}}
    return {"title": "Best so far: each full trial, and the least up to it.", "traces": traces, "layout": layout}


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items())


def _dots(x: Sequence[Any], y: Sequence[Any], name: str, **more: Any) -> dict[str, Any]:
    marker = {"color": FAINT, "size": 6, "line": {"color": "#7d8b97", "width": 0.5}}
    both = {"x": [_short(value) for value in x], "y": [_short(value) for value in y]}
    return {**both, "mode": "markers", "marker": marker, "name": name, **more}


def _slices(found: Found, trials: Sequence[Found], unit: str) -> dict[str, Any]:
    """One small plot a parameter, all with the objective upward."""
    names = list(found["slices"])
    rows = math.ceil(len(names) / ACROSS)
    across = min(ACROSS, len(names))
    layout: dict[str, Any] = {
        "grid": {"rows": rows, "columns": across, "pattern": "independent", "ygap": 0.35},
        "height": 60 + 260 * rows,
        "showlegend": False,
    }
    traces = []
    best = found["best"]["trial"] if found["best"] else None
    for place, name in enumerate(names):
        end = "" if place == 0 else str(place + 1)
        layout[f"xaxis{end}"] = {"title": {"text": name}, "type": "log" if found["logs"].get(name) else "-"}
        layout[f"yaxis{end}"] = {"title": {"text": unit}} if place % across == 0 else {}
        for rest, marker in ((True, None), (False, {"color": MARKED, "size": 10, "symbol": "star"})):
            chosen = [t for t in trials if (t["trial"] != best) is rest and name in t["drawn"]]
            one = _dots([t["drawn"][name] for t in chosen], [t["objectives"][0] for t in chosen], name)
            traces.append({**one, "xaxis": f"x{end}", "yaxis": f"y{end}", **({"marker": marker} if marker else {})})
    return {"title": "By parameter: every full trial; the star is the best.", "traces": traces, "layout": layout}


def _contour(grid: Found, unit: str) -> dict[str, Any]:
    cells = [[_short(value) for value in row] for row in grid["best"]]
    trace = {
        "type": "heatmap",
        "x": [_edge(edge) for edge in grid["columns"]],
        "y": [_edge(edge) for edge in grid["rows"]],
        "z": cells,
        "text": [["" if value is None else f"{value:+.2f}" for value in row] for row in cells],
        "texttemplate": "%{text}",
        "colorscale": "Viridis",
        "hoverongaps": False,
        "colorbar": {"title": {"text": unit}},
    }
    layout = {
        "xaxis": {"title": {"text": f"{grid['across']}, from"}, "type": "category"},
        "yaxis": {"title": {"text": f"{grid['up']}, from"}, "type": "category", "automargin": True},
    }
    pair = f"{grid['across']} and {grid['up']}"
    title = f"Best of the full trials in each field of {pair}; a field is named by its lower edge."
    return {"title": title, "traces": [trace], "layout": {**layout, "height": 380}}


def _edge(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return significant(value, 3) if number else str(_short(value))


def _importance(found: Found) -> Iterator[tuple[str, dict[str, Any]]]:
    shares = {name: each for name, each in found["importance"].items() if each}
    if not shares:
        return
    traces = []
    for objective, each in shares.items():
        names = sorted(each, key=lambda name: each[name])
        traces.append({"type": "bar", "orientation": "h", "x": [_short(each[name]) for name in names], "y": names,
                       "name": objective})  # fmt: skip
    layout = {"xaxis": {"title": {"text": "share of the variance among the best tenth"}, "rangemode": "tozero"},
              "barmode": "group", "height": 120 + 40 * max(map(len, shares.values())), "showlegend": len(shares) > 1,
              "margin": {"t": 30, "r": 10, "l": 140, "b": 50}}  # fmt: skip
    yield "importance", {"title": "Importance of each parameter (PED-ANOVA).", "traces": traces, "layout": layout}


def _fronts(found: Found, trials: Sequence[Found]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The Pareto front, a plot for each pair of objectives."""
    names = found["about"]["objectives"]
    for a, b in itertools.combinations(range(len(names)), 2):
        best = sorted((trial for trial in trials if trial["front"]), key=lambda trial: trial["objectives"][a])
        rest = [trial for trial in trials if not trial["front"]]
        traces = [
            _dots([t["objectives"][a] for t in rest], [t["objectives"][b] for t in rest], "full trials"),
            _dots(
                [t["objectives"][a] for t in best],
                [t["objectives"][b] for t in best],
                "Pareto front",
                marker={"color": STRONG, "size": 8},
                # of three objectives a front seen from one side is no line
                mode="lines+markers" if len(names) == 2 else "markers",
                line={"color": STRONG, "dash": "dot"},
                text=[f"#{t['trial']} {_words(t['drawn'])}" for t in best],
            ),
        ]
        layout = {"xaxis": {"title": {"text": _unit(names[a])}}, "yaxis": {"title": {"text": _unit(names[b])}}}
        title = f"Pareto front: {names[a]} and {names[b]}, as the sweep saw them."
        yield f"front-{a}-{b}", {"title": title, "traces": traces, "layout": layout}
