"""Tables that others have published, held against klrubench: the order of the systems and the sign of each difference,
no more.

None of the posts says enough to be run again (latencies, the program's own work, often the limits). What is not said is
taken from a preset or named in the table's set-up. No constant is fitted: where the shape does not come out, the table
says by how much, and why as far as that is known. The set-ups themselves are in published_tables.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from klrubench.errors import UnknownNameError

TIE = 0.02
"""Published differences under 2 % (means of three runs at best) are no claim."""
EQUAL = 0.005
"""Simulated differences under 0.5 % are none."""
Found = dict[str, float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Column:
    """One published quantity.

    Attributes:
        name: by which systems and findings hold it.
        ordered: whether the order of the systems by it is a claim; else each number is one, within 1 %.
        digits: places behind the point when printed.
    """

    name: str
    ordered: bool = True
    digits: int = 1


@dataclass(frozen=True)
class Entry:
    """One system of a published table.

    Attributes:
        label: as published.
        policy: what stands for it here, as typed; empty where nothing does.
        published: its numbers, by column.
        why: what is known to be missing here, for claims that come out otherwise.
    """

    label: str
    policy: str
    published: dict[str, float]
    why: str = ""


@dataclass(frozen=True)
class Published:
    """A table.

    Attributes:
        setup: what was published of the set-up; `assumed`: what was not, and is taken here.
        run: simulates every entry; its numbers by column, none where nothing stands for it.
    """

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    setup: str
    assumed: str
    entries: tuple[Entry, ...]
    run: Callable[[Published, Say], list[Found]]


@dataclass(frozen=True)
class Claim:
    """A difference that was published, and what becomes of it here.

    Attributes:
        text: `A < B (time s)`, or whose number it is.
        published, simulated: the difference as a share of the larger side, or the numbers; None: not simulated.
        agrees: the same sign, or the same number within 1 %; None: nothing here stands for one of them.
    """

    text: str
    published: float
    simulated: float | None
    agrees: bool | None
    is_order: bool
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """A table with what klrubench has found."""

    table: Published
    found: list[Found]
    claims: list[Claim] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        table = self.table
        rows = [
            {"system": each.label, "policy": each.policy, "published": each.published, "simulated": found}
            for each, found in zip(table.entries, self.found, strict=True)
        ]
        words = {name: getattr(table, name) for name in ("name", "title", "source", "setup", "assumed")}
        return {**words, "rows": rows, "claims": [vars(claim) for claim in self.claims]}


def tables() -> dict[str, Published]:
    """Every table by its name."""
    from klrubench.validation.published_tables import TABLES

    return {table.name: table for table in TABLES}


def select_tables(only: Sequence[str] = ()) -> list[str]:
    """Names of the tables asked for, all for none.

    Raises:
        UnknownNameError: no such table.
    """
    known = tables()
    for name in only:
        if name not in known:
            raise UnknownNameError("published table", name, known)
    return [name for name in known if not only or name in only]


def run_table(name: str, say: Say = lambda line: None) -> Outcome:
    """Simulate a table's entries and judge its claims."""
    table = tables()[name]
    return judge(table, table.run(table, say))


def judge(table: Published, found: list[Found]) -> Outcome:
    """The claims of a table, held against what was found."""
    claims: list[Claim] = []
    for column in table.columns:
        claims += (
            order_claims(table, column.name, found) if column.ordered else number_claims(table, column.name, found)
        )
    return Outcome(table, found, claims)


def order_claims(table: Published, column: str, found: list[Found]) -> list[Claim]:
    """Every pair of systems whose published numbers are further apart than a tie: which is less."""
    known = [(each, own) for each, own in zip(table.entries, found, strict=True) if column in each.published]
    known.sort(key=lambda pair: pair[0].published[column])
    claims = []
    for (low, ours), (high, theirs) in combinations(known, 2):
        apart = low.published[column] / high.published[column] - 1
        if -apart <= TIE:
            continue
        mine = ours[column] / theirs[column] - 1 if column in ours and theirs.get(column) else None
        agrees = None if mine is None else mine < -EQUAL
        claims.append(
            Claim(
                f"{low.label} < {high.label} ({column})",
                apart,
                mine,
                agrees,
                True,
                "" if agrees else reason(low, high),
            )
        )
    return claims


def reason(low: Entry, high: Entry) -> str:
    """Why a claim on two systems does not come out: first of the one that nothing stands for."""
    return next((each.why for each in (low, high) if not each.policy), "") or low.why or high.why


def number_claims(table: Published, column: str, found: list[Found]) -> list[Claim]:
    """Published numbers that should come out as they are: within 1 %, or none on both sides."""
    claims = []
    for each, own in zip(table.entries, found, strict=True):
        if column in each.published:
            published, mine = each.published[column], own.get(column)
            agrees = None if mine is None else abs(mine - published) <= 0.01 * published
            claims.append(Claim(f"{each.label}: {column}", published, mine, agrees, False, "" if agrees else each.why))
    return claims


# --- running ----------------------------------------------------------------------------------------------------------


def simulated(policy: Any, workload: Any, machine: Any, duration_s: float, fold: int) -> Any:
    """One run in this process, by names as typed or by objects; None where no such policy comes along."""
    from klrubench.simulate import simulate
    from klrubench.study.spec import policy_part, workload_part

    try:
        chosen = policy_part(policy).build() if isinstance(policy, str) else policy
    except UnknownNameError:
        return None
    program = workload_part(workload).build() if isinstance(workload, str) else workload
    return simulate(machine, program, chosen, 1, duration_s=duration_s, fold=fold)


def roomy(dram_gib: float, cxl_gib: float, preset: str = "cxl-asic") -> Any:
    """A preset whose nodes have these sizes."""
    from dataclasses import replace

    from klrubench.machine import load_machine

    machine = load_machine(preset)
    sizes = (dram_gib, cxl_gib)
    nodes = tuple(replace(node, capacity_gib=size) for node, size in zip(machine.nodes, sizes, strict=True))
    return replace(machine, nodes=nodes, ratio=())


def duration_for(seconds: float, policy: str, workload: str, machine: Any, fold: int) -> float:
    """How much work (s on all-DRAM) lets a policy take that many seconds: two steps from a first guess."""
    duration = seconds / 2
    for _ in range(2):
        duration *= seconds / simulated(policy, workload, machine, duration, fold).metrics["time_s"]
    return float(duration)


def fixed_work(
    workload: str, machine: Callable[[], Any], fold: int, first: str
) -> Callable[[Published, Say], list[Found]]:
    """The run of a table of times: all do the work that entry `first` (its label) does in its published time."""

    def run(table: Published, say: Say) -> list[Found]:
        base = next(each for each in table.entries if each.label == first)
        made = machine()
        say(f"  how much work takes {base.label} {base.published['time s']:g} s")
        duration = duration_for(base.published["time s"], base.policy, workload, made, fold)
        found = []
        for each in table.entries:
            if each.policy:
                say(f"  {each.label}: {each.policy}")
            result = simulated(each.policy, workload, made, duration, fold) if each.policy else None
            found.append({} if result is None else times_of(result))
        return found

    return run


SCANNING = ("task_numa_work", "kscand")
MIGRATING = ("hint faults", "kmigrated")


def promoted_by(result: Any, share: float = 0.9) -> Found:
    """Second by which a share of the footprint has been promoted, if ever; to the resolution of the run's time line."""
    wanted = share * result.metrics["pages"]
    for second, pages in zip(result.series["t_s"], result.series["pgpromote_success"], strict=True):
        if pages >= wanted:
            return {"90 % moved, s": float(second)}
    return {}


def times_of(result: Any) -> Found:
    """Time, promotions, and CPU seconds of scanning and of faulting or migrating."""
    metrics = result.metrics
    scanning, migrating = (sum(result.cpu.get(name, 0.0) for name in names) for names in (SCANNING, MIGRATING))
    return {
        "time s": metrics["time_s"],
        "V0 time s": metrics["time_s"],
        "promoted": float(metrics["promoted_pages"]),
        "huge pages": metrics["promoted_pages"] / 512,
        **promoted_by(result),
        "scanning s": scanning,
        "migrating s": migrating,
    }
