"""A sweep as text: the winner beside the default on seeds and workloads that chose neither, and what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from klrubench.report.sparkline import sparkline
from klrubench.report.text import Column, blocks, fixed, joined, missing, significant, table, wrapped

Facts = Mapping[str, Any]
SHORT_NAMES = {"interval_ms": "interval", "threshold": "thr", "window_ms": "window"}
UNITS = {"charged": "%", "spare": "%", "traffic": "MiB/s", "daemon_cpu": "cores", "p99": "ns", "convergence": "s"}
TITLES = {
    "charged": "charged slowdown %",
    "spare": "slowdown % (spare cores)",
    "traffic": "promotion MiB/s",
    "daemon_cpu": "kernel threads' CPUs",
    "p99": "p99 ns",
    "convergence": "convergence s",
}
RELATIVE = ("charged", "spare", "p99")


def sweep_text(found: Facts, width: int) -> str:
    """What a sweep ends with: budget, the judgement, importances, the winner's file.

    Args:
        found: what `study.sweep.show.summary` returns, with `winner_file` where one was just written.
        width: columns of text a line may have.
    """
    lines = [*_head(found, width), ""]
    confirmed = found.get("confirmed")
    if confirmed is None:
        lines += _unjudged(found, width)
    elif len(found["about"]["objectives"]) == 1:
        lines += [*judged(found, confirmed, width), *_words(found, confirmed, width)]
    else:
        lines += _several(found, confirmed)
    lines += ["", *_mattered(found, width)]
    if found.get("winner_file"):
        lines.append(f"winner: {found['winner_file']}  (klrubench compare --study takes it)")
    return "\n".join(line.rstrip() for line in lines)


def show_text(found: Facts, width: int, ascii_only: bool = False) -> str:
    """All that `klrubench sweep show` has: the end of the sweep, best so far, slices, contour, front."""
    parts = [sweep_text(found, width)]
    if found["best_so_far"]:
        parts.append("\n".join(_best_so_far(found, width, ascii_only)))
    parts += ["\n".join(_slice(name, cut, found)) for name, cut in found["slices"].items()]
    if found["contour"]:
        parts.append("\n".join(_contour(found["contour"], width)))
    if found["front"]:
        parts.append("\n".join(_front(found)))
    return "\n\n".join(parts)


def _head(found: Facts, width: int) -> list[str]:
    about, counts, spent = found["about"], found["counts"], found["spent"]
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    beyond = f", {counts['beyond']} beyond a constraint" if counts["beyond"] else ""
    made = " and ".join(TITLES[name] for name in about["objectives"])
    bounds = [f"within {', '.join(about['constraints'])}"] if about["constraints"] else []
    cells = counts["trials"] * len(about["cells"])
    parts = [
        f"{counts['trials']} trials ({counts['complete']} full, {counts['pruned']} pruned{failed}{beyond})",
        f"{about['sampler']}, seed {about['seed']}{', deterministic' if about['deterministic'] else ''}",
        f"{len(about['workloads'])} workloads x {about['seeds']} seeds",
        f"{counts['cells']} of {cells} runs",
        _duration(spent.get("wall_s", 0.0)),
        f"sampler and storage {_overhead(spent)} %",
        f"least {made}",
        *bounds,
    ]
    coarse = f"in the sweep {about['duration_s']:g} s at scale {_scales(about['scales'])}"
    full = found.get("confirmed")
    if full:
        fine = _scales(full["scales"])
        coarse += f"; judged on {full['duration_s']:g} s at {fine}, seeds {full['seeds'][0]}-{full['seeds'][-1]}"
    where = (
        f"{about['policy']} on {about['machine']} {' '.join(about['ratio'])}; tuned on {', '.join(about['workloads'])}"
    )
    return [*joined(parts, width - 2, ", ", "  "), *wrapped(f"{where}; {coarse}", width, "  ")]


def _scales(folds: Mapping[str, int]) -> str:
    """`1/16` or, where workloads differ, `1/16 to 1/256`."""
    return " to ".join(f"1/{fold}" for fold in sorted({min(folds.values()), max(folds.values())}))


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{seconds:.1f} s"


def _overhead(spent: Facts) -> str:
    wall = spent.get("wall_s", 0.0)
    return fixed(100 * spent.get("overhead_s", 0.0) / wall if wall else None, 1)


def judged(found: Facts, confirmed: Facts, width: int) -> list[str]:
    """The table: default, tuned and the rest, in the sweep, on fresh seeds and on held-out workloads."""
    rows = confirmed["rows"]
    names = list(rows[-1]["values"])
    digits = _digits(confirmed["measure"])
    first = [
        Column(("",), [row["who"] for row in rows], left=True, gap=0),
        Column(("in sweep",), [_fixed(row["in_sweep"], digits) for row in rows], gap=2),
        Column(("fresh seeds",), [_interval(row["fresh"], digits) for row in rows], left=True, gap=2),
        Column(("vs default",), [_word(row.get("against_default"), digits) for row in rows], left=True, gap=2),
    ]
    others: list[list[Column]] = []
    if any(row["held"] for row in rows):
        held = [f"{_interval(row['held'], digits)} {_mark(row.get('held_against_default'))}".strip() for row in rows]
        others.append([Column(("held-out workloads",), held, left=True, gap=2)])
    for name in names:
        cells = [_values(row["values"].get(name, []), name in found["flat"], row["who"]) for row in rows]
        others.append([Column((SHORT_NAMES.get(name, name),), cells, gap=2)])
    parts = blocks(first, others, [], width)
    return [line for k, part in enumerate(parts) for line in ([""] if k else []) + part]


def _digits(measure: str) -> int:
    return {"daemon_cpu": 3, "p99": 0}.get(measure, 1)


def _fixed(value: Any, digits: int) -> str:
    return fixed(value, digits)


def _interval(found: Facts | None, digits: int) -> str:
    if not found:
        return "-"
    if found["low"] is None:
        return fixed(found["mean"], digits)
    return f"{fixed(found['mean'], digits)} [{fixed(found['low'], digits)},{fixed(found['high'], digits)}]"


def _word(found: Facts | None, digits: int) -> str:
    if not found:
        return ""
    return f"{found['mean']:+.{digits}f} {_mark(found)}".strip()


def _mark(found: Facts | None) -> str:
    word = found["word"] if found else ""
    return word if word in ("n.s.", "equal", "1 seed") else ""


def _values(values: Sequence[Any], flat: bool, who: str) -> str:
    if not values:
        return ""
    if flat and who.startswith("tuned"):
        return "any*"
    known = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(known) == 1:
        return _value(known[0])
    if isinstance(known[0], (str, bool)):
        return "/".join(_value(value) for value in known)
    return f"{_value(known[0])}-{_value(known[-1])}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _words(found: Facts, confirmed: Facts, width: int) -> list[str]:
    """Whether it was worth it, in words."""
    gain, name = confirmed["beats_base"], confirmed["measure"]
    unit = "points" if name in ("charged", "spare") else "%" if name == "p99" else UNITS[name]
    amount = f"{gain['mean']:+.2f} {unit}"
    if gain["low"] is not None:
        amount += f" [{gain['low']:+.2f},{gain['high']:+.2f}]"
    if gain["word"] in ("less", "exact") and gain["mean"] < 0:
        line = f"tuned against first_touch: {amount}: it pays"
    elif gain["word"] == "equal":
        line = f"tuned against first_touch: {amount}: equal, surely within 1 point"
    else:
        line = f"tuned against first_touch: {amount}: no setting that was found beats first_touch"
    lines = ["", *wrapped(line, width, "  ")]
    if confirmed["winner"]["number"] == 0:
        lines.append("the default itself won: on fresh seeds none of the best trials was better")
    parts = [f"{w} {_pairs(each, _digits(name))}" for w, each in confirmed["by_workload"].items()]
    lines += joined([f"by workload, first_touch: default -> tuned: {parts[0]}", *parts[1:]], width, "; ", "  ")
    return lines


def _pairs(each: Facts, digits: int) -> str:
    still, usual, own = (fixed(each[name]["mean"], digits) for name in ("first_touch", "default", "tuned"))
    return f"{still}: {usual} -> {own}"


def _unjudged(found: Facts, width: int) -> list[str]:
    best = found["best"]
    if best is None:
        return [
            "no full trial yet" if not found["front"] else "not judged yet: the same sweep command goes on from here"
        ]
    values = ", ".join(f"{name}={_value(value)}" for name, value in best["values"].items())
    line = f"not judged yet; best so far {_against(best['objectives'][0], found)} at #{best['trial']}: {values}"
    return wrapped(line, width, "  ")


def _against(value: float, found: Facts) -> str:
    name = found["about"]["objectives"][0]
    return f"{value:+.2f} {'%' if name in RELATIVE else UNITS[name]} against first_touch"


def _several(found: Facts, confirmed: Facts) -> list[str]:
    """Points of the front on fresh seeds, every objective with its interval."""
    rows = confirmed["rows"]
    columns = [Column(("",), [row["who"] for row in rows], left=True, gap=0)]
    for name in found["about"]["objectives"]:
        cells = [_interval(row["means"][name], _digits(name)) for row in rows]
        columns.append(Column((TITLES[name],), cells, left=True, gap=2))
    for name in rows[-1]["values"]:
        columns.append(
            Column(
                (SHORT_NAMES.get(name, name),), [_values(row["values"].get(name, []), False, "") for row in rows], gap=2
            )
        )
    return [*table(columns), f"front of {confirmed['front_size']} trials in the sweep; intervals are over fresh seeds"]


def _mattered(found: Facts, width: int) -> list[str]:
    lines = []
    for objective, shares in found["importance"].items():
        ordered = sorted(shares.items(), key=lambda each: -each[1])
        texts = [
            f"{name} {fixed(value, 2).removeprefix('0')}{'*' if name in found['flat'] else ''}"
            for name, value in ordered
        ]
        named = f" ({objective})" if len(found["importance"]) > 1 else ""
        lines += joined(
            [f"importance{named}  " + (texts[0] if texts else "too few trials"), *texts[1:]], width, "  ", "  "
        )
    if found["flat"]:
        lines.append("* the best is the same over the whole range, within 0.1 point")
    lines += [line for why in found["failures"] for line in wrapped(f"failed: {why}", width, "  ")]
    return lines


def _best_so_far(found: Facts, width: int, ascii_only: bool) -> list[str]:
    steps = found["best_so_far"]
    total = found["counts"]["trials"]
    ends = [*(step["trial"] for step in steps[1:]), max(total, steps[-1]["trial"] + 1)]
    curve: list[float | None] = [None] * steps[0]["trial"]
    for step, end in zip(steps, ends, strict=True):
        curve += [step["objective"]] * max(0, end - step["trial"])
    known = [value for value in curve if value is not None]
    line = sparkline(curve, min(60, width - 20), low=min(known), high=max(known), ascii_only=ascii_only)
    first, last = steps[0]["objective"], steps[-1]["objective"]
    lines = ["best so far (against first_touch)", f"  {first:+.2f} {line} {last:+.2f}"]
    for step in steps[-5:]:
        values = " ".join(f"{name}={_value(value)}" for name, value in step["values"].items())
        lines += wrapped(f"  #{step['trial']} {step['objective']:+.2f}  {values}", width, "    ")
    return lines


def _slice(name: str, cut: Sequence[Facts], found: Facts) -> list[str]:
    """One parameter: for each stretch of its range how many full trials, the best and the median of them."""
    where = [
        _value(each["value"]) if "value" in each else f"{_value(each['low'])} - {_value(each['high'])}" for each in cut
    ]
    best = [each["best"] for each in cut]
    known = [value for value in best if value is not None]
    marks = ["<" if known and value == min(known) else "" for value in best]
    columns = [
        Column((name,), where, left=True, gap=0),
        Column(("full trials",), [str(each["trials"]) for each in cut], gap=2),
        Column(("best",), [_signed(value) for value in best], gap=2),
        Column(("median",), [_signed(each["median"]) for each in cut], gap=2),
        Column(("",), marks, left=True, gap=1),
    ]
    return table(columns)


def _signed(value: Any) -> str:
    return "-" if missing(value) else f"{value:+.2f}"


def _contour(grid: Facts, width: int) -> list[str]:
    """Best value over two parameters; rows from the highest down, each field from its lower edge on."""
    known = [value for row in grid["best"] for value in row if value is not None]
    least = min(known) if known else None
    rows = list(reversed(list(zip(grid["rows"], grid["best"], strict=True))))
    columns = [Column((grid["up"],), [_edge(edge) for edge, _ in rows], left=False, gap=0)]
    for k, edge in enumerate(grid["columns"]):
        cells = [_marked(row[k], least) for _, row in rows]
        columns.append(Column((_edge(edge),), cells))
    title = f"best against first_touch: {grid['across']} across, {grid['up']} up, from each edge on; < least"
    return [*wrapped(title, width, "  "), *table(columns)]


def _edge(value: Any) -> str:
    return significant(value, 3) if isinstance(value, (int, float)) and not isinstance(value, bool) else _value(value)


def _marked(value: float | None, least: float | None) -> str:
    if value is None:
        return "."
    return f"{value:+.{2 if abs(value) < 9.995 else 1}f}{'<' if value == least else ' '}"


def _front(found: Facts) -> list[str]:
    """The Pareto front as the sweep saw it, by the first objective."""
    names, rows = found["about"]["objectives"], found["front"]
    columns = [Column(("trial",), [f"#{row['trial']}" for row in rows], left=True, gap=0)]
    for k, name in enumerate(names):
        unit = "% vs first_touch" if name in RELATIVE else UNITS[name]
        columns.append(Column((name, unit), [f"{row['objectives'][k]:.4g}" for row in rows], gap=2))
    for name in rows[0]["values"]:
        columns.append(Column((SHORT_NAMES.get(name, name),), [_value(row["values"][name]) for row in rows], gap=2))
    return ["Pareto front", *table(columns)]
