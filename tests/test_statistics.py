"""Intervals that cover, tests against closed forms and textbook numbers, verdicts, and the tables made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klrubench.study.scores import matrix, suite_scores, verdicts, wide
from klrubench.study.statistics import (
    estimate,
    gap_closed,
    holm,
    log_ratios,
    median_worst,
    overall,
    p_value,
    t_quantile,
    verdict,
)
from klrubench.study.table import frame

REPEATS = 2000


def test_t_quantiles_of_the_tables() -> None:
    for df, expected in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (1e9, 1.960)):
        assert t_quantile(df) == pytest.approx(expected, abs=5e-4)


def test_closed_form_of_two_seeds() -> None:
    # with two seeds t has one degree of freedom, whose quantile is tan(pi x 0.475)
    found = estimate([0.10, 0.14])
    assert found.log == pytest.approx(0.12)
    assert found.half == pytest.approx(math.tan(math.pi * 0.475) * 0.02)
    assert p_value([0.10, 0.14]) == pytest.approx(1 - 2 / math.pi * math.atan(0.12 / 0.02))


def test_slowdown_in_per_cent() -> None:
    found = estimate(log_ratios([11.0, 22.0], [10.0, 20.0]))
    assert found.pct == pytest.approx(10)
    assert found.exact
    assert (found.low_pct, found.high_pct, found.half_pct) == (found.pct, found.pct, 0.0)


def test_interval_ends_and_half_agree() -> None:
    found = estimate([0.1, 0.2, 0.15])
    assert found.low_pct is not None and found.high_pct is not None
    assert found.half_pct == pytest.approx((found.high_pct - found.low_pct) / 2)
    assert not found.exact


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.1])
    assert (found.half, found.low_pct, found.high_pct, found.half_pct) == (None, None, None, None)
    assert p_value([0.1]) is None
    assert not found.exact


def test_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    logs = [0.12, 0.05, 0.08, 0.11]
    ours, theirs = estimate(logs), stats.ttest_1samp(logs, 0)
    assert p_value(logs) == pytest.approx(theirs.pvalue)
    assert ours.half == pytest.approx(theirs.confidence_interval(0.95).high - ours.log)


def test_the_interval_covers_the_truth_in_95_of_100() -> None:
    draw = np.random.default_rng(1)
    for seeds in (3, 5):
        found = [estimate(list(0.2 + 0.05 * draw.standard_normal(seeds))) for _ in range(REPEATS)]
        hits = sum(abs(each.log - 0.2) <= (each.half or 0) for each in found)
        assert hits / REPEATS == pytest.approx(0.95, abs=0.02)  # 4 standard errors


@pytest.mark.parametrize("spread", [[0.05] * 6, [0.01, 0.01, 0.01, 0.01, 0.02, 0.2]])
def test_the_overall_interval_covers_with_equal_and_with_unequal_noise(spread: list[float]) -> None:
    draw = np.random.default_rng(2)
    means = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    hits = 0
    for _ in range(REPEATS):
        found = overall([list(m + s * draw.standard_normal(4)) for m, s in zip(means, spread, strict=True)])
        hits += abs(found.log - 0.25) <= (found.half or 0)
    assert hits / REPEATS == pytest.approx(0.95, abs=0.025)


def test_overall_with_equal_noise_has_the_pooled_degrees_of_freedom() -> None:
    suite = [[0.1, 0.2, 0.3], [1.1, 1.2, 1.3], [2.1, 2.2, 2.3]]
    found = overall(suite)
    assert found.df == pytest.approx(3 * 2)
    assert found.log == pytest.approx(1.2)
    assert found.half == pytest.approx(t_quantile(6) * math.sqrt(3 * 0.01 / 3) / 3)
    assert overall([[0.1, 0.1], [0.3, 0.3]]).exact
    assert overall([[0.1], [0.3]]).half is None


def test_holm_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_no_less_than_the_raw_value_and_keeps_the_order(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert all(p <= a <= 1 for p, a in zip(raw, adjusted, strict=True))
    assert min(adjusted) == min(1.0, len(raw) * min(raw))
    order = sorted(range(len(raw)), key=raw.__getitem__)
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


def test_holm_controls_the_family() -> None:
    draw = np.random.default_rng(3)
    wrong = sum(min(holm(list(draw.random(5)))) < 0.05 for _ in range(REPEATS))
    assert wrong / REPEATS == pytest.approx(0.05, abs=0.02)


def around(mean: float, spread: float) -> list[float]:
    return [mean - spread, mean, mean + spread]


@pytest.mark.parametrize(
    ("logs", "word", "equal_to"),
    [
        ({"a": around(0.05, 0.001), "b": [0.201, 0.199, 0.2]}, "**", ()),
        ({"a": around(0.05, 0.01), "b": [0.12, 0.10, 0.13]}, "*", ()),
        ({"a": around(0.05, 0.05), "b": [0.2, 0.1, 0.15]}, "n.s.", ()),
        ({"a": around(0.05, 0.0001), "b": around(0.055, 0.0002)}, "equal", ("b",)),
        ({"a": around(0.05, 0.0), "b": around(0.2, 0.0)}, "exact", ()),
        ({"a": around(0.05, 0.0), "b": around(0.05, 0.0)}, "equal", ("b",)),
        ({"a": [0.05], "b": [0.2]}, "too few seeds", ()),
        ({"a": [0.05, 0.06]}, "alone", ()),
    ],
)
def test_verdicts(logs: dict[str, Sequence[float]], word: str, equal_to: tuple[str, ...]) -> None:
    found = verdict(logs)
    assert (found.best, found.word, found.equal_to) == ("a", word, equal_to)


def test_a_difference_is_told_in_points_of_slowdown() -> None:
    found = verdict({"a": [math.log(1.1)] * 3, "b": [math.log(1.3)] * 3})
    assert found.difference_pct == pytest.approx(20)
    assert (found.low_pct, found.high_pct) == (pytest.approx(20), pytest.approx(20))


def test_more_policies_make_a_claim_harder() -> None:
    two = {"a": around(0.05, 0.01), "b": [0.12, 0.11, 0.13]}
    many = {**two, **{f"c{i}": [0.14, 0.13, 0.15] for i in range(6)}}
    p_two, p_many = verdict(two).p, verdict(many).p
    assert p_two is not None and p_many is not None and p_many > p_two


def test_gap_closed() -> None:
    assert gap_closed(14.0, 8.0, 2.0) == pytest.approx(0.5)
    assert gap_closed(14.0, 20.0, 2.0) == pytest.approx(-0.5)
    assert gap_closed(3.0, 2.5, 2.1) is None
    assert gap_closed(2.0, 2.5, 4.0) is None
    assert median_worst([0.5, None, 0.1, 0.3]) == (0.3, 0.1)
    assert median_worst([0.5, 0.1]) == (0.3, 0.1)
    assert median_worst([None]) == (None, None)


TIMES = {"all_top": 100.0, "first_touch": 120.0, "good": 105.0, "bad": 130.0, "oracle_static": 102.0}


def a_run(policy: str, workload: str, seed: int, time_s: float, **more: Any) -> dict[str, Any]:
    return {
        "policy": policy,
        "workload": workload,
        "machine": "cxl-asic",
        "ratio": "1:2",
        "seed": seed,
        "run_id": f"{policy}{workload}{seed}",
        "policy_role": "bound" if policy in ("all_top", "oracle_static") else "policy",
        "contestant": policy not in ("all_top", "oracle_static"),
        "workload_control": workload == "uniform",
        "time_s": time_s,
        "steady_time_s": time_s / 2,
        "charged_time_s": time_s * 1.1,
        "charged_steady_time_s": time_s * 0.55,
        "op_p99_ns": 10 * time_s,
        "young_share": 0.5,
        "convergence_s": None if policy == "bad" and seed == 2 else 10.0,
        "cpu_json": '{"klruscand": 10.5}',
        "daemon_threads_json": '["klruscand"]',
        "bound_json": '{"gate": 0.5}' if seed == 1 else "{}",
        "vmstat_json": "{}",
        "notes_json": '["scaled"]',
        "sysctls_json": "{}",
        **more,
    }


def some_runs(noise: float = 0.0) -> list[dict[str, Any]]:
    draw = np.random.default_rng(4)
    return [
        a_run(policy, workload, seed, time_s * seed * math.exp(noise * draw.standard_normal()))
        for workload in ("kv", "gups", "uniform")
        for policy, time_s in TIMES.items()
        for seed in (1, 2, 3)
    ]


def test_matrix_is_paired_and_against_the_baseline() -> None:
    cells = matrix(frame(some_runs())).filter(setting="kv")
    found = dict(zip(cells["policy"], cells["slowdown_pct"], strict=True))
    assert found == pytest.approx({"all_top": 0, "first_touch": 20, "good": 5, "bad": 30, "oracle_static": 2})
    assert cells["exact"].all()
    gaps = dict(zip(cells["policy"], cells["gap_closed"], strict=True))
    assert gaps["good"] == pytest.approx(15 / 18)
    assert gaps["bad"] == pytest.approx(-10 / 18)
    assert gaps["first_touch"] == 0
    good = cells.filter(policy="good").to_dicts()[0]
    assert good["charged_pct"] == pytest.approx(5)  # what the baseline's own threads take is charged to it too
    assert good["steady_pct"] == pytest.approx(5)
    assert good["op_p99_ratio"] == pytest.approx(1.05)
    assert cells.filter(policy="bad")["convergence_s"].to_list() == [None]
    other = matrix(frame(some_runs()), baseline="first_touch").filter(setting="kv", policy="good")
    assert other["slowdown_pct"].to_list() == pytest.approx([-12.5])


def test_verdicts_are_among_what_a_kernel_can_run() -> None:
    found = {row["setting"]: row for row in verdicts(frame(some_runs(noise=0.001))).to_dicts()}
    assert found["kv"]["best"] == "good"
    assert found["kv"]["next_best"] == "first_touch"
    assert found["kv"]["word"] == "**"


def test_suite_leaves_controls_out_of_the_gap_but_not_out_of_the_mean() -> None:
    runs = [run for run in some_runs() if run["workload"] != "uniform"]
    runs += [a_run(policy, "uniform", seed, 100.0) for policy in TIMES for seed in (1, 2, 3)]
    found = {row["policy"]: row for row in suite_scores(frame(runs)).to_dicts()}
    assert found["good"]["slowdown_pct"] == pytest.approx(100 * (1.05 ** (2 / 3) - 1))
    assert found["bad"]["gap_worst"] == pytest.approx(-10 / 18)
    assert found["bad"]["worst_setting"] == "kv"
    assert found["good"]["settings"] == 3


def test_wide_adds_what_has_no_column() -> None:
    rows = {row["policy"]: row for row in wide(frame(some_runs()), "kv")}
    assert rows["good"]["bound"] == {"gate": pytest.approx(1 / 6)}
    assert rows["good"]["daemon_threads"] == ["klruscand"]
    assert rows["good"]["notes"] == ["scaled"]
    assert rows["all_top"]["cpu_pct"]["klruscand"] == pytest.approx(10.5 * (1 + 1 / 2 + 1 / 3) / 3)


def test_several_ratios_make_rows_of_their_own() -> None:
    runs = some_runs() + [{**run, "ratio": "1:8", "time_s": run["time_s"] * 2} for run in some_runs()]
    assert set(matrix(frame(runs))["setting"]) >= {"kv 1:2", "kv 1:8"}


def test_a_lost_run_costs_its_pair_only() -> None:
    runs = [run for run in some_runs() if run["run_id"] != "goodkv2"]
    cell = matrix(frame(runs)).filter(setting="kv", policy="good").to_dicts()[0]
    assert (cell["seeds"], cell["slowdown_pct"]) == (2, pytest.approx(5))
    assert verdicts(frame(runs)).filter(setting="kv")["best"].to_list() == ["first_touch"]
    without = [run for run in some_runs() if run["policy"] != "all_top"]
    assert matrix(frame(without)).height == verdicts(frame(without)).height == 0
