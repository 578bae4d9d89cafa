"""The matrix: workloads down, policies across, slowdown against all-DRAM; who is best, and whether that is sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from klrubench.report.footnotes import EQUAL, FEW, GAP, SATURATED, VERDICT, YOUNG, Footnotes
from klrubench.report.heads import heads, spoken
from klrubench.report.text import Column, blocks, half, keyed, points, share, significant, wrapped

STAKE_POINTS = 2.0
"""Where the whole footprint on the lower tier costs less than this many points, no policy can win much."""

MARKS = ("**", "*", "exact")


@dataclass(frozen=True)
class Cell:
    """A slowdown in % and half of its 95 % interval (None: no number, no interval)."""

    value: float | None = None
    half: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The best contestant of a row and how sure that is.

    Attributes:
        best: its label; empty where there is none.
        word: `**`, `*`, `n.s.`, `equal`, `exact`, `too few seeds`, or `alone` (nothing to compare with).
        equal_to: labels of those that cannot be told from the best by a point.
    """

    best: str = ""
    word: str = ""
    equal_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the matrix.

    Attributes:
        label: the workload (or the point on an axis).
        cells: slowdown of each policy.
        verdict: the best.
        rate: touches a page and second on all-DRAM.
        young: share of pages touched within 2 s.
        note: what a footnote says about this row only.
        meaning: what the row means, in place of the verdict (rates axis).
    """

    label: str
    cells: Mapping[str, Cell]
    verdict: Verdict = Verdict()
    rate: float | None = None
    young: float | None = None
    note: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Matrix:
    """A whole matrix.

    Attributes:
        title: what the numbers are.
        policies: labels in column order.
        plain: policies shown without their interval (the bounds).
        minor: policies that may move to a second block first (controls).
        rows: workloads, then any overall row.
        text_rows: label and text a policy, set below (share of the gap closed).
        tiers: names of the top and the lower tier.
        axis: head of the label column, a line each.
        last: head of the last column.
    """

    title: str
    policies: Sequence[str]
    rows: Sequence[Row]
    plain: frozenset[str] = frozenset()
    minor: frozenset[str] = frozenset()
    text_rows: Sequence[tuple[str, Mapping[str, str]]] = ()
    tiers: Sequence[str] = ("DRAM", "CXL")
    axis: tuple[str, ...] = ("workload",)
    last: str = "best"


def matrix_lines(matrix: Matrix, notes: Footnotes, width: int, colour: bool = False) -> list[str]:
    """The matrix as lines of at most `width` columns; what needs a footnote is put into `notes`.

    The first block can stand alone: contestants between first touch and the static oracle, with the verdict. What does
    not fit beside them follows in blocks of its own.
    """
    short, long_names = keyed([row.label for row in matrix.rows], 26)
    heads_of, key = heads(matrix.policies, matrix.tiers)
    first = _left(matrix, short, notes)
    last = _right(matrix, notes)
    groups = {policy: _pair(matrix, policy, heads_of[policy]) for policy in matrix.policies}
    room = width - sum(column.space for column in (*first, *last))
    main = _main(matrix, {policy: sum(column.space for column in group) for policy, group in groups.items()}, room)
    rest = [group for policy, group in groups.items() if policy not in main]
    parts = blocks(first, [group for policy, group in groups.items() if policy in main], last, width, colour)
    parts += blocks(first[:1], rest, [], width, colour) if rest else []
    lines = [line for number, part in enumerate(parts) for line in (([""] if number else []) + part)]
    notes.spell_out([*long_names, *key])
    return [*wrapped(matrix.title, width), *lines]


def _main(matrix: Matrix, sizes: Mapping[str, int], room: int) -> set[str]:
    """The policies of the first block: the bounds that frame a contestant, then as many others as fit, in order.

    All of them where that leaves room for one contestant only: then every block shares the space evenly.
    """
    frame = [policy for policy in ("first_touch", "oracle_static", "all_lower") if policy in sizes]
    others = [policy for policy in sizes if policy not in frame]
    contestants = [policy for policy in others if policy not in matrix.plain and policy not in matrix.minor]
    chosen: set[str] = set()
    for policy in dict.fromkeys([*frame, *contestants, *matrix.minor, *others]):
        if policy not in sizes or (sizes[policy] > room and policy in frame):
            continue
        if sizes[policy] > room:
            break
        chosen.add(policy)
        room -= sizes[policy]
    return chosen if len(chosen.intersection(contestants)) >= min(2, len(contestants)) else set(sizes)


def _left(matrix: Matrix, short: Mapping[str, str], notes: Footnotes) -> list[Column]:
    labels = [f"{short[row.label]} {notes.mark(row.note)}" if row.note else short[row.label] for row in matrix.rows]
    labels += [label for label, _ in matrix.text_rows]
    columns = [Column(matrix.axis, labels, left=True, gap=0)]
    if any(row.rate is not None for row in matrix.rows):
        columns.append(Column(("touch/", "page/s"), [_blank(significant(row.rate)) for row in matrix.rows]))
    if any(row.young is not None for row in matrix.rows):
        mark = notes.mark(YOUNG)
        columns.append(Column(("young", f"% {mark}"), [_blank(share(row.young)) for row in matrix.rows]))
    return columns


def _blank(text: str) -> str:
    return "" if text == "-" else text


def _pair(matrix: Matrix, policy: str, head: tuple[str, ...]) -> list[Column]:
    cells = [row.cells.get(policy, Cell()) for row in matrix.rows]
    texts = [dict(values).get(policy, "") for _, values in matrix.text_rows]
    best = frozenset(number for number, row in enumerate(matrix.rows) if row.verdict.best == policy)
    value = Column(head, [points(cell.value) for cell in cells] + texts, strong=best)
    if policy in matrix.plain or not any(half(cell.half) for cell in cells):
        return [value]
    return [value, Column(("+-",), [half(cell.half) for cell in cells], left=True)]


def _right(matrix: Matrix, notes: Footnotes) -> list[Column]:
    if not any(row.meaning or row.verdict.best for row in matrix.rows):
        return []
    stars = any(row.verdict.word in MARKS for row in matrix.rows)
    head = f"{matrix.last} {notes.mark(VERDICT)}" if stars else matrix.last
    texts = [row.meaning or verdict_text(row.verdict, notes, matrix.tiers) for row in matrix.rows]
    return [Column((head,), texts, left=True, gap=2)]


def verdict_text(verdict: Verdict, notes: Footnotes, tiers: Sequence[str] = ("DRAM", "CXL")) -> str:
    """The verdict as the last column has it: `klruscand **`, `equal [d]`, or the name alone."""
    if not verdict.best:
        return ""
    if verdict.word == "equal" and verdict.equal_to:
        return f"equal {notes.mark(EQUAL + _equals(verdict, tiers))}"
    word = {"alone": "", "too few seeds": notes.mark(FEW) if verdict.word == "too few seeds" else ""}
    return f"{spoken(verdict.best, tiers)} {word.get(verdict.word, verdict.word)}".rstrip()


def _equals(verdict: Verdict, tiers: Sequence[str]) -> str:
    return ", ".join(spoken(label, tiers, 40) for label in (verdict.best, *verdict.equal_to))


def meaning(row: Row, lower: str, notes: Footnotes, tiers: Sequence[str] = ("DRAM", "CXL")) -> str:
    """What a point of the rates axis means, in words: `klruscand **`, `equal: nothing at stake`, `...; saturated`.

    Args:
        row: the point.
        lower: label of the policy that keeps everything on the lower tier: what is at stake.
        notes: where the names of equals are put.
        tiers: names of the top and the lower tier.
    """
    stake = row.cells.get(lower, Cell()).value
    if stake is not None and stake < STAKE_POINTS and row.verdict.word in ("equal", "n.s.", "too few seeds"):
        return "equal: nothing at stake"
    said = verdict_text(row.verdict, notes, tiers)
    if stake is not None and stake < STAKE_POINTS:
        return f"{said}, little at stake"
    return f"{said}: saturated" if row.young is not None and row.young > SATURATED else said


def gap_rows(shares: Mapping[str, Sequence[float | None]], notes: Footnotes) -> list[tuple[str, Mapping[str, str]]]:
    """Rows with the median over workloads of the share of the gap closed, and the worst.

    Args:
        shares: shares 0..1 a policy, None where the gap is too small.
        notes: where the definition is put.
    """
    known = {policy: [value for value in values if value is not None] for policy, values in shares.items()}
    if not any(known.values()):
        return []
    middle = {policy: share(median(values)) if values else "-" for policy, values in known.items()}
    worst = {policy: share(min(values)) if values else "-" for policy, values in known.items()}
    return [("gap closed %", middle), (f"  worst {notes.mark(GAP)}", worst)]
