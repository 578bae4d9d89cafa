"""The wide table of one workload: what each policy gained beside what it cost, one line a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from klrubench.report.footnotes import Footnotes
from klrubench.report.heads import name_words, spoken
from klrubench.report.tenants import LEGEND, tenant_columns
from klrubench.report.text import Column, blocks, fixed, half, keyed, missing, points, share, size, tenths, wrapped

CPU = "% of a core"
OWN = "own"
SLOWDOWN = "slowdown against all-DRAM, %|slowdown, %|slow %"
_LEGEND = {
    "charged_pct": "charged: kernel threads' CPU time spread over the application's CPUs",
    "gap_closed": "gap: share closed of the gap from first_touch to the oracle",
    "dram_hit_share": "hit %: of the misses of the CPU cache",
    "op_p99_ratio": "p99: of an operation, x all-DRAM",
    "convergence_s": "conv: s to 95 % of the steady DRAM hit share",
    "bound": "bound by: what held it back, % of the run",
    "promoted_again_share": "again: promoted < 60 s after demotion",
    "precision": "prec: promoted pages that are among the best for DRAM afterwards; rec: share of those promoted",
    "cpu_pct": "own: the kernel thread named like the policy; application: what its own threads pay",
    **LEGEND,
}


def wide_lines(rows: Sequence[Mapping[str, Any]], notes: Footnotes, width: int, colour: bool = False) -> list[str]:
    """Tables with one line a policy, benefit, cost and (if several) tenants,
    each cut into blocks where `width` is short.

    Args:
        rows: one mapping a policy: `policy`, `policy_role`, the columns named in `_benefit` and `_cost` (any may be
            missing), `cpu_pct` (% of a core by thread or kind of stall), `daemon_threads`, `bound` (shares by name),
            `tenants` (rows by memcg), `jain`, `least_most`.
        notes: where short names are spelled out.
        width: columns of text a line may have.
        colour: whether the least slowdown of a contestant is set in bold.
    """
    short, key = _labels([str(row["policy"]) for row in rows], 20)
    label = Column(("policy",), [short[str(row["policy"])] for row in rows], left=True, gap=0)
    lines: list[str] = []
    for middle in (_benefit(rows), _cost(rows), tenant_columns(rows)):
        for part in blocks([label], middle, [], width, colour) if middle else []:
            lines += ([""] if lines else []) + part
    notes.spell_out(key)
    return lines


def legend(rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """What the columns mean that these rows have."""
    shown = [text for name, text in _LEGEND.items() if any(not missing(row.get(name)) for row in rows)]
    return wrapped("; ".join(shown), width, "  ") if shown else []


def _labels(labels: Sequence[str], most: int) -> tuple[dict[str, str], list[str]]:
    """Labels in at most `most` characters, and the key of those that had to be cut."""
    short = {label: label if len(label) <= most else spoken(label, most=most) for label in labels}
    if len(set(short.values())) < len(short):
        return keyed(labels, most)
    return short, [f"{text}: {label}" for label, text in short.items() if text != label]


def _number(rows: Sequence[Mapping[str, Any]], name: str, show: Any, *head: str, **about: Any) -> list[Column]:
    return [Column(head, [show(row.get(name)) for row in rows], **about)]


def _interval(rows: Sequence[Mapping[str, Any]], name: str, head: str, half_name: str) -> list[Column]:
    columns = _number(rows, name, points, head, strong=_least(rows, name), group=SLOWDOWN)
    if any(not missing(row.get(half_name)) for row in rows):
        columns.append(Column(("+-",), [half(row.get(half_name)) for row in rows], left=True, group=SLOWDOWN))
    return columns


def _least(rows: Sequence[Mapping[str, Any]], name: str) -> frozenset[int]:
    """The contestants with the least value of a column."""
    numbers = {
        number: row[name]
        for number, row in enumerate(rows)
        if row.get("policy_role", "policy") == "policy" and not missing(row.get(name))
    }
    return frozenset(number for number, value in numbers.items() if value == min(numbers.values()))


def _benefit(rows: Sequence[Mapping[str, Any]]) -> list[list[Column]]:
    groups = [
        _interval(rows, "slowdown_pct", "run", "half_pct"),
        _interval(rows, "steady_pct", "steady", "steady_half_pct"),
        _interval(rows, "charged_pct", "charged", "charged_half_pct"),
        _number(rows, "gap_closed", share, "gap", "%"),
        _number(rows, "dram_hit_share", lambda value: share(value, 1), "DRAM", "hit %"),
        _number(rows, "op_p99_ratio", lambda value: fixed(value, 2), "op p99", "x"),
        _number([_moving(row) for row in rows], "convergence_s", fixed, "conv", "s"),
        [Column(("bound by",), [bound_text(row.get("bound")) for row in rows], left=True, gap=2)],
    ]
    return [group for group in groups if _says(group)]


def _moving(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row, without a time of convergence where nothing was moved."""
    return row if row.get("promoted_mib_s") or row.get("demoted_mib_s") else {**row, "convergence_s": None}


def _says(group: Sequence[Column]) -> bool:
    return any(cell.strip(" -") for cell in group[0].cells)


def bound_text(bound: Mapping[str, float] | None, most: int = 24) -> str:
    """What held a policy back for at least half a percent of the run, largest first: `kpromoted 98, gate 3`."""
    found = sorted((bound or {}).items(), key=lambda item: (-item[1], item[0]))
    text = ""
    for name, part in found:
        longer = f"{text}, {name} {100 * part:.0f}" if text else f"{name} {100 * part:.0f}"
        if part < 0.005 or (text and len(longer) > most):
            break
        text = longer
    return text


def _cost(rows: Sequence[Mapping[str, Any]]) -> list[list[Column]]:
    groups = [
        _number(rows, "promoted_mib_s", tenths, "promo", "MiB/s"),
        _number(rows, "demoted_mib_s", tenths, "demo", "MiB/s"),
        _number(rows, "promoted_again_share", share, "again", "%"),
        _number(rows, "precision", share, "prec", "%"),
        _number(rows, "recall", share, "rec", "%"),
        *_cpu(rows),
        _number(rows, "metadata_bytes", size, "metadata"),
    ]
    return [group for group in groups if _says(group)]


def _cpu(rows: Sequence[Mapping[str, Any]]) -> list[list[Column]]:
    """A column for each kernel thread, then one for each cost in the application; idle ones are left out.

    The threads that are named like their policies share the column `own`.
    """
    shares = [
        {_thread_name(row, name): percent for name, percent in (row.get("cpu_pct") or {}).items()} for row in rows
    ]
    kernel = {_thread_name(row, name) for row in rows for name in row.get("daemon_threads") or ()}
    busy = dict.fromkeys(name for share in shares for name, percent in share.items() if percent >= 0.005)
    order = sorted(busy, key=lambda name: (name not in kernel, name != OWN))
    return [
        [Column(name_words(name, width=7), [_percent(own.get(name)) for own in shares], group=_title(name in kernel))]
        for name in order
    ]


def _thread_name(row: Mapping[str, Any], name: str) -> str:
    return OWN if name == str(row["policy"]).partition(":")[0] else name


def _title(kernel: bool) -> str:
    return f"kernel threads, {CPU}|kernel threads|kernel" if kernel else f"application, {CPU}|application|app"


def _percent(value: float | None) -> str:
    return "0" if value == 0 else tenths(value)
