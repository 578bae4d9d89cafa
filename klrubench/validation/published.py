"""Tables that others have published, held against klrubench: the order of the systems and the sign of each difference, no more.

None of the posts says enough to be run again (latencies, the program's own work, often the limits). What is not said is taken from a
preset or named in the table's set-up; the amount of work is such that the first system takes as long as it was published to take.
No constant is fitted: where the shape does not come out, the table says by how much, and why as far as that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from klrubench.errors import UnknownNameError

TIE = 0.02
"""Published differences under 2 % (means of three runs at best) are no claim."""


@dataclass(frozen=True)
class Contestant:
    """One column of a published table.

    Attributes:
        label: as published.
        policy: what stands for it here, as typed; empty where nothing does.
        score: published time (s) or rate; `more` other published numbers, by the names that `measure` gives.
        why: what is known to be missing here, for comparisons that come out otherwise.
    """

    label: str
    policy: str
    score: float
    more: dict[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Published:
    """A table.

    Attributes:
        unit: of the score; `lower_is_better` says which way it goes.
        setup: what was published of the set-up; `assumed`: what was not and is taken here.
        run: simulates all contestants; for each its score and other numbers.
    """

    name: str
    title: str
    source: str
    unit: str
    lower_is_better: bool
    setup: str
    assumed: str
    contestants: tuple[Contestant, ...]
    run: Callable[[Published, Callable[[str], None]], list[dict[str, float]]]


@dataclass(frozen=True)
class Claim:
    """A difference that was published, and what becomes of it here. Shares: -0.1 is a tenth less."""

    text: str
    published: float
    simulated: float | None
    agrees: bool | None
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """A table with what klrubench has found."""

    table: Published
    found: list[dict[str, float]]
    claims: list[Claim]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        table = self.table
        rows = [
            {"system": each.label, "policy": each.policy, "published": {"score": each.score, **each.more}, "simulated": found}
            for each, found in zip(table.contestants, self.found, strict=True)
        ]
        words = {"name": table.name, "title": table.title, "source": table.source, "unit": table.unit}
        return {**words, "setup": table.setup, "assumed": table.assumed, "rows": rows, "claims": [vars(claim) for claim in self.claims]}


def select_tables(only: Sequence[str] = ()) -> list[str]:
    """Names of the tables asked for, all for none.

    Raises:
        UnknownNameError: no such table.
    """
    for name in only:
        if name not in TABLES:
            raise UnknownNameError("published table", name, TABLES)
    return [name for name in TABLES if not only or name in only]


def run_table(name: str, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Simulate a table's contestants and judge its claims."""
    table = TABLES[name]
    found = table.run(table, say)
    return Outcome(table, found, [*order_claims(table, found), *count_claims(table, found)])


def order_claims(table: Published, found: list[dict[str, float]]) -> list[Claim]:
    """Every pair of systems that was published as further apart than a tie: who is ahead."""
    claims = []
    ranked = sorted(range(len(found)), key=lambda k: table.contestants[k].score)
    for place, k in enumerate(ranked):
        for other in ranked[place + 1 :]:
            low, high = table.contestants[k], table.contestants[other]
            apart = low.score / high.score - 1
            if -apart <= TIE:
                continue
            ours = found[k]["score"] / found[other]["score"] - 1 if found[k] and found[other] else None
            agrees = None if ours is None else ours < 0
            claims.append(Claim(f"{low.label} < {high.label}", apart, ours, agrees, "" if agrees else low.why or high.why))
    return claims


def count_claims(table: Published, found: list[dict[str, float]]) -> list[Claim]:
    """Published counts: the same within 1 %, or none on both sides."""
    claims = []
    for each, own in zip(table.contestants, found, strict=True):
        for name, published in each.more.items():
            if own and name in own and name in COUNTED:
                apart = own[name] / published - 1 if published else own[name]
                claims.append(Claim(f"{each.label}: {name}", published, own[name], abs(apart) <= 0.01, each.why))
    return claims


COUNTED = ("promoted",)


# --- running ------------------------------------------------------------------------------------------------------------


def simulated(policy: str, workload: str, machine: Any, duration_s: float, fold: int) -> Any:
    """One run in this process; None where no such policy comes along."""
    from klrubench.simulate import simulate
    from klrubench.study.spec import policy_part, workload_part

    try:
        chosen = policy_part(policy).build()
    except UnknownNameError:
        return None
    return simulate(machine, workload_part(workload).build(), chosen, 1, duration_s=duration_s, fold=fold)


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
        took = simulated(policy, workload, machine, duration, fold).metrics["time_s"]
        duration *= seconds / took
    return float(duration)


def fixed_work(workload: str, machine: Any, fold: int, first: str) -> Callable[[Published, Callable[[str], None]], list[dict[str, float]]]:
    """The run of a table of times: all do the work that system `first` (its label) does in its published time."""

    def run(table: Published, say: Callable[[str], None]) -> list[dict[str, float]]:
        base = next(each for each in table.contestants if each.label == first)
        made = machine()
        duration = duration_for(base.score, base.policy, workload, made, fold)
        found = []
        for each in table.contestants:
            say(f"  {each.label}: {each.policy or 'nothing here stands for it'}")
            result = simulated(each.policy, workload, made, duration, fold) if each.policy else None
            found.append({} if result is None else times_of(result))
        return found

    return run


def times_of(result: Any) -> dict[str, float]:
    """Time, promotions and CPU seconds by thread of a run."""
    metrics = result.metrics
    folios = result.vmstat.get("promote_folios", 0)
    cpu = {f"{name} s": float(seconds) for name, seconds in result.cpu.items()}
    return {"score": metrics["time_s"], "promoted": float(metrics["promoted_pages"]), "folios": float(folios), **cpu}


# --- pghot v3's microbenchmark --------------------------------------------------------------------------------------------

RANDOM = "uniform:threads=64,rate=0,compute_ns=20,mlp=1,touches=1,placement=lower"
PGHOT_SOURCE = "pghot v3, 20251110052343.208768-1-bharata@amd.com"
PGHOT_SETUP = (
    "64 threads, random accesses of 4 KiB granularity, half of them writes, 8 GiB that begin on CXL, 128 GB of DRAM a node: no pressure; "
    "mean of three runs"
)
PGHOT_ASSUMED = "latencies of cxl-asic, 20 ns of work an access, one node with CPUs; work such that NUMAB0 takes its time"
ALL_4K = 2_097_152.0


PGHOT_MODE1 = Published(
    "pghot-v3-mode1",
    "pghot v3's microbenchmark, mode 1: anonymous 4 KiB pages",
    PGHOT_SOURCE,
    "s",
    True,
    PGHOT_SETUP,
    PGHOT_ASSUMED,
    (
        Contestant("NUMAB0", "numab0", 115.668771, {"promoted": 0.0}),
        Contestant("NUMAB2", "numab2", 102.894589, {"promoted": 2_097_144.0}),
        Contestant("NUMAB2 on pghot", "", 107.576615, {"promoted": ALL_4K}),
        Contestant("pgtscan", "klruscand:preset=pghot-v3", 111.399698, {"promoted": ALL_4K}),
        Contestant(
            "IBS",
            "ibs:pghot=v3",
            103.232152,
            {"promoted": 1_269_467.0},
            "which pages are sampled three times in 5 s depends on the ops between two misses, which were not published",
        ),
    ),
    fixed_work(RANDOM + ",footprint_gib=8,read_share=0.5", lambda: roomy(128, 258), 256, "NUMAB0"),
)
PGHOT_MODE3 = Published(
    "pghot-v3-mode3",
    "pghot v3's microbenchmark, mode 3: anonymous memory in 2 MiB pages",
    PGHOT_SOURCE,
    "s",
    True,
    PGHOT_SETUP,
    PGHOT_ASSUMED + "; 33,032 and 32,768 moved huge pages are 64 GiB, which the 8 GiB do not explain",
    (
        Contestant("NUMAB0", "numab0", 30.944794, {"promoted": 0.0}),
        Contestant(
            "NUMAB2",
            "numab2",
            29.773930,
            {"thp": 3754.0},
            "there NUMAB2 moved a ninth of the huge pages that the others moved; why is not said (many threads fault on one at once). Here "
            "each moves at its first hint fault",
        ),
        Contestant("NUMAB2 on pghot", "", 31.184442, {"thp": 1278.0}),
        Contestant("pgtscan", "klruscand:preset=pghot-v3", 28.580878, {"thp": 33_032.0}),
        Contestant("IBS", "ibs:pghot=v3", 28.732128, {"thp": 32_768.0}),
    ),
    fixed_work(RANDOM + ",footprint_gib=8,read_share=0.5,page=2m", lambda: roomy(128, 258), 64, "NUMAB0"),
)


# --- kmmscand -------------------------------------------------------------------------------------------------------------


def kmmscand_table(size_gib: int, base2: float, with1: float, base1: float, with0: float, split: dict[str, dict[str, float]]) -> Published:
    """One row of kmmscand V1's table."""
    fold = 32 * size_gib
    return Published(
        f"kmmscand-{size_gib}g",
        f"kmmscand V1, {size_gib} GiB",
        "kmmscand V1, Mar 2025; cost split of V0, 20241201153818.2633616-1-raghavendra.kt@amd.com",
        "s",
        True,
        f"64 threads, random accesses to {size_gib} GiB that begin on CXL",
        "latencies of cxl-asic, 20 ns of work an access, room in DRAM; V1 (first sighting, NUMA balancing as said beside); work such that "
        "NUMAB2 takes its time",
        (
            Contestant("NUMAB2", "numab2", base2, split.get("hint", {}), "promotion in the fault costs 8.6 us here; 17.8-30.9 us were calculated from the posts"),
            Contestant("kmmscand with NUMAB1", "", with1),
            Contestant("NUMAB1", "numa_balancing:mode=1", base1, {}, "the second hint fault of a page comes a sweep later"),
            Contestant("kmmscand with NUMAB0", "kmmscand:sightings=1", with0, split.get("scan", {})),
        ),
        fixed_work(f"{RANDOM},footprint_gib={size_gib},read_share=0.5", lambda: roomy(4 * size_gib, 4 * size_gib), fold, "NUMAB2"),
    )


KMMSCAND_8 = kmmscand_table(
    8, 134.33, 120.52, 186.71, 119.88,
    {"hint": {"scanning s": 0.883, "migrating s": 64.86}, "scan": {"scanning s": 2.74, "migrating s": 11.19}},
)  # fmt: skip
KMMSCAND_32 = kmmscand_table(
    32, 585.06, 546.49, 744.37, 546.15,
    {"hint": {"scanning s": 4.79, "migrating s": 149.16}, "scan": {"scanning s": 23.4, "migrating s": 108.72}},
)  # fmt: skip

TABLES: dict[str, Published] = {table.name: table for table in (PGHOT_MODE1, PGHOT_MODE3, KMMSCAND_8, KMMSCAND_32)}
