"""What a run's stored numbers say: its time by cause against all-DRAM, its pages, what bound it, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from klrubench.errors import KlrubenchError, UsageError
from klrubench.params import parse_spec
from klrubench.simulate.parts import COMPUTE, QUEUEING
from klrubench.study.again import alike, command_of, find_run, spec_of, work_words
from klrubench.study.run import run_spec
from klrubench.study.spec import RunSpec, policy_part
from klrubench.study.store import Store

BASELINE = "all_top"
BUSY = 0.9
"""Share of the run from which on a kernel thread counts as never idle."""

SATURATED = 0.95
BOUND = 0.2
"""Share from which on what bound a run is worth a try without it."""


def explain(run: RunSpec | str, store: Store, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The facts of one run; computes it and its all-DRAM twin where they are not stored.

    Args:
        run: a resolved run, or the beginning of a stored one's id.
        store: where results are.
        say: told the lines that belong on stderr.

    Returns:
        `run` and `baseline` (stored records), `parts` (rows of cause, seconds here and in the baseline, and the
        difference in % of the baseline's time; they add up to `slowdown_pct`), `bounds` (slowdowns in % of
        oracle_static and first_touch, where stored), `pages`, `waits`, `cost`, `moved`, `bound`, `tries`.

    Raises:
        UsageError: no such run, or its code has changed since and the all-DRAM run it is held against is not stored.
    """
    record = find_run(store, run) if isinstance(run, str) else run_spec(run, store, say)
    if not record["result"].get("parts"):
        raise UsageError(
            f"run {record['id'][:12]} was stored without its time by cause; repeat it: {command_of(record)}"
        )
    base = _baseline(record, store, say)
    facts: dict[str, Any] = {"run": record, "baseline": base, **_slowdowns(record, base)}
    facts["parts"] = _parts(record, base)
    facts["bounds"] = _bounds(record, base, store)
    facts["pages"] = _pages(record["result"].get("residency") or {})
    facts["waits"] = _waits(record)
    facts["bound"] = dict(sorted(record["result"]["bound"].items(), key=lambda item: -item[1]))
    facts["tries"] = list(_tries(record, facts))
    facts["repeat"] = command_of(record)
    facts["sees"] = _sees(record)
    return facts


def _baseline(record: Mapping[str, Any], store: Store, say: Callable[[str], None]) -> dict[str, Any]:
    if record["spec"]["policy"]["label"] == BASELINE:
        return dict(record)
    found = alike(store, record, BASELINE)
    if found is not None:
        return found
    now = spec_of(record)
    if now.run_id != record["id"]:
        raise UsageError(
            f"run {record['id'][:12]} was made by other code, and no all-DRAM run by that code is stored to hold it "
            f"against; repeat it: {command_of(record)}"
        )
    return run_spec(spec_of(record, BASELINE), store, say)


def _slowdowns(record: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float]:
    own, ideal = record["result"]["metrics"], base["result"]["metrics"]
    return {
        "slowdown_pct": 100 * (own["time_s"] / ideal["time_s"] - 1),
        "steady_pct": 100 * (own["steady_time_s"] / ideal["steady_time_s"] - 1),
        "charged_pct": 100 * (own["charged_time_s"] / ideal["time_s"] - 1),
    }


def _parts(record: Mapping[str, Any], base: Mapping[str, Any]) -> list[dict[str, Any]]:
    own, ideal = record["result"]["parts"], base["result"]["parts"]
    whole = base["result"]["metrics"]["time_s"]
    rows = []
    for name in sorted({**own, **ideal}, key=lambda name: _order(record, name)):
        here, there = own.get(name, 0.0), ideal.get(name, 0.0)
        rows.append({"part": name, "s": here, "baseline_s": there, "pct": 100 * (here - there) / whole})
    return rows


def _order(record: Mapping[str, Any], name: str) -> tuple[int, str]:
    nodes = [node["name"] for node in record["spec"]["machine"]["nodes"]]
    first = [COMPUTE, "cpu cache", *nodes, *(node + QUEUEING for node in nodes)]
    return (first.index(name) if name in first else len(first), name)


def _bounds(record: Mapping[str, Any], base: Mapping[str, Any], store: Store) -> dict[str, float]:
    found = {}
    for name in ("oracle_static", "first_touch"):
        other = alike(store, record, name)
        if other is not None:
            found[name] = 100 * (other["result"]["metrics"]["time_s"] / base["result"]["metrics"]["time_s"] - 1)
    return found


def _pages(sums: Mapping[str, float]) -> dict[str, float | None]:
    """Shares of the misses, and of the pages that came to DRAM (`residency.Residency.result` has the words)."""
    if not sums or not sums["misses"]:
        return {}
    found: dict[str, float | None] = {
        name: sums[name] / sums["misses"] for name in ("best", "held", "came", "lost", "stayed")
    }
    entered = sums["entered_pages"]
    for name in ("untouched", "below_median", "gone"):
        found[name] = sums[f"{name}_pages"] / entered if entered else None
    found["entered_pages"], found["window_s"] = entered, sums["window_s"]
    last = sums["last_best_pages"]
    found["never"] = sums["last_never_pages"] / last if last else None
    return found


def _waits(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Seconds; `heap_s` by Little's law: mean records waiting over records taken out a second."""
    series, params = record["result"].get("series") or {}, record["spec"]["policy"]["params"]
    popped, heap, times = (series.get(name) or [] for name in ("kpromoted_popped", "pghot_records_heap", "t_s"))
    waits: dict[str, float | None] = {"convergence_s": record["result"]["metrics"].get("convergence_s")}
    if len(times) > 2 and popped and popped[-1] > 0 and heap and times[-1] > times[0]:
        pairs = zip(times, times[1:], heap, strict=False)
        area = sum((after - before) * waiting for before, after, waiting in pairs)
        waits["heap_s"] = area / popped[-1]
    interval, sightings = params.get("interval_ms"), params.get("threshold")
    if interval and sightings:
        waits["sightings"], waits["interval_s"] = float(sightings), float(interval) / 1000
    return waits


def _sees(record: Mapping[str, Any]) -> str:
    """What the policy's own file says that its source can see; empty where it is not there any more."""
    try:
        return str(getattr(policy_part(record["spec"]["policy"]["label"]).build(), "sees", ""))
    except KlrubenchError:
        return ""


def whole_s(record: Mapping[str, Any]) -> float:
    """Virtual time of the whole run: until its last tenant is done (`time_s` is the mean over tenants)."""
    tenants = record["result"].get("tenants") or ()
    return float(max((row["time_s"] for row in tenants), default=record["result"]["metrics"]["time_s"]))


def never_idle(record: Mapping[str, Any]) -> str:
    """The busiest kernel thread if it had no rest to speak of, else empty."""
    result = record["result"]
    time_s = whole_s(record)
    busy = {name: result["cpu"].get(name, 0.0) / time_s for name in result["daemon_threads"]}
    name = max(busy, key=lambda each: busy[each], default="")
    return name if name and busy[name] >= BUSY else ""


def _tries(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What could be changed about what held the run back, most telling first: why, and the command that compares."""
    told: set[str] = set()
    for why, change, more in _changes(record, facts):
        command = _compare(record, change, more)
        if command and command not in told:
            told.add(command)
            yield {"why": why, "command": command}
    if not told and record["spec"]["policy"]["facts"].get("contestant", True):
        command = _robust(record)
        if command:
            yield {"why": "does it hold under other costs, latencies, rates and sizes", "command": command}


def _changes(
    record: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    result, params = record["result"], record["spec"]["policy"]["params"]
    metrics, bound, sysctls = result["metrics"], facts["bound"], record["spec"]["machine"]["sysctls"]
    interval, busy = params.get("interval_ms"), never_idle(record)
    if bound.get("hash lists", 0) >= BOUND and params.get("hash") == "posted":
        yield "a hash table with a list a record", {"hash": "sized"}, {}
    if busy and interval:
        yield f"{busy} cannot keep its interval: a longer one", {"interval_ms": 2 * interval}, {}
    if bound.get("kpromoted", 0) >= BOUND and params.get("pghot") == "v2":
        yield "without kpromoted's budget: pghot v3 migrates by kmigrated", {"pghot": "v3"}, {}
    if bound.get("rate limit", 0) >= BOUND and params.get("rate_limit_mb_s"):
        yield "four times the rate limit", {"rate_limit_mb_s": 4 * params["rate_limit_mb_s"]}, {}
    if bound.get("heap full", 0) >= BOUND and params.get("threshold"):
        yield "one sighting more, so that fewer pages compete for the heap", {"threshold": params["threshold"] + 1}, {}
    if bound.get("gate", 0) >= BOUND and params.get("wake_kswapd") == "posted":
        yield "let a refused promotion wake kswapd", {"wake_kswapd": "on"}, {}
    elif bound.get("gate", 0) >= BOUND:
        factor = min(1000, 10 * sysctls["vm.watermark_scale_factor"])
        yield "more room between kswapd's watermarks", {}, {"vm.watermark_scale_factor": str(factor)}
    for name, param in (("IBS ring", "ring"), ("hotlist", "hotlist"), ("hotness counters", "counters")):
        if bound.get(name, 0) >= BOUND and params.get(param):
            yield f"twice the {param}", {param: 2 * params[param]}, {}
    if metrics.get("young_share", 0) >= SATURATED and interval and not busy:
        yield "nearly all pages are young within 2 s: a shorter interval", {"interval_ms": interval / 4}, {}
    if (metrics.get("precision") or 1.0) < 0.6 and params.get("threshold"):
        yield "choose more strictly: one sighting more", {"threshold": params["threshold"] + 1}, {}
    slow_hands = bound.get("kpromoted", 0) >= BOUND or bound.get("heap full", 0) >= BOUND
    if (facts["pages"].get("stayed") or 0) > 0.1 and interval and not busy and not slow_hands:
        yield "look twice as often", {"interval_ms": interval / 2}, {}


def _robust(record: Mapping[str, Any]) -> str:
    try:
        words = work_words(record["spec"])
    except KlrubenchError:
        return ""
    rivals = ["first_touch", record["spec"]["policy"]["label"]]
    both = [word for name in dict.fromkeys(rivals) for word in ("-p", name)]
    return shlex.join(["klrubench", "compare", *both, *words, "--robust"])


def _compare(record: Mapping[str, Any], change: Mapping[str, Any], sysctls: Mapping[str, str]) -> str:
    """A command that compares the run's policy with the change; empty where the change is not possible."""
    spec = record["spec"]
    name, values = parse_spec(spec["policy"]["label"])
    label = ",".join(f"{key}={_plain(value)}" for key, value in {**values, **change}.items())
    changed = f"{name}:{label}" if label else name
    try:
        if policy_part(changed).params == spec["policy"]["params"] and not sysctls:
            return ""
        words = work_words(spec)
    except KlrubenchError:
        return ""
    settings = [word for key, value in sysctls.items() for word in ("--sysctl", f"{key}={value}")]
    both = ["-p", spec["policy"]["label"], *(["-p", changed] if change else [])]
    return shlex.join(["klrubench", "compare", *both, *words, *settings])


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
