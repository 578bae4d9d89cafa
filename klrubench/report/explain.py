"""The facts of a run as sentences: where its time went, and why it is where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from klrubench.report.text import Column, count, fixed, missing, share, significant, table, wrapped

_LABEL = 22
_BOUND = {
    "gate": "of the promotions tried were refused: DRAM's free pages were not above its high watermark",
    "hash lists": "of the time spent recording went into walking pghot's hash lists",
    "heap full": "of the hot pages were turned away by kpromoted's full heap",
    "rate limit": "of the candidates were held back by the promotion rate limit",
    "scan cap": "of the scans were slowed by the 3 % cap on scan time",
    "kscand refused": "of the listed pages were refused by the gate",
    "IBS ring": "of the samples were lost to a full ring",
    "hotlist": "of the hot units were lost to a full hotlist",
    "hotness counters": "of the counted requests found no counter or threw one out",
}
_QUEUE = " queueing"


def explain_text(facts: Mapping[str, Any], width: int) -> str:
    """What `klrubench explain` prints.

    Args:
        facts: what `study.explain.explain` found.
        width: columns of text a line may have.
    """
    record = facts["run"]
    spec = record["spec"]
    lines = [f"{spec['policy']['label']} on {spec['workload']['label']}, seed {spec['seed']} (run {record['id'][:10]})"]
    lines += ["", *_parts_table(facts), ""]
    for label, texts in _sections(facts):
        for text in texts:
            first, *rest = wrapped(text, width - _LABEL)
            lines.append(f"{label:<{_LABEL}}{first}".rstrip())
            lines += [" " * _LABEL + line for line in rest]
            label = ""
    for item in facts["tries"][:3]:
        lines += [f"{'try' if item is facts['tries'][0] else '':<{_LABEL}}{item['why']}:"]
        lines += [" " * _LABEL + line for line in wrapped(item["command"], max(40, width - _LABEL), "  ")]
    lines += [f"{'repeat':<{_LABEL}}" + ("\n" + " " * _LABEL).join(wrapped(facts["repeat"], width - _LABEL, "  "))]
    return "\n".join(lines)


def _part_name(part: str, nodes: Sequence[str]) -> str:
    if part in nodes:
        return f"{part}, idle latency"
    if part.endswith(_QUEUE) and part.removesuffix(_QUEUE) in nodes:
        return f"{part.removesuffix(_QUEUE)}, queueing under load"
    return {"cpu cache": "CPU cache hits", "arrivals": "waiting for arrivals", "tlb flushes": "TLB flushes"}.get(
        part, part
    )


def _parts_table(facts: Mapping[str, Any]) -> list[str]:
    nodes = [node["name"] for node in facts["run"]["spec"]["machine"]["nodes"]]
    rows = [row for row in facts["parts"] if abs(row["s"]) >= 5e-5 or abs(row["baseline_s"]) >= 5e-5]
    own, base = (facts[name]["result"]["metrics"]["time_s"] for name in ("run", "baseline"))
    names = [*(_part_name(row["part"], nodes) for row in rows), "total"]
    return table(
        [
            Column(("where the time went",), names, left=True, gap=0),
            Column(("s",), [fixed(v, 2) for v in (*(row["s"] for row in rows), own)], gap=2),
            Column(("all-DRAM, s",), [fixed(v, 2) for v in (*(row["baseline_s"] for row in rows), base)], gap=2),
            Column(
                ("slowdown, %",), [fixed(v, 2) for v in (*(row["pct"] for row in rows), facts["slowdown_pct"])], gap=2
            ),
        ]
    )


def _sections(facts: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for label, texts in (
        ("in short", _short(facts)), ("where misses went", _misses(facts)), ("waited for", _waits(facts)),
        ("promoted", _promoted(facts)), ("what it cost", _cost(facts)), ("not seen", _unseen(facts)),
        ("bound by", _bound(facts)),
    ):  # fmt: skip
        if texts:
            yield label, texts


def _short(facts: Mapping[str, Any]) -> list[str]:
    nodes = [node["name"] for node in facts["run"]["spec"]["machine"]["nodes"]]
    sums = {"slower memory": 0.0, "queueing": 0.0}
    for row in facts["parts"]:
        name = row["part"]
        if name in nodes:
            sums["slower memory"] += row["pct"]
        elif name.endswith(_QUEUE):
            sums["queueing"] += row["pct"]
        else:
            key = _part_name(name, nodes)
            sums[key] = sums.get(key, 0.0) + row["pct"]
    told = [f"{fixed(value, 2)} {name}" for name, value in sums.items() if abs(value) >= 0.005]
    texts = [f"{fixed(facts['slowdown_pct'], 2)} % slower than all-DRAM" + (f" = {' + '.join(told)}" if told else "")]
    if len(facts["run"]["result"].get("tenants") or ()) > 1:
        texts.append("times are means over the tenants")
    if facts["charged_pct"] - facts["slowdown_pct"] >= 0.005:
        texts.append(f"{fixed(facts['charged_pct'], 2)} % with the kernel threads' CPU time charged to the application")
    for name, what in (("oracle_static", "of it no static placement avoids"), ("first_touch", "without any migration")):
        if name in facts["bounds"]:
            texts.append(f"{fixed(facts['bounds'][name], 2)} % {what} ({name})")
    return texts


def _misses(facts: Mapping[str, Any]) -> list[str]:
    pages, metrics = facts["pages"], facts["run"]["result"]["metrics"]
    texts = [f"DRAM served {share(metrics['dram_hit_share'], 1)} % of the misses, {_steady(metrics)} in the last half"]
    if pages:
        texts.append(
            f"{share(pages['best'], 1)} % of the misses go to pages worth DRAM (as many of the most touched of the "
            f"next {3 * pages['window_s']:g} s as fit): {share(pages['held'], 1)} to pages that were there already, "
            f"{share(pages['came'], 1)} to pages promoted in that window of {pages['window_s']:g} s, "
            f"{share(pages['lost'], 1)} to pages demoted in it, {share(pages['stayed'], 1)} to pages that stayed below"
        )
    return texts


def _steady(metrics: Mapping[str, Any]) -> str:
    return f"{share(metrics.get('steady_dram_hit_share'), 1)} %"


def _moves(facts: Mapping[str, Any]) -> bool:
    return bool(facts["run"]["result"]["metrics"].get("promoted_pages"))


def _waits(facts: Mapping[str, Any]) -> list[str]:
    waits, texts = facts["waits"], []
    if not _moves(facts):
        return []
    if waits.get("sightings"):
        least = (waits["sightings"] - 1) * waits["interval_s"]
        texts.append(
            f"{waits['sightings']:g} sightings at least {waits['interval_s']:g} s apart: {least:g} s from the first on"
            if least
            else "one sighting is enough"
        )
    if not missing(waits.get("heap_s")) and waits["heap_s"] >= 0.005:
        texts.append(
            f"kpromoted's heap: {significant(waits['heap_s'])} s in the mean (records waiting / taken a second)"
        )
    converged = waits.get("convergence_s")
    texts.append(
        "DRAM's share of the misses has not settled by the end"
        if missing(converged)
        else f"DRAM's share of the misses had settled (95 % of that of the last half) after {fixed(converged)} s"
    )
    return texts


def _promoted(facts: Mapping[str, Any]) -> list[str]:
    metrics, pages = facts["run"]["result"]["metrics"], facts["pages"]
    if not _moves(facts):
        return ["nothing was promoted"]
    texts = [
        f"{count(metrics['promoted_pages'])} pages ({significant(metrics['promoted_mib_s'], 3)} MiB/s); demoted "
        f"{count(metrics['demoted_pages'])} ({significant(metrics['demoted_mib_s'], 3)} MiB/s)"
    ]
    if not missing(metrics.get("precision")):
        texts.append(f"{share(1 - metrics['precision'])} % in vain: not among the pages worth DRAM at that time")
    if pages.get("entered_pages"):
        texts.append(
            f"of those still in DRAM at the end of their window of {pages['window_s']:g} s, "
            f"{share(pages['untouched'], 1)} % were not touched in the next, {share(pages['below_median'], 1)} % less "
            f"than the median page, and {share(pages['gone'], 1)} % were demoted in it"
        )
    if not missing(metrics.get("promoted_again_share")):
        texts.append(f"{share(metrics['promoted_again_share'], 1)} % had been demoted less than 60 s before")
    return texts


def _cost(facts: Mapping[str, Any]) -> list[str]:
    from klrubench.study.explain import never_idle, whole_s

    result = facts["run"]["result"]
    time_s, threads = whole_s(facts["run"]), set(result["daemon_threads"])
    told = [
        f"{name} {fixed(100 * spent / time_s, 1)}{'' if name in threads else ' (in the application)'}"
        for name, spent in sorted(result["cpu"].items(), key=lambda item: -item[1])
        if spent / time_s >= 0.0005
    ]
    texts = [f"% of a core: {', '.join(told)}"] if told else []
    busy = never_idle(facts["run"])
    if busy:
        texts.append(f"{busy} had no rest: what it does takes longer than the time it has")
    events = [
        f"{count(result['vmstat'][name])} {words}"
        for name, words in (
            ("ptescan_slots", "PTEs walked"), ("pghot_recorded_accesses", "records made"),
            ("numa_pte_updates", "PTEs marked"), ("numa_hint_faults", "hint faults"), ("idle_checked", "pages sampled"),
        )
        if result["vmstat"].get(name)
    ]  # fmt: skip
    return texts + ([", ".join(events)] if events else [])


def _unseen(facts: Mapping[str, Any]) -> list[str]:
    result, pages, params = facts["run"]["result"], facts["pages"], facts["run"]["spec"]["policy"]["params"]
    texts = [f"its source sees {facts['sees']}"] if facts.get("sees") and _moves(facts) else []
    if not missing(pages.get("never")):
        texts.append(
            f"of the pages worth DRAM at the end, {share(pages['never'])} % were in DRAM at no look of the run, one "
            f"every {pages['window_s']:g} s; "
            f"{share(result['metrics'].get('recall'))} % are there now"
        )
    if params.get("trylock_miss"):
        texts.append(f"each try-lock of the walk misses with probability {params['trylock_miss']:g} (as asked)")
    lost = {
        "pghot_heap_full": "hot pages turned away by a full heap",
        "kpromoted_dropped": "records dropped by kpromoted",
        "kmigrated_dropped": "records dropped by kmigrated",
    }
    texts += [f"{count(result['vmstat'][name])} {words}" for name, words in lost.items() if result["vmstat"].get(name)]
    if _moves(facts):
        texts.append(f"{share(result['metrics']['young_share'])} % of the pages are young within 2 s")
    return texts


def _bound(facts: Mapping[str, Any]) -> list[str]:
    texts = []
    for name, part in facts["bound"].items():
        if part >= 0.005:
            texts.append(f"{name}: {share(part)} % {_bound_words(name, facts)}")
    return texts


def _bound_words(name: str, facts: Mapping[str, Any]) -> str:
    sweeping = name == "kpromoted" and facts["run"]["spec"]["policy"]["params"].get("pghot") == "v0"
    if name.startswith("kpromoted") and not sweeping:
        return "of its wake-ups had a full batch"
    if sweeping or name.startswith("kmigrated"):
        return "of the run at work"
    if name.startswith("quota"):
        return "of the scheme's applications ended because its quota was used up"
    return _BOUND.get(name, "")
