"""Ranges, measures, samplers' plans, Cori's heuristic, the journal's mending: the parts of a sweep one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_fakes import asked, write_sweep_study

from klrubench.errors import ParameterError, UnknownNameError, UsageError
from klrubench.report.sweep import show_text, sweep_text
from klrubench.study.plugins import find_policy
from klrubench.study.sweep import cori, samplers
from klrubench.study.sweep.measures import MEASURES, constraints, objectives
from klrubench.study.sweep.plan import held_out, in_time, resolve
from klrubench.study.sweep.show import contour, flat, slices
from klrubench.study.sweep.space import Axis, Space, space_of
from klrubench.study.sweep.storage import mend, without_password
from klrubench.study.sweep.trials import Trial, front, ranked


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_sweep_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mine(**more: Any) -> Space:
    about: dict[str, Any] = {"given": {}, "narrowed": (), "fixed": {}, **more}
    return space_of(find_policy("mine"), **about)


def test_the_space_is_what_the_policy_declares_and_can_be_tuned(study: Path) -> None:
    space = mine()
    assert [axis.name for axis in space.axes] == ["interval_ms", "batch", "threshold", "quick"]
    assert space.axis("interval_ms") == Axis("interval_ms", 10.0, 60_000.0, log=True)
    assert space.axis("threshold") == Axis("threshold", 1.0, 7.0, whole=True)
    assert space.axis("quick") == Axis("quick", choices=(False, True))
    assert space.start() == {"interval_ms": 2000.0, "batch": 1 << 17, "threshold": 2, "quick": False}


def test_what_is_typed_narrows_it(study: Path) -> None:
    space = mine(narrowed=("interval_ms=50:10000:lin", "kind=a/c", "batch=100.5:2000"), fixed={"quick": "true"})
    assert space.axis("interval_ms") == Axis("interval_ms", 50.0, 10_000.0)
    assert space.axis("kind") == Axis("kind", choices=("a", "c"))
    assert space.axis("batch") == Axis("batch", 101.0, 2000.0, log=True, whole=True)
    assert space.axis("quick") is None
    assert space.fixed == {"quick": True}
    assert space.values(space.start())["quick"] is True
    assert space.start()["batch"] == 2000


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"narrowed": ("batch=1:99",)}, ParameterError, "not a range inside 64-2097152"),
        ({"narrowed": ("batch=99:64",)}, ParameterError, "not a range inside"),
        ({"narrowed": ("batch=few",)}, ParameterError, "write LOW:HIGH"),
        ({"narrowed": ("kind=a/x",)}, ParameterError, "legal: a, b, c"),
        ({"narrowed": ("words=1:2",)}, ParameterError, "neither a range nor choices"),
        ({"narrowed": ("bach=1:2",)}, UnknownNameError, "did you mean batch"),
        ({"narrowed": ("batch=64:99",), "fixed": {"batch": "70"}}, ParameterError, "held at 70 and searched too"),
        ({"fixed": {"interval_ms": 1, "batch": 64}}, ParameterError, "interval_ms=1"),
        ({"fixed": {"interval_ms": 20, "batch": 64, "threshold": 1, "quick": True}}, UsageError, "nothing to search"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(study: Path, more: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as told:
        mine(**more)
    assert "\n" not in str(told.value)


@settings(deadline=None)
@given(
    st.floats(0, 1), st.sampled_from([Axis("a", 10, 60_000, log=True), Axis("b", -3, 5), Axis("c", 1, 99, True, True)])
)
def test_a_place_in_the_range_and_back(part: float, axis: Axis) -> None:
    value = axis.at(part)
    assert axis.low <= value <= axis.high
    slack = 0.02 if not axis.whole else 0.51 / math.log(99)
    assert abs(axis.part(value) - part) <= slack


@settings(deadline=None)
@given(st.floats(10, 60_000))
def test_a_drawn_number_has_three_digits_and_stays_inside(value: float) -> None:
    axis = Axis("a", 10.04, 59_990.0, log=True)
    found = axis.value(min(axis.high, max(axis.low, value)))
    assert axis.low <= found <= axis.high
    assert found in (axis.low, axis.high) or float(f"{found:.3g}") == found


def test_measures_and_bounds() -> None:
    run = {"time_s": 12.0, "charged_time_s": 15.0, "promoted_mib_s": 3.0, "daemon_cpu_s": 6.0, "op_p99_ns": 500.0}
    top = {"time_s": 10.0}
    shown = {name: m.shown(m.log_or_plain(run, top)) for name, m in MEASURES.items()}
    expected = {"charged": 50.0, "spare": 20.0, "traffic": 3.0, "daemon_cpu": 0.5, "p99": 500.0, "convergence": 12.0}
    assert shown == pytest.approx(expected)
    assert [each.name for each in objectives(("slowdown", "charged", "cpu"))] == ["charged", "daemon_cpu"]
    below, above = constraints(["daemon_cpu<=0.02", "traffic >= 5"])
    assert below.violation(0.03) == pytest.approx(0.01) and below.violation(0.01) < 0
    assert above.violation(3) == 2
    assert [below.text, above.text] == ["daemon_cpu<=0.02", "traffic>=5"]
    with pytest.raises(ParameterError, match="write MEASURE<=NUMBER"):
        constraints(["daemon_cpu=1"])
    with pytest.raises(UnknownNameError, match="objective 'chargd'"):
        objectives(["chargd"])


def test_the_plan_shuffles_cells_seed_by_seed_and_holds_workloads_out(study: Path) -> None:
    plan = resolve(asked())
    assert plan.workloads == ["one", "two", "three"]
    assert [cell.seed for cell in plan.cells] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for seed in (1, 2, 3):
        assert sorted(c.workload for c in plan.cells if c.seed == seed) == ["one", "three", "two"]
    assert plan.stages() == [(0, 4), (4, 7), (7, 9)]
    assert held_out(plan) == ["four"]
    assert resolve(asked(objective=("charged", "traffic"))).stages() == [(0, 9)]
    assert plan.identity == resolve(asked(trials=999)).identity
    assert plan.identity != resolve(asked(sampler="random")).identity
    with pytest.raises(UsageError, match="tunes on it too"):
        held_out(resolve(asked(held_out=("one",))))


def test_the_period_fits_into_a_run_unless_it_is_typed(study: Path) -> None:
    plan, said = in_time(resolve(asked(duration=60.0)))
    axis = plan.space.axis("interval_ms")
    assert axis is not None and axis.high == 15_000
    assert said == ["interval_ms up to 15000, not 60000: 4 fit into 60 s"]
    plan, said = in_time(resolve(asked(duration=60.0, param=("interval_ms=10:30000:log",))))
    axis = plan.space.axis("interval_ms")
    assert axis is not None and axis.high == 30_000
    assert len(said) == 1 and said[0].startswith("warning: interval_ms up to 30000")
    assert in_time(resolve(asked(duration=240.0)))[1] == []


def test_the_grid_is_full_and_within_the_budget(study: Path) -> None:
    space = mine(fixed={"quick": False})
    points = samplers.grid(space, 60, seed=1)
    levels = [{point[axis.name] for point in points} for axis in space.axes]
    assert math.prod(len(each) for each in levels) == len(points) <= 60
    assert len({str(point) for point in points}) == len(points) >= 27
    assert points == samplers.grid(space, 60, seed=1)


def test_seeds_follow_from_study_and_trial() -> None:
    seeds = {samplers.derived(study, number) for study in range(20) for number in range(20)}
    assert len(seeds) == 400
    assert samplers.derived(1, 2) == samplers.derived(1, 2)
    with pytest.raises(UnknownNameError, match="did you mean tpe"):
        samplers.check("tpee", 1)
    with pytest.raises(UsageError, match="takes one --objective"):
        samplers.check("cori", 2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), max_size=60))
def test_waits_as_counted_one_by_one(pages: list[int]) -> None:
    last: dict[int, int] = {}
    slow = []
    for number, page in enumerate(pages):
        if page in last:
            slow.append(number - last[page])
        last[page] = number
    found = cori.waits(np.array(pages, np.uint32), np.arange(len(pages)))
    assert sorted(found.tolist()) == sorted(slow)


def test_cori_finds_the_period_of_a_round_trip(study: Path) -> None:
    """Every page waits a whole round: pages / (touches a second), the rate being touches a page and second."""
    plan = resolve(asked(workload=("one:rate=2",), held_out=("none",)))
    found = cori.reuse_s([plan.cells[0].base])
    assert found == pytest.approx(0.5, rel=0.1)
    points = cori.points(plan.space, [plan.cells[0].base])
    assert points[0]["interval_ms"] == pytest.approx(500, rel=0.1)
    assert points[1]["interval_ms"] == pytest.approx(2 * points[0]["interval_ms"], rel=0.01)
    assert all(10 <= point["interval_ms"] <= 60_000 for point in points)
    with pytest.raises(UsageError, match="searches no period"):
        cori.period_axis(mine(fixed={"interval_ms": 100}))


def trial(number: int, values: dict[str, Any], *objective: float, state: str = "complete") -> Trial:
    return Trial(number, state, values, values, objective, [{"charged": each} for each in objective])


def test_ranks_and_fronts_against_brute_force() -> None:
    rng = np.random.default_rng(3)
    rows = [trial(k, {"x": k}, *map(float, rng.integers(0, 9, 2))) for k in range(60)]
    rows.append(trial(60, {"x": 60}, -9.0, -9.0, state="pruned"))
    found = front(rows)
    for row in rows[:60]:
        beaten = any(
            all(a <= b for a, b in zip(o.objectives, row.objectives, strict=True)) and o.objectives != row.objectives
            for o in rows[:60]
        )
        assert (row in found) is not beaten
    assert [t.number for t in ranked(rows)] == [
        t.number for t in sorted(rows[:60], key=lambda t: (t.objectives[0], t.number))
    ]


def test_slices_contour_and_flatness() -> None:
    wide, other = Axis("x", 1, 10_000, log=True), Axis("y", 1, 3, whole=True)
    rows = [
        trial(k * 3 + y, {"x": 10 ** ((k + 0.5) / 5), "y": y}, abs(k - 10) / 10 + 0.001 * y)
        for k in range(20)
        for y in (1, 2, 3)
    ]
    cut = slices(wide, rows, 4)
    assert sum(each["trials"] for each in cut) == 60
    assert [round(each["best"], 3) for each in cut] == [0.601, 0.101, 0.001, 0.501]
    assert [each["value"] for each in slices(other, rows)] == [1, 2, 3]
    assert flat(other, rows) and not flat(wide, rows)
    grid = contour(wide, other, rows)
    assert min(value for row in grid["best"] for value in row if value is not None) == pytest.approx(0.001)
    assert len(grid["best"]) == 3 and len(grid["best"][0]) == 8


def test_a_cut_journal_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(b'{"a":1}\n{"b":2}\n{"c":')
    Path(f"{path}.lock").symlink_to(path)
    mend(path)
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n'
    assert not Path(f"{path}.lock").is_symlink()


def test_a_password_is_not_printed() -> None:
    assert without_password("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me@host/db"
    assert without_password("sqlite:///x.db") == "sqlite:///x.db"


@pytest.mark.parametrize("width", [72, 100])
def test_text_keeps_to_the_width_and_says_what_matters(study: Path, width: int) -> None:
    from sweep_fakes import valley

    from klrubench.study.sweep.drive import sweep

    found = sweep(asked(trials=10, fresh_seeds=2), store="r", jobs=1, task=valley).summary
    text = show_text(found, width, ascii_only=True)
    for words in ("default", "tuned on all", "per workload", "leave one out", "held-out", "importance", "winner: "):
        assert words in sweep_text(found, width)
    for words in ("best so far", "interval_ms", "across"):
        assert words in text
    assert max(map(len, text.split("\n"))) <= max(width, 80)
