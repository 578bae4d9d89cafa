"""One run on a page: what it cost, what it moved, and its time line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from klrubench.machine import Machine
from klrubench.report.sparkline import rates, ratios, resampled, sparkline
from klrubench.report.tenants import tenant_lines
from klrubench.report.text import Column, count, fixed, joined, missing, share, significant, size, table, wrapped
from klrubench.report.wide import bound_text

_LABEL = 16
_MIB_PER_PAGE = 1 / 256


def run_text(
    result: Mapping[str, Any],
    slowdown: Mapping[str, float | None],
    width: int,
    ascii_only: bool = False,
    base_tenants: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page of one run.

    Args:
        result: what `RunResult.to_dict()` holds.
        slowdown: `run`, `steady` and `charged` slowdown against all-DRAM in %, where known.
        width: columns of text a line may have.
        ascii_only: draw the time line with 7-bit characters.
        base_tenants: the rows by memcg of the run with everything in DRAM.
    """
    metrics = result["metrics"]
    lines = [line for label, text in _facts(metrics, slowdown) for line in _fact(label, text, width)]
    tenants = tenant_lines(result.get("tenants") or (), base_tenants)
    lines += ["", *tenants] if tenants else []
    lines += ["", *_cpu(result)]
    bound = bound_text(result.get("bound"), width - _LABEL)
    lines += _fact("bound by, %", bound, width) if bound else []
    lines += ["", *time_line(result.get("series") or {}, width, ascii_only)]
    for note in result.get("notes") or ():
        lines += wrapped(f"note: {note}", width, "  ")
    return "\n".join(lines)


def head_lines(record: Mapping[str, Any], machine: Machine, width: int) -> list[str]:
    """What was run: names, seed, id, machine, scale, and whether it was computed now.

    Args:
        record: a stored run, `{"id", "spec", "result", "manifest", "cached"}`.
        machine: the machine it ran on, with the words that a stored run leaves out.
        width: columns of text a line may have.
    """
    spec = record["spec"]
    names = f"{spec['policy']['label']} on {spec['workload']['label']}, seed {spec['seed']}"
    state = "from the store" if record.get("cached") else f"computed in {fixed(record['manifest'].get('wall_s'), 1)} s"
    scale = "1" if spec["fold"] == 1 else f"1/{spec['fold']}"
    about = [f"run {record['id'][:10]}", state, f"{spec['duration_s']:g} s of work", f"scale {scale}"]
    system = [*machine.header().split("; "), machine.sizing(), f"kernel {machine.kernel}", f"HZ {machine.hz}"]
    return [*wrapped(names, width, "  "), *joined(about, width, ", "), *joined(system, width, "; ", "  ")]


def _fact(label: str, text: str, width: int) -> list[str]:
    first, *rest = wrapped(text, width - _LABEL)
    return [f"{label:<{_LABEL}}{first}", *(" " * _LABEL + line for line in rest)]


def _facts(metrics: Mapping[str, Any], slowdown: Mapping[str, float | None]) -> list[tuple[str, str]]:
    get = metrics.get
    found = [f"{name} {fixed(slowdown[name], 2)}" for name in ("run", "steady", "charged") if name in slowdown]
    time = f"{fixed(get('time_s'), 2)} s; {fixed(get('ideal_time_s'), 2)} s at idle memory"
    quantiles = [(name, get(f"op_{name}_ns")) for name in ("p50", "p99", "p999")]
    latency = ", ".join(f"{name} {_duration(value)}" for name, value in quantiles if value is not None)
    return [
        *([("slowdown, %", ", ".join(found) + " (against all-DRAM)")] if found else []),
        ("time", time),
        ("accesses", f"{count(get('accesses'))}; {count(get('misses'))} miss the cache, {count(get('writes'))} write"),
        (
            "DRAM hit %",
            f"{share(get('dram_hit_share'), 2)} of misses; last half {share(get('steady_dram_hit_share'), 2)}",
        ),
        *([("operation", latency)] if latency else []),
        ("promoted", _moved(metrics, "promoted")),
        ("demoted", _moved(metrics, "demoted")),
        *_quality(metrics),
        ("metadata", f"{size(get('metadata_bytes'))} at the end, {size(get('metadata_peak_bytes'))} at most"),
        ("converged", "never" if missing(get("convergence_s")) else f"after {fixed(get('convergence_s'))} s"),
        (
            "touches",
            f"{significant(get('touches_per_page_s'))} /page/s; {share(get('young_share'))} % young within 2 s",
        ),
    ]


def _moved(metrics: Mapping[str, Any], way: str) -> str:
    pages = f"{count(metrics.get(f'{way}_pages'))} pages, {significant(metrics.get(f'{way}_mib_s'), 3)} MiB/s"
    again = metrics.get("promoted_again_share")
    return pages if way == "demoted" or missing(again) else f"{pages}, {share(again)} % within 60 s of a demotion"


def _quality(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    if missing(metrics.get("precision")):
        return []
    text = f"precision {share(metrics.get('precision'))} %, recall {share(metrics.get('recall'))} %"
    return [("choice of pages", f"{text} against the best ones of the time after")]


def _duration(nanoseconds: float) -> str:
    for unit, factor in (("ns", 1.0), ("us", 1e3), ("ms", 1e6)):
        if nanoseconds < 1000 * factor:
            return f"{significant(nanoseconds / factor, 3)} {unit}"
    return f"{significant(nanoseconds / 1e9, 3)} s"


def _cpu(result: Mapping[str, Any]) -> list[str]:
    """CPU time of each kernel thread and of each cost in the application, busiest first."""
    cpu = dict(sorted((result.get("cpu") or {}).items(), key=lambda item: -item[1]))
    time_s = result["metrics"].get("time_s") or 0
    if not cpu or not time_s:
        return []
    kernel = set(result.get("daemon_threads") or ())
    names = [name for name in cpu if name in kernel] + [name for name in cpu if name not in kernel]
    return table(
        [
            Column(("CPU time",), names, left=True, gap=0),
            Column(("s",), [fixed(cpu[name], 3) for name in names], gap=2),
            Column(("% of a core",), [fixed(100 * cpu[name] / time_s, 2) for name in names], gap=2),
            Column(
                ("paid by",), ["kernel thread" if name in kernel else "application" for name in names], left=True, gap=2
            ),
        ]
    )


def time_line(series: Mapping[str, Sequence[float]], width: int, ascii_only: bool = False) -> list[str]:
    """The run over time: one sparkline a quantity, between its least and greatest value.

    Args:
        series: `t_s` and cumulative counters, sampled at the same times.
        width: columns of text a line may have.
        ascii_only: draw with 7-bit characters.
    """
    times = list(series.get("t_s") or ())
    if len(times) < 3:
        return []
    room = min(60, width - 40)
    found = [(label, values(series)) for label, needs, values in _LINES if all(name in series for name in needs)]
    drawn = [(label, resampled(values, room)) for label, values in found if any(value for value in values if value)]
    stretch = (times[-1] - times[0]) / max(1, min(room, len(times) - 1))
    title = f"time line of {fixed(times[-1])} s, {significant(stretch)} s a character, from least to most"
    return [
        title,
        *table(
            [
                Column((), [label for label, _ in drawn], left=True, gap=0),
                Column((), [_least(values, min) for _, values in drawn]),
                Column((), [sparkline(values, room, ascii_only=ascii_only) for _, values in drawn], left=True, gap=2),
                Column((), [_least(values, max) for _, values in drawn], gap=2),
            ]
        ),
        "",
    ]


def _least(values: Sequence[float | None], which: Callable[[list[float]], float]) -> str:
    known = [value for value in values if value is not None]
    return significant(which(known), 3) if known else "-"


_Series = Mapping[str, Sequence[float]]


def _rate(name: str, factor: float = 1.0) -> Callable[[_Series], list[float | None]]:
    def values(series: _Series) -> list[float | None]:
        return [None if rate is None else rate * factor for rate in rates(series["t_s"], series[name])]

    return values


def _hits(series: _Series) -> list[float | None]:
    base = series.get("misses", series["accesses"])
    return [None if part is None else 100 * part for part in ratios(series["hits_top"], base)]


def _resident(series: _Series) -> list[float | None]:
    return [pages * _MIB_PER_PAGE / 1024 for pages in series["nr_top_pages"]]


_LINES: tuple[tuple[str, tuple[str, ...], Callable[[_Series], list[float | None]]], ...] = (
    ("DRAM hit %", ("hits_top", "accesses"), _hits),
    ("accesses, M/s", ("accesses",), _rate("accesses", 1e-6)),
    ("in DRAM, GiB", ("nr_top_pages",), _resident),
    ("pgpromote_success, MiB/s", ("pgpromote_success",), _rate("pgpromote_success", _MIB_PER_PAGE)),
    ("pgdemote, MiB/s", ("pgdemote",), _rate("pgdemote", _MIB_PER_PAGE)),
    ("numa_hint_faults, /s", ("numa_hint_faults",), _rate("numa_hint_faults")),
    ("kernel threads, % of a core", ("daemon_cpu_s",), _rate("daemon_cpu_s", 100)),
)


def vmstat_text(counters: Mapping[str, int]) -> str:
    """Counters as `/proc/vmstat` prints them, one a line."""
    return "\n".join(f"{name} {value}" for name, value in sorted(counters.items()))
