"""Intervals by memcg: the timers, the model of two rates, klruscand_adaptive and klruscand_backoff."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import machine

from klrubench.errors import ParameterError
from klrubench.generate import Part, RangeStream
from klrubench.mm import TwoRates, mglru
from klrubench.mm.memcg import MemcgTimers, intervals_of
from klrubench.mm.two_rates import Rates, two_rates
from klrubench.policy import Policy
from klrubench.simulate import Options, RunResult, simulate
from klrubench.simulate.build import build
from klrubench.simulate.system import System
from klrubench.study.plugins import find_policy, find_workload
from klrubench.workload import Layout, Stream, Workload

SMALL = {"footprint_gib": 0.5, "busy_s": 1.0, "idle_s": 2.0}
NAMES = ["kv", "gups", "idle"]


def mixed(**values: Any) -> Workload:
    return find_workload("mixed")(**{**SMALL, **values})


def as_bytes(result: RunResult) -> str:
    return json.dumps({**result.to_dict(), "policy": ""}, sort_keys=True)


def run(policy: str, workload: Workload, duration_s: float = 6, **values: Any) -> RunResult:
    return simulate(machine(), workload, find_policy(policy)(**values), 1, duration_s=duration_s, fold=16)


def ran(policy: Policy, workload: Workload, duration_s: float, fold: int = 8) -> System:
    system = build(machine(), workload, policy, 1, duration_s, fold, Options())
    policy.start(system)
    system.run()
    return system


# --- two rates --------------------------------------------------------------------------------------------------------
def moments(parts: list[tuple[float, float]], gap_s: float) -> list[float]:
    """Shares young once, twice and three times in a row of pages whose (share, rate) are given."""
    return [sum(share * (-math.expm1(-rate * gap_s)) ** k for share, rate in parts) for k in (1, 2, 3)]


@given(st.floats(0.2, 6), st.floats(2, 100), st.floats(0.05, 0.95), st.floats(0.05, 4))
@settings(deadline=None)
def test_two_rates_are_found_again(seen: float, ratio: float, share: float, gap_s: float) -> None:
    """With shares as they are in the mean, both rates and the number of hot pages come back."""
    hot, cold, pages = seen / gap_s, seen / gap_s / ratio, 1 << 22
    found = two_rates(*moments([(share, hot), (1 - share, cold)], gap_s), pages, gap_s)
    assert found is not None
    assert (found.hot_per_s, found.cold_per_s) == pytest.approx((hot, cold), rel=1e-3)
    assert found.hot_pages == pytest.approx(share * pages, rel=1e-3)


@given(st.floats(0.01, 50), st.floats(0.01, 4), st.integers(1, 1 << 24))
@settings(deadline=None)
def test_pages_alike_have_no_two_rates(rate: float, gap_s: float, pages: int) -> None:
    assert two_rates(*moments([(1.0, rate)], gap_s), pages, gap_s) is None
    assert two_rates(0.0, 0.0, 0.0, 0, gap_s) is None


@given(st.floats(0.01, 10), st.floats(1.1, 300))
@settings(deadline=None)
def test_the_gap_separates_best(cold: float, ratio: float) -> None:
    """No other gap of a fine grid tells hot from cold better by one bit."""
    rates = Rates(cold * ratio, cold, 1.0)
    best_s = rates.best_gap_ms() / 1000

    def apart(gap_s: Any) -> Any:
        return np.exp(-rates.cold_per_s * gap_s) - np.exp(-rates.hot_per_s * gap_s)

    assert apart(best_s) >= apart(best_s * np.geomspace(0.1, 10, 401)).max() - 1e-12


def test_published_gaps_and_separations() -> None:
    """10 and 1 a second: 0.26 s; separation 0.697 at 10:1, 0.945 at 100:1; equal rates: 1 / rate."""
    assert Rates(10.0, 1.0, 1.0).best_gap_ms() == pytest.approx(255.8, abs=0.1)
    for ratio, expected in ((10, 0.697), (100, 0.945)):
        gap_s = Rates(float(ratio), 1.0, 1.0).best_gap_ms() / 1000
        assert math.exp(-gap_s) - math.exp(-ratio * gap_s) == pytest.approx(expected, abs=1e-3)
    assert Rates(4.0, 4.0, 1.0).best_gap_ms() == 250.0


def test_what_is_paid_has_the_dimension_of_time() -> None:
    """100 000 pages, 4 touches a second more, 250 ns a touch: 0.1 s saved a second; 50 ms take half a second."""
    assert Rates(5.0, 1.0, 100_000.0).paid_ms(50.0, 250.0) == pytest.approx(500.0)


class Classes(Workload):
    """An eighth of the pages is touched 8 times a second, the others half a time; all lie on the lower tier."""

    def stream(self, layout: Layout) -> Stream:
        hot = layout.pages // 8
        shares = 8.0 / 8, 0.5 * 7 / 8
        return RangeStream(
            layout,
            [Part(shares[0] / sum(shares), 0, hot, 1.0), Part(shares[1] / sum(shares), hot, layout.pages - hot, 1.0)],
        )


class Looks(Policy):
    """Four passes a gap apart, nothing moved."""

    gap_ms = 250.0

    def start(self, system: System) -> None:
        self.rates = system.add(TwoRates())
        system.daemon("looks", self.scan)

    def scan(self, system: System) -> Iterator[Any]:
        for _pass in range(6):
            began_ms = system.now_ms
            self.rates.begin_pass(0, self.gap_ms)
            for pages in mglru.walk_memcg(system, 0, mglru.WalkObject()):
                self.rates.add(0, pages)
            yield system.until_ms(began_ms + self.gap_ms)
        self.found = self.rates.take(0)
        assert self.rates.take(0) is None


@pytest.mark.parametrize("fold", [1, 4])
def test_passes_over_real_touches_find_their_rates(fold: int) -> None:
    workload = Classes(footprint_gib=0.125, rate=8 / 8 + 0.5 * 7 / 8, placement="lower", open_loop=True)
    policy = Looks()
    system = ran(policy, workload, 3, fold)
    assert policy.found is not None
    assert policy.found.hot_per_s == pytest.approx(8.0, rel=0.15)
    assert policy.found.cold_per_s == pytest.approx(0.5, rel=0.15)
    assert policy.found.hot_pages == pytest.approx(workload.full_pages() / 8, rel=0.1)
    assert policy.rates.saved_ns == system.machine.nodes[1].read_ns[0] - system.machine.nodes[0].read_ns[0]


# --- timers -----------------------------------------------------------------------------------------------------------
def test_intervals_by_name_and_in_order() -> None:
    assert intervals_of(NAMES, 2000, "") == [2000, 2000, 2000]
    assert intervals_of(NAMES, 2000, "gups=100") == [2000, 100, 2000]
    assert intervals_of(NAMES, 2000, "500/100") == [500, 100, 2000]


@pytest.mark.parametrize(
    ("text", "said"),
    [("redis=50", "no memcg 'redis'"), ("kv=5", "'5'"), ("kv=soon", "'soon'"), ("1e9", "'1e9'"), ("10/10/10/10", "4 ")],
)
def test_intervals_that_cannot_be_are_refused(text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        intervals_of(NAMES, 2000, text)


def test_a_visit_begins_when_its_turn_comes() -> None:
    """A period runs from when a memcg was due, or from `begin`, whichever was said last."""

    class Clock:
        now_ps, memcgs = 0, ("a", "b")

        def until_ps(self, at: int) -> int:
            return at

    clock: Any = Clock()
    timers, ms = MemcgTimers(clock, 100.0), 1_000_000_000
    assert timers.due() == [0, 1] and timers.sleep() == 100 * ms
    clock.now_ps = 100 * ms
    assert timers.due() == [0, 1]
    assert timers.begin(0) == 100.0
    clock.now_ps = 130 * ms  # the pass over a took 30 ms
    assert timers.begin(1) == 130.0
    timers.set(0, 50.0)
    timers.set(1, 50.0)
    assert timers.sleep() == 150 * ms
    clock.now_ps = 150 * ms
    assert timers.due() == [0] and timers.sleep() == 180 * ms
    clock.now_ps = 1000 * ms  # what was missed is not caught up
    assert timers.due() == [0, 1] and timers.due() == []


def test_naming_the_default_changes_nothing() -> None:
    assert as_bytes(run("klruscand", mixed(), intervals="2000/2000/2000")) == as_bytes(run("klruscand", mixed()))
    assert as_bytes(run("klruscand", mixed(), intervals="gups=100")) != as_bytes(run("klruscand", mixed()))


def test_each_memcg_is_visited_at_its_own_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, list[int]]] = []
    due = MemcgTimers.due

    def watched(self: MemcgTimers) -> list[int]:
        seen.append((self.system.now_ms, due(self)))
        return seen[-1][1]

    monkeypatch.setattr(MemcgTimers, "due", watched)
    ran(find_policy("klruscand")(interval_ms=1000.0, intervals="kv=250/gups=500"), mixed(idle_s=0), 10)
    for memcg, interval_ms in enumerate((250, 500, 1000)):
        times = [at for at, found in seen if memcg in found]
        assert np.diff(times).mean() == pytest.approx(interval_ms, rel=0.15)  # the timer wheel rounds up


# --- klruscand_adaptive -----------------------------------------------------------------------------------------------
def adaptive(**values: Any) -> tuple[Policy, list[tuple[float, int, float, bool]]]:
    """The policy, and a list of (ms, memcg, what follows, asleep) that it fills as it runs."""
    policy, seen = find_policy("klruscand_adaptive")(**values), []
    following = policy.next_ms

    def watched(memcg: int, asleep: bool) -> float:
        seen.append((policy.timers.system.now_ms, memcg, following(memcg, asleep), asleep))
        return seen[-1][2]

    policy.next_ms = watched
    return policy, seen


def test_a_fast_memcg_gets_the_shorter_gap() -> None:
    """gups at five times the rate: its first gap chosen is below that of kv; both are within their bounds."""
    policy, seen = adaptive()
    ran(policy, mixed(idle_s=0), 10)
    gaps = {memcg: [ms for _, m, ms, _ in seen if m == memcg] for memcg in (0, 1)}
    assert min(gaps[1]) < 250 < min(ms for ms in gaps[0] if ms != 250)
    assert all(100 <= ms <= 16_000 for each in gaps.values() for ms in each)


def test_rounds_of_no_use_rest_twice_as_long_each_time() -> None:
    """Uniform touches have one rate: 250, 500, 1000, 2000 ms of rest, up to rest_ms; nothing else is told from it."""
    policy, seen = adaptive(rest_ms=2000.0)
    ran(policy, find_workload("uniform")(footprint_gib=0.125), 20)
    rests = [ms for _, _, ms, _ in seen][4::4]
    assert rests[:6] == [500, 1000, 2000, 2000, 2000, 2000]
    gaps = [ms for index, (_, _, ms, _) in enumerate(seen) if index < 4 or index % 4]
    assert set(gaps) == {250}


def test_a_sleeping_memcg_is_not_walked_and_soon_found_awake() -> None:
    policy, seen = adaptive()
    ran(policy, mixed(busy_s=1.0, idle_s=4.0), 12)
    asleep = [(at, ms) for at, memcg, ms, sleeping in seen if memcg == 2 and sleeping]
    assert len(asleep) > 10 and {ms for _, ms in asleep} == {250}
    assert not any(sleeping for _, memcg, _, sleeping in seen if memcg != 2)
    awake = [at for at, memcg, _, sleeping in seen if memcg == 2 and not sleeping and 5000 < at < 6500]
    assert awake and awake[0] < 5000 + 500


def test_a_gap_is_no_shorter_than_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pass takes long, the gap follows: no part of memory is out of reach of two passes in a row."""
    policy, _ = adaptive(interval_ms=10.0, fastest_ms=10.0)
    took: list[float] = []
    following = policy.next_ms

    def watched(memcg: int, asleep: bool) -> float:
        longest = policy.longest_ms[memcg]
        ms = following(memcg, asleep)
        if policy.longest_ms[memcg] == 0:  # a round is over
            took.append(policy.gap_ms[memcg] - longest)
        return ms

    policy.next_ms = watched
    ran(policy, find_workload("gups")(footprint_gib=2.0, rate=20.0, threads=2), 4, fold=32)
    assert took and min(took) >= 0


# --- klruscand_backoff ------------------------------------------------------------------------------------------------
def test_backoff_that_may_not_slow_down_is_klruscand() -> None:
    own, posted = run("klruscand_backoff", mixed(), most=1), run("klruscand", mixed())
    assert own.vmstat == posted.vmstat and own.metrics["time_s"] == posted.metrics["time_s"]


def test_backoff_doubles_while_flows_are_equal_and_halves_if_not() -> None:
    """By what the two counters said at each pass: a twin that reads them beside it."""
    policy = find_policy("klruscand_backoff")(interval_ms=250.0, most=8)
    system = build(machine(), find_workload("kv")(footprint_gib=0.25, rate=4.0), policy, 1, 30.0, 4, Options())
    policy.start(system)
    seen: list[tuple[int, int, float]] = []
    sleep = MemcgTimers.sleep

    def watched(self: MemcgTimers) -> Any:
        seen.append(
            (system.vmstat("pgpromote_success"), system.vmstat("pgdemote_kswapd"), policy.timers.interval_ms[0])
        )
        return sleep(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemcgTimers, "sleep", watched)
        system.run()
    passes, slower, up, down, doubled = seen[1::2], 1.0, 0, 0, 0
    assert len(passes) > 10
    for promoted, demoted, interval_ms in passes:
        flows = promoted - up, demoted - down
        up, down = promoted, demoted
        equal = flows[0] > 0 and abs(flows[0] - flows[1]) <= 0.1 * flows[0]
        slower = min(8.0, slower * 2) if equal else max(1.0, slower / 2)
        doubled += equal
        assert interval_ms == 250.0 * slower
    assert doubled


def test_backoff_leaves_a_policy_alone_that_demotes_nothing() -> None:
    """A working set that fits: pages come up, none goes down, and every pass is on time."""
    workload = find_workload("kv")(footprint_gib=0.25, idle=80.0)
    own, posted = run("klruscand_backoff", workload, duration_s=8), run("klruscand", workload, duration_s=8)
    if posted.vmstat.get("pgdemote_kswapd", 0) == 0:
        assert own.vmstat == posted.vmstat
