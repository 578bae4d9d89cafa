"""Records of the other pghot versions against plain Python: real bit fields, their clocks, v1's heap, v0's sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.mm import pghot_v0 as v0
from klrubench.mm import pghot_v1 as v1
from klrubench.mm.numa_promotion import promotion_rules
from klrubench.mm.pghot import UNKNOWN
from klrubench.mm.pghot_map import (
    FREQ_FIELD,
    NID_FIELD,
    NID_SHIFT,
    READY,
    STAMP_SHIFT,
    alias_share,
    gap_ms,
    map_arrays,
    map_setting,
    record_pages,
    updated_record,
)
from klrubench.mm.state import (
    KPROMOTED_COLD_OLD,
    KPROMOTED_DROPPED,
    NOW_MS,
    PGHOT_RECORDED,
    PGPROMOTE_CANDIDATE,
    PGPROMOTE_SUCCESS,
    WINDOW,
    Mm,
    new_mm,
)
from klrubench.simulate.placement import allocate
from klrubench.simulate.result import check_memory

VERSIONS = ("v3", "v5-compact", "v5-precise")
POSTED = {"v3": (3, 5000), "v5-compact": (2, 4000), "v5-precise": (2, 5000)}
RULES = promotion_rules(5000, 60_000, 65_536, 1)


def small_memory(pages: int = 2048, top: int = 1024) -> Mm:
    """All pages on the lower tier, in the order of frames; nothing free enough to skip the latency test."""
    mm = new_mm([(pages, 0, False, 0)], [top, 2 * pages], [0, 1], 1, 64)
    mm.setting[WINDOW] = -1
    assert allocate(mm.address, np.arange(pages), np.array([1])) == 0
    return mm


@dataclass
class Packed:
    """A record as the kernel packs it: fields are cut to their bits, differences of time to those that were kept."""

    version: str
    threshold: int
    window_ms: int
    hz: int = 1000
    word: int = 0

    def fields(self) -> tuple[int, int, int]:
        """(frequency, time, node)."""
        if self.version == "v5-compact":
            return self.word & 3, self.word >> 2 & 31, 0
        width = 19 if self.version == "v3" else 14
        return self.word >> 10 & 7, self.word >> 13 & ((1 << width) - 1), self.word & 1023

    @property
    def ready_bit(self) -> int:
        return 1 << {"v3": 63, "v5-compact": 7, "v5-precise": 31}[self.version]

    def gap_ms(self, now: int) -> float:
        """The age of the record; v3 subtracts unsigned and unmasked."""
        time = self.fields()[1]
        if self.version == "v5-compact":
            return (((now & 0xF80) - (time << 7)) & 0xF80) * 1000 // self.hz
        if self.version == "v5-precise":
            return ((now - time) & 0x3FFF) * 1000 // self.hz
        gap = (now & 0x7FFFF) - time
        return gap * 1000 // self.hz if gap >= 0 else float("inf")

    def record(self, now: int, nid: int) -> None:
        freq, _, old = self.fields()
        restart = self.gap_ms(now) > self.window_ms
        if self.version == "v3":
            restart |= nid >= 0 and nid != old
        most = 3 if self.version == "v5-compact" else 7
        freq = 1 if restart else min(freq + 1, most)
        ready = self.ready_bit if freq >= self.threshold else self.word & self.ready_bit
        if self.version == "v5-compact":
            self.word = ready | (now >> 7 & 31) << 2 | freq
        else:
            width = 19 if self.version == "v3" else 14
            self.word = ready | (now & ((1 << width) - 1)) << 13 | freq << 10 | max(nid, 0)


def settings_of(version: str, window_ms: float | None = None, hz: int = 1000, ideal: bool = False) -> np.ndarray:
    threshold, window = POSTED[version]
    return map_setting(version, threshold, window if window_ms is None else window_ms, hz, 0, ideal)


def after(setting: np.ndarray, *sightings: int, nid: int = -1) -> int:
    """The record after sightings at these jiffies."""
    record = 0
    for now in sightings:
        record = int(updated_record(setting, record, nid, now))
    return record


@settings(deadline=None, max_examples=150)
@given(
    version=st.sampled_from(VERSIONS),
    hz=st.sampled_from([100, 250, 1000]),
    threshold=st.integers(1, 3),
    window_ms=st.integers(100, 20_000),
    start=st.integers(0, 1 << 21),
    steps=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 300), st.integers(0, 40_000), st.integers(500_000, 600_000)), st.integers(-1, 3)
        ),
        min_size=1,
        max_size=30,
    ),
)
def test_records_are_what_the_bit_fields_make_of_them(
    version: str, hz: int, threshold: int, window_ms: int, start: int, steps: list[tuple[int, int]]
) -> None:
    """Frequency, ready bit, node and age after every sighting, gaps beyond several wraps included."""
    setting = map_setting(version, threshold, window_ms, hz, 0, False)
    record, twin, now = 0, Packed(version, threshold, window_ms, hz), start
    for gap, nid in steps:
        now += gap
        record = int(updated_record(setting, record, nid, now))
        twin.record(now, nid)
        freq, _, node = twin.fields()
        assert (record & FREQ_FIELD, record >> NID_SHIFT & NID_FIELD) == (freq, node)
        assert bool(record & READY) == bool(twin.word & twin.ready_bit)
        age = gap_ms(setting, now + gap, record >> STAMP_SHIFT)
        assert age == min(twin.gap_ms(now + gap), (1 << 40) * 1000 // hz)


@pytest.mark.parametrize(
    ("version", "hz", "window_ms", "share"),
    [
        ("v5-compact", 1000, 3000, 0.75),
        ("v5-compact", 1000, 4000, 1.0),
        ("v5-precise", 1000, 5000, 0.31),
        ("v5-compact", 250, 3000, 0.19),
        ("v5-compact", 1000, 3967, 31 / 32),
        ("v5-precise", 250, 5000, 0.08),
    ],
)
def test_long_gaps_are_folded_back(version: str, hz: int, window_ms: int, share: float) -> None:
    """Of gaps of any length a share passes as short: counted by the stored bits, and seen in 4000 random records."""
    assert alias_share(version, hz, window_ms) == pytest.approx(share, abs=0.006)
    rng, setting = np.random.default_rng(5), settings_of(version, window_ms, hz)
    pairs = np.sort(rng.integers(0, 10**7, (4000, 2)), axis=1)
    passed = np.mean([after(setting, int(a), int(b)) & FREQ_FIELD == 2 for a, b in pairs])
    assert abs(passed - alias_share(version, hz, window_ms)) < 0.03


@pytest.mark.parametrize(
    ("version", "window_ms", "hz", "gap", "sighted"),
    [
        ("v5-compact", 4000, 1000, 3968, 2),  # the longest gap that it can tell
        ("v5-compact", 4000, 1000, 3_600_000, 2),  # an hour
        ("v5-compact", 3000, 1000, 3072, 1),
        ("v5-compact", 3000, 1000, 4096, 2),  # once around
        ("v5-compact", 3000, 1000, 4096 + 2944, 2),
        ("v5-compact", 3000, 1000, 4096 + 3072, 1),
        ("v5-compact", 4000, 250, 1024, 1),  # 4.1 s; at 250 Hz the window does expire
        ("v5-compact", 4000, 250, 4096, 2),
        ("v5-precise", 5000, 1000, 5000, 2),
        ("v5-precise", 5000, 1000, 5001, 1),
        ("v5-precise", 5000, 1000, 16_384 + 5000, 2),
        ("v5-precise", 5000, 250, 1251, 1),
        ("v3", 5000, 1000, 16_384, 1),
        ("v3", 5000, 1000, (1 << 19) + 10, 2),  # the same residue: read as 10 ms
    ],
)
def test_where_a_clock_wraps(version: str, window_ms: int, hz: int, gap: int, sighted: int) -> None:
    """A gap of jiffies from a bucket's start: what is left of it; an ideal clock is not fooled."""
    first = 128 * 50
    assert after(settings_of(version, window_ms, hz), first, first + gap) & FREQ_FIELD == sighted
    truly = 2 if gap * 1000 // hz <= window_ms else 1
    assert after(settings_of(version, window_ms, hz, ideal=True), first, first + gap) & FREQ_FIELD == truly


def test_v3_takes_a_wrapped_clock_for_an_endless_gap() -> None:
    """Sightings 10 jiffies apart, on both sides of 2^19."""
    wrap = 1 << 19
    assert after(settings_of("v3"), wrap - 5, wrap + 5) & FREQ_FIELD == 1
    assert after(settings_of("v3", ideal=True), wrap - 5, wrap + 5) & FREQ_FIELD == 2


@pytest.mark.parametrize(("version", "needed"), [("v3", 3), ("v5-compact", 2), ("v5-precise", 2)])
def test_sightings_needed_and_a_ready_bit_that_stays(version: str, needed: int) -> None:
    setting = settings_of(version)
    ready = [bool(after(setting, *range(0, 500 * n, 500)) & READY) for n in range(1, 5)]
    assert ready == [n >= needed for n in range(1, 5)]
    if version != "v5-compact":  # whose window never expires
        record = after(setting, 0, 500, 1000, 9000)
        assert record & FREQ_FIELD == 1 and record & READY


def test_the_node_of_the_accessor() -> None:
    """Not kept by compact; the last one by precise; in v3 another one starts again, an unknown one does not."""
    kept = {v: [after(settings_of(v), 0, nid=n) >> NID_SHIFT & NID_FIELD for n in (-1, 0, 2)] for v in VERSIONS}
    assert kept == {"v3": [0, 0, 2], "v5-compact": [0, 0, 0], "v5-precise": [0, 0, 2]}
    for version, freq in (("v3", 1), ("v5-compact", 2), ("v5-precise", 2)):
        setting = settings_of(version)
        assert int(updated_record(setting, after(setting, 0, nid=1), 2, 10)) & FREQ_FIELD == freq
        assert int(updated_record(setting, after(setting, 0, nid=-1), -1, 10)) & FREQ_FIELD == 2


def promoted_share(version: str, window_ms: float, ideal: bool, rate: float, interval: int, seconds: int) -> float:
    """Share of 4000 pages, touched `rate` times a second and sighted each `interval` jiffies, that were ever ready."""
    mm, pages = small_memory(4096), 4000
    arrays, _ = map_arrays(mm, 1, map_setting(version, 2, window_ms, 1000, 0, ideal))
    rng, ready = np.random.default_rng(11), np.zeros(pages, bool)
    seen = 1 - np.exp(-rate * interval / 1000)
    for now in range(interval, seconds * 1000, interval):
        touched = np.flatnonzero(rng.random(pages) < seen).astype(np.uint32)
        record_pages(arrays, mm, touched, -1, now)
        ready |= (arrays.record[mm.pfn[:pages]] & READY) > 0
    return float(ready.mean())


@pytest.mark.parametrize(
    ("version", "window_ms", "ideal", "share"),
    [
        ("v5-compact", 3000, True, 0.02),
        ("v5-compact", 3000, False, 0.52),
        ("v5-compact", 4000, False, 0.60),
        ("v5-precise", 5000, True, 0.03),
    ],
)
def test_pages_touched_once_in_300_s(version: str, window_ms: float, ideal: bool, share: float) -> None:
    """Passes of 500 ms over 600 s: 2 % are promoted by a true clock, half or more by a byte's."""
    assert abs(promoted_share(version, window_ms, ideal, 1 / 300, 500, 600) - share) < 0.025


@pytest.mark.parametrize(("interval", "share"), [(2900, 1.0), (3200, 1.0), (3900, 0.0), (4300, 1.0), (5000, 1.0)])
def test_passes_farther_apart_than_the_window(interval: int, share: float) -> None:
    """One touch a second, window 3 s: on a compact clock promotion comes back in bands, on an ideal one never."""
    assert abs(promoted_share("v5-compact", 3000, False, 1.0, interval, 300) - share) < 0.03
    assert promoted_share("v5-compact", 3000, True, 1.0, interval, 300) == (1.0 if interval <= 3000 else 0.0)


# v1: the heap with unpacked records


class Unpacked:
    """v1's records as a dict."""

    def __init__(self, threshold: int, window: int) -> None:
        self.threshold, self.window = threshold, window
        self.records: dict[int, tuple[int, int, int]] = {}

    def record(self, frame: int, nid: int, now: int) -> None:
        freq, last, old = self.records.get(frame, (0, now, max(nid, 0)))
        restart = now - last > self.window or (freq and nid >= 0 and nid != old)
        self.records[frame] = (1 if restart else freq + 1, now, max(nid, 0))

    def hot(self, node: int) -> list[int]:
        return sorted((f for f, _, n in self.records.values() if f >= self.threshold and n == node), reverse=True)


def unpacked(frames: int, threshold: int = 2, window: int = 5000, cap: int = 4096, own: Any = None) -> Any:
    own = own or [v1.NO_LIMIT, v1.NO_LIMIT, 2 * window]
    return v1.unpacked_arrays(frames, 2, cap, np.array([threshold, window, 0, 1, *own], np.int64))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), threshold=st.integers(1, 4))
def test_v1_counts_without_end_and_pops_the_most_frequent(seed: int, threshold: int) -> None:
    """600 sightings of 20 frames from two nodes; heaps hold just the hot ones, best first."""
    rng = np.random.default_rng(seed)
    p, twin, now = unpacked(20, threshold, 300), Unpacked(threshold, 300), (1 << 19) - 3000
    for frame in rng.integers(0, 20, 600).tolist():
        now += int(rng.integers(0, 40))
        nid = int(rng.choice([-1, 0, 0, 0, 1], p=[0.8, 0.05, 0.05, 0.05, 0.05]))
        v1.record_unpacked(p, frame, nid, now, False)
        twin.record(frame, nid, now)
    for frame, (freq, last, node) in twin.records.items():
        assert p.record[frame].tolist() == [freq, last, node]
    for node in range(2):
        queued = p.heap[node, : p.heap_n[node]] >> 32
        assert sorted(queued.tolist(), reverse=True) == twin.hot(node)


def test_v1_drops_only_what_is_older_than_ten_seconds() -> None:
    """No latency threshold, no candidates: 9.9 s old is promoted, as v2 would not; an eighth sighting does not wrap."""
    mm, p = small_memory(), unpacked(1 << 14)
    for jiffies in range(0, 9000, 1000):
        v1.record_pages(p, mm, np.arange(10, dtype=np.uint32), -1, jiffies, False)
    assert (p.record[mm.pfn[:10], v1.FREQ] == 9).all() and p.heap_n[0] == 10
    mm.setting[NOW_MS] = 17_900
    assert v1.pop_promote(p, mm, 0, 5, 17_900, RULES, 1) == (5, 5, 5)
    assert v1.pop_promote(p, mm, 0, 9, 18_001, RULES, 1) == (5, 0, 0)
    assert mm.stat[[KPROMOTED_COLD_OLD, KPROMOTED_DROPPED, PGPROMOTE_CANDIDATE]].tolist() == [5, 5, 0]
    assert (p.place == UNKNOWN).all()
    check_memory(mm)


def test_v2_with_an_ideal_clock_keeps_its_other_rules() -> None:
    """Across 2^19 the count goes on; the eighth sighting wraps; the latency test drops what waited for 6 s."""
    mm, p = small_memory(), unpacked(1 << 14, own=[8, 7, 0])
    page, wrap = np.zeros(1, np.uint32), 1 << 19
    counts = []
    for k in range(-4, 4):
        v1.record_pages(p, mm, page, -1, wrap + 1000 * k, False)
        counts.append(int(p.record[mm.pfn[0], v1.FREQ]))
    assert counts == [1, 2, 3, 4, 5, 6, 7, 0]
    for jiffies in (wrap + 4000, wrap + 5000):
        v1.record_pages(p, mm, page, -1, jiffies, False)
    mm.setting[NOW_MS] = wrap + 11_000
    assert v1.pop_promote(p, mm, 0, 5, wrap + 11_000, RULES, 1) == (1, 0, 0)
    assert mm.stat[KPROMOTED_DROPPED] == 1 and mm.stat[KPROMOTED_COLD_OLD] == 0


# v0: the hash that is swept each second


def swept(posted: bool, frames: int = 1 << 14) -> Any:
    return v0.sweep_arrays(frames, np.array([2, 5000, 0, posted, 0], np.int64))


def sweep_all(p: Any, mm: Mm, jiffies: int) -> tuple[int, int, int]:
    """(records seen, folios promoted, refused)."""
    _, visited, folios, _, refused = v0.sweep(p, mm, 0, np.array([0, 0, 0, 0, 1]), jiffies, 1)
    return visited, folios, refused


def test_v0_as_posted_promotes_at_the_first_sighting_and_drops_at_the_second() -> None:
    """The gap is taken backwards and a new record counts twice: what the author's counters showed."""
    mm, p = small_memory(), swept(True)
    v0.record_pages(p, mm, np.arange(100, dtype=np.uint32), 10)
    v0.record_pages(p, mm, np.arange(30, dtype=np.uint32), 11)
    assert sweep_all(p, mm, 500) == (100, 70, 0)
    assert mm.stat[[PGPROMOTE_SUCCESS, KPROMOTED_DROPPED]].tolist() == [70, 30] and p.setting[v0.COUNT] == 0
    check_memory(mm)


def test_v0_as_its_comments_say_wants_two_sightings_between_two_sweeps() -> None:
    mm, p = small_memory(), swept(False)
    for jiffies in (10, 11):
        v0.record_pages(p, mm, np.arange(30, dtype=np.uint32), jiffies)
    v0.record_pages(p, mm, np.arange(30, 100, dtype=np.uint32), 11)
    assert sweep_all(p, mm, 500) == (100, 30, 0)
    assert mm.stat[[PGPROMOTE_SUCCESS, KPROMOTED_DROPPED, PGHOT_RECORDED]].tolist() == [30, 70, 130]


def test_v0_keeps_what_the_gate_refused_until_it_is_two_windows_old() -> None:
    """And a slice of the sweep ends when its time is used up."""
    mm, p = small_memory(top=512), swept(True)
    v0.record_pages(p, mm, np.arange(600, dtype=np.uint32), 0)
    assert v0.sweep(p, mm, 0, np.array([0, 0, 1, 1, 100]), 500, 1)[2] == 100
    assert sweep_all(p, mm, 500) == (500, 412, 88)
    at, *_, refused = v0.sweep(p, mm, 0, np.array([0, 1, 1, 1, 8]), 1500, 1)
    assert refused == 8 and at < len(p.order)
    assert sweep_all(p, mm, 10_000) == (88, 0, 88)
    assert sweep_all(p, mm, 10_001) == (88, 0, 0) and mm.stat[KPROMOTED_COLD_OLD] == 88
    assert sorted(p.order.tolist()) == list(range(1 << 14)) and p.setting[v0.COUNT] == 0
    assert mm.stat[PGPROMOTE_SUCCESS] == 512 and mm.stat[PGHOT_RECORDED] == 600
