"""Two sets of results, run by run: paired by what was asked, whatever code computed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from klrubench.errors import UsageError
from klrubench.study.again import SAME
from klrubench.study.statistics import EQUAL_POINTS, estimate
from klrubench.study.store import Store
from klrubench.study.table import ratio_text

ASKED = (*SAME, "policy")
"""Components that two runs must share to be a pair; the others are code, or the form of a result."""

LOOSE = ("machine", "options", "workload content")
"""Components that may differ in a second try, if names, ratio, seed and work are the same."""

Record = dict[str, Any]


def versions(store: Store) -> dict[str, list[Record]]:
    """The stored runs by the code that computed them: a short hash of all code components, newest code last."""
    from klrubench.study.identity import canonical, digest

    found: dict[str, list[Record]] = {}
    for record in store.scan():
        parts = record["spec"]["components"]
        # a plug-in's own code is left out: every policy has another
        code = {name: value for name, value in parts.items() if _framework(name)}
        found.setdefault(digest(canonical(code))[:10], []).append(record)
    return dict(sorted(found.items(), key=lambda item: max(str(r["manifest"].get("created", "")) for r in item[1])))


def _framework(name: str) -> bool:
    return name == "result schema" or (name.endswith(" code") and name not in ("policy code", "workload code"))


def difference(ours: list[Record], theirs: list[Record]) -> dict[str, Any]:
    """What became of each run of `ours` in `theirs`.

    Returns:
        `rows`: one a (workload, policy, machine, ratio): seeds paired, change of `time_s` in % (B over A) with the ends
        of its 95 % interval (None with one seed), change of the charged time, change of DRAM's hit share in points,
        `same` (pairs with equal results to the last digit), `word`: `same`, `equal` (surely inside +-1 %), `slower`,
        `faster` or `n.s.`;
        `components`: how many pairs differ in each component; `only_a`, `only_b`: titles of runs without a twin;
        `details`: what differs in machine and options, `name: a -> b`; `strict`: whether all pairs agree in all that
        was asked.

    Raises:
        UsageError: there is not a single pair.
    """
    pairs, only_a, only_b = _pairs(ours, theirs)
    if not pairs:
        raise UsageError("the two have no run in common (same policy, workload, seed, duration and scale)")
    groups: dict[tuple[str, ...], list[tuple[Record, Record]]] = {}
    for a, b in pairs:
        groups.setdefault(_setting(a), []).append((a, b))
    changed = Counter(name for a, b in pairs for name in _changed(a, b))
    return {
        "pairs": len(pairs),
        "rows": [_row(key, sorted(each, key=lambda pair: pair[0]["spec"]["seed"])) for key, each in groups.items()],
        "components": dict(changed.most_common()),
        "details": sorted({line for a, b in pairs for line in _details(a, b)}),
        "commits": [sorted({_commit(record) for record in side}) for side in zip(*pairs, strict=True)],
        "only_a": sorted(map(title, only_a)),
        "only_b": sorted(map(title, only_b)),
        "strict": not any(name in changed for name in ASKED),
    }


def title(record: Mapping[str, Any]) -> str:
    """How a line names a stored run."""
    spec = record["spec"]
    return f"{spec['workload']['label']}/{spec['policy']['label']} seed {spec['seed']} ({record['id'][:10]})"


def _pairs(ours: list[Record], theirs: list[Record]) -> tuple[list[tuple[Record, Record]], list[Record], list[Record]]:
    """By all that was asked; the rest by names, where only machine or options are others. The newest of equals wins."""
    left, right, pairs = list(ours), list(theirs), []
    for names in (ASKED, tuple(name for name in ASKED if name not in LOOSE)):
        index = {_key(record, names): record for record in sorted(right, key=_created)}
        mine = {_key(record, names): record for record in sorted(left, key=_created)}
        found = [(record, index[key]) for key, record in mine.items() if key in index]
        pairs += found
        keys = {_key(a, names) for a, _ in found}
        left = [record for record in left if _key(record, names) not in keys]
        right = [record for record in right if _key(record, names) not in keys]
    return pairs, left, right


def _created(record: Record) -> str:
    return str(record["manifest"].get("created", ""))


def _key(record: Record, names: tuple[str, ...]) -> tuple[str, ...]:
    parts = record["spec"]["components"]
    return (*_setting(record), *(str(parts.get(name)) for name in names))


def _setting(record: Record) -> tuple[str, ...]:
    spec = record["spec"]
    machine = spec["machine"]
    return spec["workload"]["label"], spec["policy"]["label"], machine["name"], ratio_text(machine["ratio"])


def _changed(a: Record, b: Record) -> list[str]:
    one, other = a["spec"]["components"], b["spec"]["components"]
    return [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]


def _details(a: Record, b: Record) -> Iterator[str]:
    for part in ("machine", "options"):
        yield from _walk(part, a["spec"][part], b["spec"][part])


def _walk(path: str, a: Any, b: Any) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys((*a, *b)):
            yield from _walk(f"{path}.{name}", a.get(name), b.get(name))
    elif a != b and not path.endswith(".chunk"):
        yield f"{path}: {a} -> {b}"


def _commit(record: Record) -> str:
    commit = record["manifest"].get("commit") or {}
    version = record["manifest"].get("versions", {}).get("klrubench", "")
    name = str(commit.get("id", ""))[:12] or f"version {version}"
    return f"{name}{' and changes' if commit.get('dirty') else ''}"


def _row(key: tuple[str, ...], pairs: list[tuple[Record, Record]]) -> dict[str, Any]:
    from klrubench.study.statistics import log_ratios

    def column(side: int, name: str) -> list[float]:
        return [pair[side]["result"]["metrics"][name] for pair in pairs]

    time = estimate(log_ratios(column(1, "time_s"), column(0, "time_s")))
    charged = estimate(log_ratios(column(1, "charged_time_s"), column(0, "charged_time_s")))
    hits = [b - a for a, b in zip(column(0, "dram_hit_share"), column(1, "dram_hit_share"), strict=True)]
    same = sum(a["result"] == b["result"] for a, b in pairs)
    found = dict(zip(("workload", "policy", "machine", "ratio"), key, strict=True))
    return {
        **found,
        "seeds": len(pairs),
        "time_pct": time.pct,
        "low_pct": time.low_pct,
        "high_pct": time.high_pct,
        "charged_pct": charged.pct,
        "hit_points": 100 * sum(hits) / len(hits),
        "same": same,
        "word": _word(same == len(pairs), time.low_pct, time.high_pct, time.pct),
    }


def _word(same: bool, low: float | None, high: float | None, middle: float) -> str:
    if same:
        return "same"
    if low is None or high is None:
        return "one seed"
    if low >= -EQUAL_POINTS and high <= EQUAL_POINTS:
        return "equal"
    if low > 0 or high < 0:
        return "slower" if middle > 0 else "faster"
    return "n.s."
