"""kmigrated's walk against plain Python, the versions behind one call, and klruscand with each on small machines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Touched, kv, machine

from klrubench.engine.bits import NODE_MASK
from klrubench.errors import ParameterError, UnknownNameError
from klrubench.machine import Machine
from klrubench.mm import PGHOT_DEFAULTS, PGHOT_VERSIONS, pghot_engine
from klrubench.mm.migrate import move_many
from klrubench.mm.numa_promotion import promotion_rules
from klrubench.mm.pghot_map import READY, MapArrays, map_arrays, map_setting, migrate_ready, record_pages
from klrubench.mm.state import KMIGRATED_DROPPED, KMIGRATED_TAKEN, NOW_MS, PGPROMOTE_SUCCESS, WINDOW, Mm, new_mm
from klrubench.policy import Policy
from klrubench.simulate import Options, RunResult, simulate
from klrubench.simulate.build import build
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy
from klrubench.study.spec import policy_part

RULES = promotion_rules(5000, 60_000, 65_536, 1)


def memory(pages: int = 2048, top: int = 1024, huge: int = 0) -> Mm:
    """Pages (and 2 MiB leaves) on the lower tier."""
    vmas = [(pages, 0, False, 0)] + ([(huge, 0, False, 9)] if huge else [])
    mm = new_mm(vmas, [top, 2 * pages + 512 * huge], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    ids = np.arange(pages) if not huge else np.concatenate([np.arange(pages), mm.vma[1, 0] + np.arange(huge)])
    assert allocate(mm.address, ids, np.array([1])) == 0
    return mm


def store(version: str, mm: Mm, fold: int, threshold: int = 1, target: int = 0) -> tuple[MapArrays, int]:
    """An empty store whose sections have 32768 / fold frames, and the end of node 1's."""
    arrays, ranges = map_arrays(mm, fold, map_setting(version, threshold, 5000, 1000, target, False))
    return arrays, ranges[1][1]


def walk(p: MapArrays, mm: Mm, last: int, budget: int = 1 << 30, now: int = 10, fold: int = 1) -> list[tuple[int, ...]]:
    """A whole walk of node 1 in slices of `budget` records."""
    p.state[1], p.active[1] = (0, -1, 0), 0
    steps, price = [], np.array([0, 1, 1, 1, budget], np.int64)
    while p.state[1, 0] < last:
        steps.append(migrate_ready(p, mm, 1, last, price, now, RULES, fold))
    return steps


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    version=st.sampled_from(["v3", "v5-compact", "v5-precise"]),
    top=st.sampled_from([512, 700, 1024]),
    fold=st.sampled_from([128, 512]),
    budget=st.integers(1, 300),
)
def test_a_walk_takes_ready_records_in_the_order_of_frames(
    seed: int, version: str, top: int, fold: int, budget: int
) -> None:
    """Which frames, in which order, how many batches: a loop over sorted frames says the same, whatever the steps."""
    rng = np.random.default_rng(seed)
    mm = memory(top=top)
    move_many(mm, rng.permutation(2048)[:400], 0, 1, True)  # scatter frames, and leave less room
    move_many(mm, np.flatnonzero((mm.pte[:2048] & NODE_MASK) == 0)[:300], 1, 1, False)
    p, last = store(version, mm, fold)
    hot = rng.permutation(2048)[: int(rng.integers(1, 1200))].astype(np.uint32)
    recorded = record_pages(p, mm, hot, -1, 5)
    frames = sorted(int(mm.pfn[page]) for page in hot if mm.pte[page] & NODE_MASK)
    assert recorded == len(frames) == int(p.ready.sum()) and p.active.tolist() == [0, int(recorded > 0)]
    isolated = {int(mm.frame_page[f]) for f in frames[::7]}
    listed = mm.folio[list(isolated)].copy()
    mm.folio[list(isolated)] &= 0xF8
    taken = [f for f in frames if int(mm.frame_page[f]) not in isolated]
    pages = [int(mm.frame_page[f]) for f in taken]
    room = int(mm.node[0, 1])
    section = 32_768 // fold
    walked = {(f - top) // section for f in frames}
    steps = walk(p, mm, last, budget, fold=fold)
    assert sum(step[1] for step in steps) == len(taken) == mm.stat[KMIGRATED_TAKEN]
    assert max(step[1] for step in steps) <= budget and all(step[1] == budget for step in steps[:-1])
    assert [page for page in pages if not mm.pte[page] & NODE_MASK] == pages[:room]
    assert (p.record[taken] == 0).all() and int(p.ready.sum()) == len(isolated)
    assert (p.record[[int(mm.pfn[i]) for i in isolated]] & READY).all()
    # batches: v3 counts through, v5 starts anew in each section
    moved = Counter(0 if version == "v3" else (f - top) // section for f in taken[:room])
    batch = 512 if version == "v3" else 513
    assert sum(step[4] for step in steps) == sum(-(-n * fold // batch) for n in moved.values())
    seen = 4096 if version == "v3" else sum(min(section, 4096 - k * section) for k in walked)
    assert sum(step[0] for step in steps) == seen
    mm.folio[list(isolated)] = listed
    check_memory(mm)


def test_a_record_is_zeroed_when_it_is_taken_promoted_or_not() -> None:
    """Refused at the gate: it starts again at one; with two sightings needed the next walk finds nothing."""
    mm = memory(top=512)
    p, last = store("v5-compact", mm, 128, threshold=2)
    pages = np.arange(600, dtype=np.uint32)
    for now in (0, 500):
        record_pages(p, mm, pages, -1, now)
    assert sum(step[2] for step in walk(p, mm, last)) == 512 and (p.record == 0).all()
    record_pages(p, mm, pages, -1, 1000)
    assert not p.active[1] and sum(step[1] for step in walk(p, mm, last)) == 0
    assert mm.stat[PGPROMOTE_SUCCESS] == 512 and mm.stat[KMIGRATED_TAKEN] == 600


def test_sections_are_walked_only_when_flagged_but_by_v3() -> None:
    """Steps of the walk: two hot sections of 256 frames against all frames of the node."""
    for version, steps in (("v5-compact", 512), ("v3", 4096)):
        mm = memory()
        p, last = store(version, mm, 128)
        record_pages(p, mm, np.array([3, 5, 1000], np.uint32), -1, 5)
        assert p.hot.sum() == 2
        assert [step[:3] for step in walk(p, mm, last)] == [(steps, 3, 3)] and p.hot.sum() == 0


def test_a_record_of_a_freed_frame_goes_to_its_next_owner() -> None:
    """The frame keeps its record and its flag is gone: the first sighting of the new owner flags it again."""
    mm = memory()
    p, last = store("v5-precise", mm, 128, threshold=2)
    for now in (0, 500):
        record_pages(p, mm, np.array([7], np.uint32), -1, now)
    frame = int(mm.pfn[7])
    move_many(mm, np.array([7]), 0, 1, True)
    assert walk(p, mm, last)[0][1:3] == (0, 0) and p.record[frame] & READY
    move_many(mm, np.array([9]), 0, 1, True)
    move_many(mm, np.array([7]), 1, 1, False)
    move_many(mm, np.array([9]), 1, 1, False)
    (heir,) = (page for page in (7, 9) if int(mm.pfn[page]) == frame)
    record_pages(p, mm, np.array([heir], np.uint32), -1, 60_000)
    assert walk(p, mm, last, now=60_010)[0][1:3] == (1, 1) and not mm.pte[heir] & NODE_MASK


def test_old_records_are_dropped_by_the_latency_test_as_the_clock_tells() -> None:
    """Waiting 6 s for kmigrated: too old for v3 and precise; 6 s is 1.8 s to a compact clock."""
    for version, promoted in (("v3", 0), ("v5-precise", 0), ("v5-compact", 1)):
        mm = memory()
        p, last = store(version, mm, 128)
        record_pages(p, mm, np.array([3], np.uint32), -1, 128)
        mm.setting[NOW_MS] = 6128
        assert walk(p, mm, last, now=6128)[0][1:3] == (1, promoted)
        assert mm.stat[KMIGRATED_DROPPED] == 1 - promoted


def test_huge_folios_take_one_step_and_one_record() -> None:
    """2048 small pages and three leaves on 4096 + 1536 frames: as many steps as folios and free frames; one flush for
    512 pages.
    """
    mm = memory(2048, 4096, huge=3)
    p, last = store("v3", mm, 1)
    leaves = (mm.vma[1, 0] + np.arange(3)).astype(np.uint32)
    record_pages(p, mm, leaves, -1, 5)
    (step,) = walk(p, mm, last)
    assert step == (4096 + 1536 - 3 * 511, 3, 3, 3 * 512, 3)


def three_nodes() -> Machine:
    """Two sockets on top of one memory-only node."""
    base = machine()
    nodes = [replace(base.nodes[0], name=name, capacity_gib=0.25) for name in ("DRAM0", "DRAM1")]
    nodes.append(replace(base.nodes[1], capacity_gib=1.0))
    latency = {"read_ns": (100.0, 140.0, 250.0), "write_ns": (100.0, 140.0, 250.0)}
    return replace(base, nodes=tuple(replace(node, **latency) for node in nodes), ratio=())


class Told(Policy):
    """Records pages 0-99 twice from node 0 and 100-199 twice from node 1, 200-299 twice from nowhere."""

    version = "v2"

    def start(self, system: System) -> None:
        self.store = pghot_engine(system, self.version)
        system.daemon("told", self.tell)

    def tell(self, system: System) -> Any:
        for _ in range(3):
            for first, nid in ((0, 0), (100, 1), (200, -1)):
                self.store.record(np.arange(first, first + 100, dtype=np.uint32), source="hwhint", nid=nid)
            yield system.sleep_ms(300)
        yield system.parked


@pytest.mark.parametrize(
    ("version", "nodes"),
    [("v1", (0, 1, 0)), ("v2", (0, 1, 0)), ("v3", (0, 1, 0)), ("v5-precise", (0, 1, 0)), ("v5-compact", (0, 0, 0))],
)
def test_any_source_feeds_any_version_and_each_has_its_target(version: str, nodes: tuple[int, ...]) -> None:
    """The accessor's node where the record keeps it, else the default one; each top node has its kpromoted."""
    policy = Told()
    policy.version = version
    system = build(
        three_nodes(), Touched(footprint_gib=0.0625, rate=1.0, placement="lower"), policy, 1, 3, 1, Options()
    )
    policy.start(system)
    system.run()
    where = system.mm.pte[:300] & NODE_MASK
    assert [np.unique(where[k : k + 100]).tolist() for k in (0, 100, 200)] == [[node] for node in nodes]
    assert system.mm.stat[PGPROMOTE_SUCCESS] == 300
    check_memory(system.mm)


def window_of(version: str, sysctl_ms: int | None, **given: Any) -> float:
    """The window of a version's store on a machine with this sysctl."""
    name = "pghot_promote_freq_window_ms"
    where = machine(sysctls={} if sysctl_ms is None else {name: sysctl_ms})
    workload = Touched(footprint_gib=0.0625, rate=1.0, placement="lower")
    system = build(where, workload, Policy(), 1, 3, 1, Options())
    engine: Any = pghot_engine(system, version, **given)
    return float(engine.window_ms)


@pytest.mark.parametrize("version", PGHOT_VERSIONS)
def test_the_sysctl_is_the_window_where_none_is_given(version: str) -> None:
    """At its own default it says nothing: v5-compact keeps 4000. A window that differs from the posted one wins."""
    posted = PGHOT_DEFAULTS[version]["window_ms"]
    assert window_of(version, None) == window_of(version, 5000) == posted
    assert window_of(version, 700) == window_of(version, 700, window_ms=posted) == 700
    assert window_of(version, 700, window_ms=900) == 900


def test_a_shorter_window_of_the_sysctl_lets_fewer_pages_pass() -> None:
    """Through the policy: at 500 ms no two passes of klruscand, 2000 ms apart, lie in one window."""
    short = machine(sysctls={"pghot_promote_freq_window_ms": 500})
    assert klruscand({}, duration_s=12).vmstat.get("pgpromote_success", 0) > 0
    assert klruscand({}, short, duration_s=12).vmstat.get("pgpromote_success", 0) == 0
    assert klruscand({"window_ms": 4999}, short, duration_s=12).vmstat.get("pgpromote_success", 0) > 0


# klruscand with each of them


def klruscand(values: dict[str, Any], where: Machine | None = None, workload: Any = None, **more: Any) -> RunResult:
    given = {"duration_s": 8, "fold": 2} | more
    policy = find_policy("klruscand")(**values)
    return simulate(where or machine(), workload or kv(footprint_gib=0.125), policy, 1, **given)


@pytest.mark.parametrize("hz", [250, 1000])
@pytest.mark.parametrize("version", PGHOT_VERSIONS)
def test_every_version_runs_and_keeps_the_laws(version: str, hz: int) -> None:
    """At both timers, on 4 KiB and 2 MiB pages; the same bytes for any chunk."""
    values = {"pghot": version, "interval_ms": 500}
    small = klruscand(values, machine(hz=hz))
    assert small.vmstat["pghot_recorded_accesses"] == small.vmstat["pghot_record_pgtscans"] > 0
    assert small.metrics["metadata_bytes"] > 0
    again = klruscand(values, machine(hz=hz), options=Options(chunk=999))
    assert json.dumps(small.to_dict(), sort_keys=True) == json.dumps(again.to_dict(), sort_keys=True)
    huge = klruscand(values, machine(hz=hz), kv(footprint_gib=4, page="2m"), duration_s=4)
    assert huge.vmstat.get("pgpromote_success", 0) % 512 == 0


def test_metadata_is_that_of_a_record_a_frame() -> None:
    """8, 1 and 4 bytes for every frame of the lower tier, whatever was seen."""
    sizes = {
        v: klruscand({"pghot": v}, duration_s=1).metrics["metadata_bytes"] for v in ("v3", "v5-compact", "v5-precise")
    }
    frames = sizes["v5-compact"]
    assert sizes == {"v3": 8 * frames, "v5-compact": frames, "v5-precise": 4 * frames}
    assert frames == pytest.approx((1 << 15) * 2 / 3, rel=0.1)


@pytest.mark.parametrize(("version", "passes"), [("v5-compact", 2), ("v5-precise", 2), ("v3", 3)])
def test_promotion_begins_with_the_pass_that_makes_it_enough(version: str, passes: int) -> None:
    """All pages young at every pass of 504 ms, the first at 0; kmigrated looks within 100 ms."""
    policy = find_policy("klruscand")(interval_ms=500, pghot=version)
    roomy = replace(machine(), nodes=tuple(replace(node, capacity_gib=0.5) for node in machine().nodes))
    workload = Touched(footprint_gib=0.0625, rate=30.0, placement="lower")
    system = build(roomy, workload, policy, 1, 3, 2, Options(phases=False))
    policy.start(system)
    seen: list[int] = []
    system.every_ms(50, lambda: seen.append(int(system.mm.stat[PGPROMOTE_SUCCESS])))
    system.run()
    first_ms = 50 * (1 + int(np.flatnonzero(seen)[0]))
    assert 504 * (passes - 1) <= first_ms <= 504 * (passes - 1) + 200
    assert system.cpu_ps["kmigrated"] > 0 and policy.store.metadata_bytes > 0


def test_the_thread_does_not_sleep_while_records_arrive() -> None:
    """Fed every 10 ms, it looks again as soon as it is done, not 100 ms later."""

    class Fed(Told):
        def tell(self, system: System) -> Any:
            for k in range(100):
                self.store.record(np.arange(10 * k, 10 * k + 10, dtype=np.uint32), source="hwhint")
                self.store.record(np.arange(10 * k, 10 * k + 10, dtype=np.uint32), source="hwhint")
                yield system.sleep_ms(10)
            yield system.parked

    costs = {"kmigrated_pfn": "600ns", "pghot_record": "0.01x"}  # a section's walk takes 20 ms
    for prices in (costs, {}):
        policy, at = Fed(), set()
        policy.version = "v5-compact"
        workload = Touched(footprint_gib=0.0625, rate=1.0, placement="lower")
        system = build(machine(costs=prices), workload, policy, 1, 2, 1, Options())
        policy.start(system)
        system.every_ms(1, lambda s=system, at=at: at.add(int(s.mm.stat[KMIGRATED_TAKEN])))
        system.run()
        assert len(at) > 30 if prices else len(at) < 20


def test_rfc_v1_promotes_at_once_as_posted_and_hardly_ever_as_meant() -> None:
    """With 4 s between passes a record lives for a second: as its comments say two sightings never meet."""
    roomy = replace(machine(), nodes=tuple(replace(node, capacity_gib=0.5) for node in machine().nodes))
    workload = Touched(footprint_gib=0.125, rate=5.0, placement="lower")
    done = {
        version: klruscand({"preset": "rfc-v1", **chosen}, roomy, workload, duration_s=12)
        for version, chosen in (("posted", {}), ("meant", {"pghot": "v0-intended"}), ("v2", {"pghot": "v2"}))
    }
    pages = done["posted"].metrics["pages"]
    promoted = {version: run.metrics["promoted_pages"] for version, run in done.items()}
    assert promoted["posted"] == pages and promoted["v2"] > 0.4 * pages
    assert promoted["meant"] < 0.01 * pages
    assert done["meant"].vmstat["pghot_recorded_accesses"] > 2 * pages


def test_notes_say_where_a_clock_wraps() -> None:
    """Only where it may mislead: v5 always, v2 and v3 only in runs of minutes, an ideal clock never."""

    def notes(hz: int = 1000, **values: Any) -> str:
        return " ".join(note for note in klruscand(values, machine(hz=hz), duration_s=1).notes if "pghot" in note)

    assert "4.1 s at HZ=1000: any two sightings ever pass" in notes(pghot="v5-compact")
    assert "16.4 s at HZ=250: 25% of longer gaps pass" in notes(250, pghot="v5-compact")
    assert "16.4 s at HZ=1000: 31% of longer gaps" in notes(pghot="v5-precise")
    for values in ({}, {"pghot": "v1"}, {"pghot": "v3"}, {"pghot": "v5-compact", "ideal_clock": True}):
        assert notes(**values) == ""


# what a person types


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("klruscand", (2000, "v2", 2, 5000)),
        ("klruscand:preset=rfc-v1", (4000, "v0", 2, 5000)),
        ("klruscand:preset=pghot-v1", (100, "v1", 2, 5000)),
        ("klruscand:preset=pghot-v3", (500, "v3", 3, 5000)),
        ("klruscand:preset=pghot-v5", (500, "v5-compact", 2, 4000)),
        ("klruscand:preset=pghot-v3,threshold=2,interval_ms=2000", (2000, "v3", 2, 5000)),
        ("klruscand:preset=pghot-v3,pghot=v5-compact", (500, "v5-compact", 2, 4000)),
        ("klruscand:pghot=v5-compact,window_ms=5000", (2000, "v5-compact", 2, 5000)),
    ],
)
def test_a_preset_gives_way_to_what_is_typed(typed: str, expected: tuple[Any, ...]) -> None:
    part = policy_part(typed)
    assert tuple(part.params[k] for k in ("interval_ms", "pghot", "threshold", "window_ms")) == expected
    assert set(part.label.partition(":")[2].split(",")) == set(typed.partition(":")[2].split(","))
    again = part.build()
    assert again.values == part.params and again.label() == part.label


def test_impossible_settings_are_refused_in_one_line() -> None:
    def refused(**values: Any) -> str:
        with pytest.raises(ParameterError) as error:
            klruscand(values, duration_s=1)
        return str(error.value)

    assert (
        refused(pghot="v5-compact", threshold=4) == "threshold=4: pghot v5-compact counts sightings up to 3; use 1 to 3"
    )
    assert "no such hash" in refused(pghot="v3", hash="sized")
    system: Any = None
    with pytest.raises(UnknownNameError):
        pghot_engine(system, "v4")
    assert set(PGHOT_DEFAULTS) == set(PGHOT_VERSIONS)
