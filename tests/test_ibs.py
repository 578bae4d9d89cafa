"""IBS: which touches are sampled, what the rings hold, what becomes of the samples; whole runs."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Quarter, Touched, kv, machine, run

from klrubench.engine.bits import CACHED_BIT, WRITE_BIT
from klrubench.engine.random import words
from klrubench.mm.ibs import Ibs
from klrubench.simulate.taps import Sampler

WORD = 1 << 64


def sampler(period: int, seed: int = 1, first_page: int = 0, threads: int = 4) -> Sampler:
    tenant: Any = SimpleNamespace(index=0, first_page=first_page, threads=threads)
    return Sampler(tenant, period, seed, "IBS")


def slow_samples(stream: np.ndarray, period: int, key: np.uint64, first_page: int) -> list[int]:
    """One touch of each `period`, at its block's random place; dropped if the cache served it."""
    taken = []
    for block in range(len(stream) // period + 1):
        place = block * period + (int(words(1, key, block)[0]) * period >> 64)
        if place < len(stream) and not int(stream[place]) & CACHED_BIT:
            taken.append((int(stream[place]) & 0x3FFFFFFF) + first_page)
    return taken


def touches(seed: int, n: int, cached: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bits = np.where(rng.random(n) < cached, CACHED_BIT, 0) | np.where(rng.random(n) < 0.3, WRITE_BIT, 0)
    return (rng.integers(0, 5000, n) | bits).astype(np.uint32)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32), n=st.integers(0, 4000), period=st.one_of(st.integers(1, 40), st.integers(500, 9000)),
    cached=st.sampled_from([0.0, 0.5, 1.0]), cuts=st.lists(st.integers(0, 4000), max_size=12),
    first_page=st.integers(0, 1 << 20),
)  # fmt: skip
def test_samples_are_the_twins_however_the_stream_is_cut(
    seed: int, n: int, period: int, cached: float, cuts: list[int], first_page: int
) -> None:
    """The same ids in the same order; as many as misses / period within one; a cached touch never."""
    stream, ibs = touches(seed, n, cached), sampler(period, seed, first_page)
    edges = sorted({0, n, *(min(cut, n) for cut in cuts)})
    taken: list[int] = []
    for first, last in pairwise(edges):
        ibs.consume(stream[first:last], first)
        if first % 3:
            taken += ibs.take().tolist()
    taken += ibs.take().tolist()
    assert taken == slow_samples(stream, period, ibs.key, first_page)
    assert not len(ibs.take())
    if cached == 0.0:
        assert n // period <= len(taken) <= -(-n // period)
    if cached == 1.0:
        assert not taken


def test_each_touch_has_the_same_chance_and_cached_ones_none() -> None:
    """A third of the touches go to page 7, half of all are cache-served: shares of the samples within sampling error.

    Were the misses alone counted towards the period there would be twice as many samples.
    """
    rng, n, period = np.random.default_rng(3), 400_000, 50
    hot = rng.random(n) < 1 / 3
    stream = np.where(hot, 7, 100).astype(np.uint32) | np.where(rng.random(n) < 0.5, CACHED_BIT, 0).astype(np.uint32)
    ibs = sampler(period)
    ibs.consume(stream, 0)
    taken = ibs.take()
    assert abs(len(taken) - n / period / 2) < 4 * np.sqrt(n / period / 4)
    assert abs((taken == 7).mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / len(taken))


def test_a_stride_of_the_period_does_not_hide_pages() -> None:
    """Touches that repeat every `period` are all met, since the place in each period is random."""
    ibs = sampler(64)
    ibs.consume((np.arange(64 * 2000) % 64).astype(np.uint32), 0)
    counts = np.bincount(ibs.take(), minlength=64)
    assert counts.sum() == 2000 and counts.min() > 0
    assert ((counts - 2000 / 64) ** 2 / (2000 / 64)).sum() < 63 + 5 * np.sqrt(2 * 63)


# --- the rings --------------------------------------------------------------------------------------------------------
class Recorder:
    """A hotness store that keeps what it is told."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.told: set[tuple[str, int]] = set()

    def record(self, pages: np.ndarray, source: str, nid: int = -1) -> None:
        self.pages += pages.tolist()
        self.told.add((source, nid))


class FakeSystem:
    """Tenants whose samplers are fed by hand; charges are counted."""

    def __init__(self, tenants: int, threads: int, fold: int) -> None:
        self.machine, self.fold = SimpleNamespace(cpu_nodes=[2], cpus=16), fold
        self.tenants = [SimpleNamespace(index=k, first_page=1000 * k, threads=threads) for k in range(tenants)]
        self.interrupts: dict[int, int] = {}

    def sampler(self, tenant: Any, period: int, name: str) -> Sampler:
        return Sampler(tenant, period, 1, name)

    def daemon(self, _name: str, run: Any, **_: Any) -> None:
        self.thread = run(self)

    def charge_tenant(self, tenant: Any, under: str, **counts: int) -> None:
        assert under == "IBS interrupts"
        self.interrupts[tenant.index] = self.interrupts.get(tenant.index, 0) + counts["ibs_sample"]

    def sleep_exact_ms(self, ms: float) -> float:
        return ms


def attached(ring: int, drain_ms: float, fold: int = 1, tenants: int = 1, threads: int = 2) -> tuple[Ibs, Any]:
    ibs, system = Ibs(Recorder(), period=1, ring=ring, drain_ms=drain_ms), FakeSystem(tenants, threads, fold)
    ibs.attach(system)  # type: ignore[arg-type]
    return ibs, system


@settings(deadline=None, max_examples=60)
@given(
    bursts=st.lists(st.integers(0, 300), min_size=1, max_size=12), ring=st.integers(2, 20),
    fold=st.sampled_from([1, 4, 16]), drain_ms=st.sampled_from([1.0, 2.5, 10.0, 40.0]),
)  # fmt: skip
def test_rings_keep_what_they_have_room_for_and_the_rest_is_lost(
    bursts: list[int], ring: int, fold: int, drain_ms: float
) -> None:
    """Room a step: (ring - 1) a CPU and drain, at scale, the remainder carried on from steps that sampled."""
    ibs, system = attached(ring, drain_ms, fold)
    kept, full, number = 0, 0, 0
    for burst in bursts:
        ibs.samplers[0].consume(np.arange(burst, dtype=np.uint32), number)
        number += burst
        assert next(system.thread) == max(10.0, drain_ms)
        if burst:
            room = int((ring - 1) * 2 * max(1.0, max(10.0, drain_ms) / drain_ms)) + full
            kept, full = kept + min(burst, room // fold), room % fold
    assert ibs.taken == sum(bursts) == system.interrupts.get(0, 0)
    assert len(ibs.store.pages) == kept == ibs.taken - ibs.lost
    assert ibs.bound()["IBS ring"] == (ibs.lost / ibs.taken if ibs.taken else 0.0)


def test_a_ring_of_150_holds_149_samples_a_cpu_until_it_is_drained() -> None:
    """Posted: head and tail meet one before the ring is full; the newest samples are the ones dropped."""
    ibs, system = attached(150, 10.0, threads=3)
    ibs.samplers[0].consume(np.arange(1000, dtype=np.uint32), 0)
    next(system.thread)
    assert ibs.store.pages == list(range(3 * 149)) and ibs.lost == 1000 - 3 * 149
    assert ibs.metadata_bytes == 16 * 150 * 24


def test_records_carry_the_accessors_node_and_each_tenant_pays_its_interrupts() -> None:
    ibs, system = attached(150, 1.0, tenants=2)
    for k, n in enumerate((30, 50)):
        ibs.samplers[k].consume(np.arange(n, dtype=np.uint32), 0)
    next(system.thread)
    assert ibs.store.told == {("hwhint", 2)}
    assert ibs.store.pages == [*range(30), *range(1000, 1050)]
    assert system.interrupts == {0: 30, 1: 50}


# --- whole runs -------------------------------------------------------------------------------------------------------
EAGER = {"period": 100}  # so that small runs have samples


def test_the_chunk_is_never_visible() -> None:
    hot = kv(footprint_gib=0.125, placement="lower", rate=20.0)
    results = [run("ibs", hot, duration_s=4, chunk=chunk, values=EAGER) for chunk in (1, 7, 4096, 65_536)]
    assert len({json.dumps(result.to_dict(), sort_keys=True) for result in results}) == 1
    assert results[0].metrics["promoted_pages"] > 0


def test_a_hot_set_in_slow_memory_is_promoted_and_the_rest_stays() -> None:
    """A quarter of memory takes all touches: the same run without migration serves none of them from the top."""
    hot = Quarter(footprint_gib=0.25, rate=40.0, placement="lower")
    still = run("all_lower", hot, where=machine((1, 1)), duration_s=8).metrics
    moved = run("ibs", hot, where=machine((1, 1)), duration_s=8, values=EAGER).metrics
    assert still["dram_hit_share"] == 0
    assert 0.9 * moved["pages"] / 4 < moved["promoted_pages"] <= moved["pages"] / 4
    assert moved["dram_hit_share"] > 0.5 and moved["time_s"] < still["time_s"]


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_pghot_promotes_a_page_at_the_sample_that_makes_its_threshold(threshold: int) -> None:
    """All pages alike, 1.25 samples each in a run: the share with enough of them is Poisson's, within sampling error.

    The last of them may be on their way when the run ends.
    """
    alike = Touched(footprint_gib=0.25, rate=20.0, placement="lower")
    values = {"period": 16, "threshold": threshold}
    result = run("ibs", alike, where=machine((1, 1)), duration_s=1, values=values).metrics
    mean = result["accesses"] / result["pages"] / 16
    share = 1 - math.exp(-mean) * sum(mean**k / math.factorial(k) for k in range(threshold))
    error = 4 * math.sqrt(share * (1 - share) / (result["pages"] / 16))
    assert share * 0.97 - error < result["promoted_pages"] / result["pages"] < share + error


def test_a_page_sampled_less_often_than_the_window_is_not_promoted() -> None:
    """The posted period, 2 touches a page and second: a page is sampled once in 5000 s, so next to no second sighting.

    The expected number of pairs within 5 s is pages x (duration / 5000) x (5 / 5000), about a ten-thousandth of them.
    """
    slow = Touched(footprint_gib=0.25, rate=2.0, placement="lower")
    moved = run("ibs", slow, where=machine((1, 1)), duration_s=8).metrics
    assert moved["promoted_pages"] <= 0.001 * moved["pages"]


def test_huge_pages_move_whole_and_every_touch_is_counted() -> None:
    """Frames, lists and residents are checked by the run itself."""
    huge = kv(footprint_gib=0.25, placement="lower", page="2m")
    result = run("ibs", huge, duration_s=5, fold=4, values=EAGER).metrics
    assert result["misses"] + result["cached"] == result["accesses"]
    assert result["promoted_pages"] > 0
    assert result["promoted_pages"] % (512 * 4) == 0 and result["demoted_pages"] % (512 * 4) == 0
