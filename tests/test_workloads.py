"""What each workload promises: its law, its parameters, and the same touches however they are asked for."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from klrubench.engine.streams import head_ranks
from klrubench.errors import ParameterError, ScaleError, TraceFormatError, UnknownNameError
from klrubench.workload import Layout, Workload

FOLDER = Path(__file__).parent.parent / "workloads"
NAMES = ("zipf", "kv", "gups", "hotset_shift", "phases", "hotset", "uniform", "scan")
PAGE = 0x3FFFFFFF


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"workload_under_test_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def workload(name: str, **values: Any) -> Workload:
    loaded = vars(module(name)).values()
    (cls,) = (item for item in loaded if isinstance(item, type) and issubclass(item, Workload) and item is not Workload)
    made: Workload = cls(**values)
    return made


def layout(
    pages: int = 4096, fold: int = 8, seed: int = 5, accesses: int = 1 << 21, duration_s: float = 120.0
) -> Layout:
    return Layout(pages * fold, pages, fold, seed, accesses, duration_s)


def touches(made: Workload, where: Layout, count: int = 1 << 20, first: int = 0) -> np.ndarray:
    out = np.empty(count, np.uint32)
    made.stream(where).fill(out, first)
    return out


def page_counts(out: np.ndarray, where: Layout) -> np.ndarray:
    return np.bincount(out & PAGE, minlength=where.pages)


@pytest.mark.parametrize("name", NAMES)
def test_every_touch_names_a_page_and_none_is_cached(name: str) -> None:
    where = layout(pages=4000)
    out = touches(workload(name), where)
    assert (out & PAGE).max() < where.pages
    assert not (out & 0x40000000).any()


@pytest.mark.parametrize("name", NAMES)
def test_writes_are_the_rest_of_the_read_share(name: str) -> None:
    for values in ({}, {"read_share": 0.3}, {"read_share": 0.0}, {"read_share": 1.0}):
        made = workload(name, **values)
        written = float((touches(made, layout()) >> 31).mean())
        share = 1 - made.read_share
        assert abs(written - share) <= 5 * math.sqrt(share * (1 - share) / (1 << 20)) + 1e-9


@pytest.mark.parametrize("chunk", [1, 7, 4096, 65536])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_do_not_show(name: str, chunk: int) -> None:
    where, made = layout(), workload(name)
    first, count = where.accesses // 2 - 100, min(131_072, 400 * chunk)  # across the shift, and a change of phase
    whole, parts, stream = touches(made, where, count, first), np.empty(count, np.uint32), made.stream(where)
    for start in reversed(range(0, count, chunk)):
        stream.fill(parts[start : start + chunk], first + start)
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_changes_the_touches_and_nothing_else_does(name: str) -> None:
    made = workload(name)
    first, again, other = (touches(made, layout(seed=seed), 5000) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_declarations_are_complete(name: str) -> None:
    made = workload(name)
    assert made.source and type(made).__doc__
    assert all(declared.help for declared in made.parameters.values())
    assert type(made)(**made.values).values == made.values
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 65
    with pytest.raises(UnknownNameError):
        workload(name, no_such_parameter=1)


def test_controls() -> None:
    assert {name for name in NAMES if workload(name).control} == {"uniform", "scan"}


def test_uniform_is_uniform() -> None:
    where = layout()
    assert stats.chisquare(page_counts(touches(workload("uniform"), where), where)).pvalue > 1e-4


def test_zipf_deals_out_its_head_and_then_shares_a_page_among_neighbours() -> None:
    """Ranks touched more than 100 times a second take turns over head / fold pages;
    `fold` neighbours share each other page.
    """
    where = layout()
    ranked = np.sort(page_counts(touches(workload("zipf"), where, 1 << 22), where))[::-1]
    law = np.arange(1, where.full_pages + 1.0) ** -0.99
    head = head_ranks(where, where.full_pages, 0.99)
    rates = law / law.sum() * where.accesses * where.fold / where.duration_s
    assert head > where.fold and rates[head - 1] >= 100 > rates[2 * head]
    dealt = law[:head].reshape(where.fold, -1).sum(axis=0)
    shared = law[head:].reshape(-1, where.fold).sum(axis=1)
    expected = np.sort(np.concatenate([dealt, shared]))[::-1] / law.sum()
    for pages in (1, 10, 100, 1000):
        assert ranked[:pages].sum() / (1 << 22) == pytest.approx(expected[:pages].sum(), abs=4e-3)
    assert expected[0] < 0.6 * law[: where.fold].sum() / law.sum()


@pytest.mark.parametrize(("mix", "share"), [("a", 0.5), ("b", 0.95), ("c", 1.0), ("d", 0.95)])
def test_kv_mixes_set_the_read_share(mix: str, share: float) -> None:
    assert workload("kv", mix=mix).read_share == share
    assert workload("kv", mix=mix, read_share=0.7).read_share == 0.7
    with pytest.raises(ParameterError, match="mix"):
        workload("kv", mix="e")


def test_kv_leaves_idle_pages_alone() -> None:
    where = layout()
    counts = page_counts(touches(workload("kv", idle=60, s=0), where), where)
    assert (counts > 0).mean() == pytest.approx(0.4, abs=1e-3)


def test_kv_d_drifts_and_the_others_do_not() -> None:
    """After 2 M touches of workload D at fold 8, 100,000 of 131,072 records are new: others are the hottest by then."""
    where = layout(accesses=3_000_000)
    kept = {}
    for mix in "bd":
        early, late = (
            page_counts(touches(workload("kv", mix=mix), where, 1 << 19, at), where) for at in (0, 2_000_000)
        )
        hot_early, hot_late = (set(np.argsort(counts)[-40:].tolist()) for counts in (early, late))
        kept[mix] = len(hot_early & hot_late)
    assert kept["b"] > 30 and kept["d"] < 15


@pytest.mark.parametrize("hot_pages", ["scattered", "contiguous"])
def test_gups_meets_its_closed_form(hot_pages: str) -> None:
    """The best static placement hits 0.9 + 0.1 F / W when the hot set fits."""
    where = layout()
    counts = page_counts(touches(workload("gups", hot_pages=hot_pages), where, 1 << 22), where)
    hot = np.argsort(counts)[-round(0.2 * where.pages) :]
    assert counts[hot].sum() / counts.sum() == pytest.approx(0.9 + 0.1 * 0.2, abs=1e-3)
    assert (sorted(hot) == list(range(len(hot)))) == (hot_pages == "contiguous")


def test_gups_takes_22_touches_a_page_and_second() -> None:
    made = workload("gups")
    second = made.threads / (made.compute_ns + 114 / made.mlp) * 1e9
    assert made.rate == 0
    assert second / made.full_pages() == pytest.approx(22, rel=0.01)


def test_a_quarter_of_the_hot_set_moves_half_way() -> None:
    where = layout()
    made = workload("hotset_shift", hot_pages="contiguous")
    half = where.accesses // 2
    before, after = (page_counts(touches(made, where, half, at), where) for at in (0, half))
    hot = round(0.2 * where.pages)
    moved = round(hot / 4)
    for counts, first in ((before, 0), (after, moved)):
        assert counts[first : first + hot].sum() / half == pytest.approx(0.92, abs=3e-3)
    edge = touches(made, where, 2000, half - 1000) & PAGE
    assert np.mean(edge[:1000] < moved) > 0.15 and np.mean(edge[1000:] < moved) < 0.03
    with pytest.raises(ParameterError, match="over 100 %"):
        workload("hotset_shift", hot=90).stream(where)


@pytest.mark.parametrize(
    ("pattern", "order"), [("stairs", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]), ("zigzag", [0, 1, 2, 3, 2, 1, 0, 1, 2, 3])]
)
def test_one_region_at_a_time(pattern: str, order: list[int]) -> None:
    where = layout(accesses=10_000, duration_s=10.0)
    out = touches(workload("phases", regions=4, phase_s=1, pattern=pattern), where, 10_000)
    region = (out & PAGE) // (where.pages // 4)
    assert region.reshape(10, 1000).tolist() == [[hot] * 1000 for hot in order]


def test_shuffled_shares_are_dealt_out_anew() -> None:
    where = layout(duration_s=10.0)
    out = touches(workload("phases", regions=5, phase_s=2.5), where, where.accesses)
    deals = []
    for phase in np.split(out & PAGE, 4):
        counts = np.bincount(phase * 5 // where.pages, minlength=5)
        deals.append(np.round(counts / len(phase) * 10).astype(int).tolist())
        assert sorted(deals[-1]) == [0, 1, 2, 3, 4]
    assert len({tuple(deal) for deal in deals}) > 1


def test_phases_follow_a_masim_file(tmp_path: Path) -> None:
    file = tmp_path / "two.cfg"
    file.write_text("a, 100\nb, 300\n\nfirst\n1000\na, 1, 64, 1, ro\n\nsecond\n1000\nb, 1, 64, 1\n")
    made, where = workload("phases", config=str(file)), layout(duration_s=4.0)
    out = touches(made, where, where.accesses)
    for number, phase in enumerate(np.split(out, 4)):
        assert np.all(((phase & PAGE) < 1024) == (number % 2 == 0))
        assert np.all(phase >> 31 == number % 2)
    assert "stretched" in made.notes(where)[0] and made.content()
    file.write_text("a, 100\n")
    with pytest.raises(TraceFormatError, match="no phase"):
        workload("phases", config=str(file))
    with pytest.raises(ParameterError, match="cannot read"):
        workload("phases", config=str(tmp_path / "none.cfg"))
    file.write_text("a, 1\nb, 9999999\n\nfirst\n1000\na, 1, 64, 1, ro\n")
    with pytest.raises(ScaleError, match="region 'a'"):
        workload("phases", config=str(file)).stream(where)


def test_hotset_is_the_measured_program() -> None:
    made: Any = workload("hotset")
    assert (made.full_pages(), made.threads, made.placement) == (65_536, 1, "lower")
    assert made.rate * made.full_pages() == pytest.approx(48_800)
    where = layout(pages=65_536, fold=1)
    classes = made.class_of(where)
    assert np.bincount(classes).tolist() == [4096, 12_288, 49_152]
    counts = page_counts(touches(made, where, 1 << 22), where)
    law = np.array([0.80 / 4096, 0.15 / 12_288, 0.05 / 49_152])[classes]
    assert stats.chisquare(counts, law * counts.sum()).pvalue > 1e-4
    hot_share = (classes == 0).reshape(-1, 512).mean(1)
    assert hot_share.min() > 0.02 and hot_share.max() < 0.13


def test_a_scan_touches_every_line_of_a_page_before_the_next() -> None:
    where = layout(pages=300)
    out = touches(workload("scan"), where, 300 * 64 * 2) & PAGE
    assert np.all(page_counts(out, where) == 128)
    steps = np.diff(out.astype(int)) % 300
    assert set(steps.tolist()) == {0, 1} and steps.sum() == 599
