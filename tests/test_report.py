"""Tables as text: numbers as people read them, widths kept, nothing lost, and every form of the same answer."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench.machine import load_machine
from klrubench.params import param
from klrubench.policy import Policy
from klrubench.report import describe, footnotes, header, heads, listing, run, sheet, sparkline, text
from klrubench.report.matrix import Cell, Matrix, Row, Verdict, matrix_lines, meaning
from klrubench.report.wide import bound_text, wide_lines
from klrubench.study import scores
from klrubench.study.table import frame
from klrubench.workload import Workload

POLICIES = [
    "all_top",
    "all_lower",
    "first_touch",
    "random_promotion",
    "random_sampling",
    "numa_balancing",
    "klruscand",
    "klruscand:wake_kswapd=posted",
    "oracle_static",
    "oracle_window",
]
WORKLOADS = ["kv", "kv:idle=60", "gups:rate=2", "gups", "hotset_shift", "uniform"]
ROLES = {"all_top": "bound", "all_lower": "bound", "first_touch": "bound", "random_promotion": "control"}
SLOWDOWNS = {"all_top": 0.0, "all_lower": 0.4, "first_touch": 0.25, "klruscand": 0.08, "oracle_static": 0.04}
PLACED = ("all_top", "all_lower", "oracle_static", "oracle_window")
EXTRA = [f"klruscand:interval_ms={ms},batch=64" for ms in (10, 20, 30)] + ["a_policy_with_a_long_name", "mine"]


def facts(workloads: list[str], policies: list[str], seeds: int, daemon_cpus: str = "spare") -> dict[str, Any]:
    """What a comparison says for its header."""
    return {
        "runs": len(workloads) * len(policies) * seeds,
        "seeds": seeds,
        "duration_s": 120.0,
        "machine": load_machine("cxl-asic").to_dict(),
        "varies": [],
        "scales": dict.fromkeys(workloads, 32),
        "footprints_gib": dict.fromkeys(workloads, 32.0),
        "threads": dict.fromkeys(workloads, 6),
        "pages": dict.fromkeys(workloads, "4k"),
        "seeds_change": dict.fromkeys(workloads, "stream and page order"),
        "calibration": dict.fromkeys(workloads, ""),
        "sysctls": {policy: {"kernel.numa_balancing": 2} if policy == "numa_balancing" else {} for policy in policies},
        "daemon_cpus": daemon_cpus,
    }


def run_row(workload: str, policy: str, seed: int) -> dict[str, Any]:
    """One row of the runs' frame, with numbers that depend on its names only."""
    luck = random.Random(f"{workload}/{policy}")
    slow = SLOWDOWNS.get(policy, luck.random()) * (3 if workload == "gups" else luck.uniform(0.5, 1.0))
    noise = 1 + random.Random(f"{workload}/{policy}/{seed}").gauss(0, 0.002)
    time = 120.0 * (1 + slow) * noise
    name = policy.partition(":")[0]
    says_more = (workload, policy) == ("kv", "klruscand")
    return {
        "policy": policy,
        "workload": workload,
        "machine": "cxl-asic",
        "ratio": "1:2",
        "seed": seed,
        "run_id": f"{workload}{policy}{seed}",
        "policy_role": ROLES.get(name, "bound" if name.startswith("oracle") else "policy"),
        "contestant": name not in PLACED,
        "workload_control": workload == "uniform",
        "time_s": time,
        "steady_time_s": time / 2,
        "charged_time_s": time * 1.1,
        "charged_steady_time_s": time / 2 * 1.1,
        "dram_hit_share": luck.random(),
        "steady_dram_hit_share": luck.random(),
        "op_p99_ns": 900 + 300 * slow,
        "promoted_mib_s": 200 * luck.random(),
        "demoted_mib_s": 200 * luck.random(),
        "promoted_again_share": luck.random(),
        "precision": luck.random(),
        "recall": luck.random(),
        "metadata_bytes": luck.randrange(1 << 30),
        "convergence_s": None if name == "first_touch" else 50.0,
        "young_share": 0.99 if workload == "gups" else 0.6,
        "touches_per_page_s": 22.0 if workload == "gups" else 2.0,
        "cpu_json": json.dumps({"klruscand": 40.0, "kpromoted": 20.0, "kswapd": 1.0, "hint faults": 3.0, "idle": 0.0}),
        "daemon_threads_json": json.dumps(["klruscand", "kpromoted", "kswapd"]),
        "bound_json": json.dumps({"kpromoted": 0.98, "gate": 0.03, "free space": 0.001}),
        "vmstat_json": "{}",
        "notes_json": json.dumps(["threads raised"] * (workload in ("kv", "gups")) + ["heap full"] * says_more),
        "sysctls_json": "{}",
    }


def make_sheet(
    workloads: list[str] = WORKLOADS, policies: list[str] = POLICIES, seeds: int = 3, wide: bool = False, **more: Any
) -> sheet.Sheet:
    """The sheet of runs that were never run, through the real statistics."""
    keys = [(workload, policy, seed) for workload in workloads for policy in policies for seed in range(1, seeds + 1)]
    runs = frame([run_row(*key) for key in keys])
    return sheet.Sheet(
        facts=facts(workloads, policies, seeds),
        cells=scores.matrix(runs),
        verdicts=scores.verdicts(runs),
        charged_verdicts=scores.verdicts(runs, charged=True),
        suite=scores.suite_scores(runs),
        wide={name: scores.wide(runs, name) for name in workloads} if wide else {},
        runs=runs,
        wakes=True,
        **more,
    )


def widest(shown: str) -> int:
    return max(len(line) for line in shown.splitlines())


# ---- numbers


def test_numbers_as_people_read_them() -> None:
    assert [text.points(value) for value in (0.04, -0.04, 5.84, 99.94, 99.96, 106.7, -12.34, None, math.nan)] == [
        "0.0", "0.0", "5.8", "99.9", "100", "107", "-12.3", "-", "-",
    ]  # fmt: skip
    assert [text.half(value) for value in (0.0, 0.31, 0.94, 0.96, 9.94, 12.4, None)] == [
        ".0",
        ".3",
        ".9",
        "1.0",
        "9.9",
        "12",
        "",
    ]
    assert [text.size(value) for value in (0, 640, 1536, 64 << 20, 20 << 30, None)] == [
        "0", "640 B", "1.5 KiB", "64 MiB", "20 GiB", "-",
    ]  # fmt: skip
    assert [text.significant(value) for value in (0, 0.1, 0.051, 2.0, 2.34, 22.4, 110.0)] == [
        "0", "0.1", "0.051", "2", "2.3", "22", "110",
    ]  # fmt: skip
    assert [text.count(value) for value in (0, 987, 12_345, 4_500_000, None)] == ["0", "987", "12.3 k", "4.5 M", "-"]


@given(st.floats(-1e6, 1e6))
def test_points_never_show_a_negative_zero(value: float) -> None:
    assert not re.fullmatch(r"-0(\.0)?", text.points(value))
    assert abs(float(text.points(value)) - value) <= 0.5


@given(st.lists(st.text("abcdefg ,=", min_size=1, max_size=30)), st.integers(20, 100))
def test_joined_keeps_the_width_and_every_part(parts: list[str], width: int) -> None:
    lines = text.joined(parts, width)
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(parts).split()) == "".join("".join(lines).replace(";", "").split())


# ---- columns and blocks


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.integers(0, 12),
    st.integers(0, 20),
    st.sampled_from([60, 72, 100]),
)
def test_blocks_show_every_column_once_within_the_width(sizes: list[int], extra: int, tail: int, width: int) -> None:
    first = [text.Column(("row",), ["first row"], left=True, gap=0)]
    first += [text.Column(("extra",), ["e" * extra])] if extra else []
    middle = [[text.Column((f"c{number}",), ["x" * size])] for number, size in enumerate(sizes)]
    last = [text.Column(("last",), ["z" * tail])] if tail else []
    found = text.blocks(first, middle, last, width)
    lines = [line for block in found for line in block]
    assert all(len(line) <= width for line in lines)
    titles = " ".join(block[0] for block in found).split()
    assert [title for title in titles if title[0] == "c"] == [f"c{number}" for number in range(len(sizes))]
    assert titles.count("row") == len(found) and titles.count("last") == bool(tail)


def test_a_table_that_fits_stays_whole() -> None:
    columns = [[text.Column(("n",), ["1.0"])] for _ in range(10)]
    assert len(text.blocks([text.Column(("row",), ["r"], gap=0)], columns, [], 100)) == 1


def test_group_titles_stand_over_their_columns() -> None:
    columns = [
        text.Column(("policy",), ["mine"], left=True, gap=0),
        text.Column(("run",), ["12.3"], group="a long title that cannot fit|slow"),
        text.Column(("steady",), ["10.0"], group="a long title that cannot fit|slow"),
        text.Column(("s",), ["1"], group="time|t"),
    ]
    titles, heads_line, _ = text.table(columns)
    assert titles.index("slow") == heads_line.index(" run") and titles.index("t", 12) == heads_line.rindex("s")


def test_colour_changes_no_column() -> None:
    columns = [text.Column(("a",), ["1", "2"], strong=frozenset([1])), text.Column(("b",), ["3", "4"])]
    plain, bold = text.table(columns), text.table(columns, colour=True)
    assert "\x1b" in bold[2] and [re.sub(r"\x1b\[\d*m", "", line) for line in bold] == plain


# ---- heads, footnotes


def test_heads_tell_all_policies_apart() -> None:
    found, key = heads.heads([*POLICIES, *EXTRA, "klruscand:interval_ms=500", "klruscand:window_ms=500"])
    assert len(set(found.values())) == len(found)
    assert found["all_lower"] == ("all", "CXL") and found["klruscand"] == ("klru-", "scand")
    assert found["klruscand:wake_kswapd=posted"][-1] == "posted"
    assert all(any(label in line for line in key) for label in found if ":" in label)


@given(st.lists(st.from_regex(r"[a-z]{1,14}(_[a-z]{1,9}){0,3}", fullmatch=True), unique=True, max_size=12))
def test_heads_are_narrow_and_distinct_for_any_names(names: list[str]) -> None:
    found, _ = heads.heads(names)
    assert len(set(found.values())) == len(names)
    assert all(len(line) <= 8 for lines in found.values() for line in lines)


def test_footnotes_are_lettered_in_order_and_shared() -> None:
    notes = footnotes.Footnotes()
    assert [notes.mark(each) for each in ("x", "y", "x")] == ["[a]", "[b]", "[a]"]
    assert notes.lines(100) == ["[a] x", "[b] y"]
    many = footnotes.Footnotes()
    assert [many.mark(str(number)) for number in range(28)][-2:] == ["[aa]", "[ab]"]


def test_seeds_change_groups_workloads() -> None:
    said = footnotes.seeds_change({"kv": "stream", "gups": "stream", "trace": "page order only"})
    assert said == "seeds change stream; trace: page order only"


# ---- the matrix


def test_matrix_keeps_100_columns_and_its_first_block_stands_alone() -> None:
    shown = sheet.text(make_sheet())
    assert widest(shown) <= 100
    first = shown.split("\n\n")[1]
    assert "best" in first and all(name in first for name in WORKLOADS)
    assert all(word in first for word in ("scand", "balanc", "sampli", "touch", "CXL", "static", "young"))
    assert "geomean" in first and "gap closed" in first


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("width", [72, 80, 100])
def test_tables_keep_any_width_for_any_number_of_policies(count: int, width: int) -> None:
    policies = ["all_top", *(POLICIES[1:] + EXTRA + [f"policy_{number}" for number in range(40)])[:count]]
    made = make_sheet(["kv", "gups"], policies, wide=True)
    shown = sheet.text(made, width)
    assert widest(shown) <= width
    for policy in policies[1:]:
        name = policy.partition(":")[0]
        assert name in shown, "every policy has its line in the wide table"


def test_the_headline_numbers_are_those_of_the_frame() -> None:
    made = make_sheet(["kv", "uniform"])
    cells = {(cell["setting"], cell["policy"]): cell for cell in text.rows_of(made.cells)}
    shown = sheet.text(made)
    line = next(line for line in shown.splitlines() if line.startswith("kv "))
    for policy in ("all_lower", "first_touch", "numa_balancing", "klruscand", "oracle_static"):
        assert f" {text.points(cells['kv', policy]['slowdown_pct'])}" in line


def test_the_gap_is_0_for_first_touch_and_100_for_the_oracle() -> None:
    shown = sheet.text(make_sheet(WORKLOADS, ["all_top", "all_lower", "first_touch", "klruscand", "oracle_static"]))
    gaps = next(line for line in shown.splitlines() if line.startswith("gap closed %")).split()[3:]
    assert gaps[1] == "0" and gaps[-1] == "100" and int(gaps[0]) < 0 < int(gaps[2]) < 100
    wide = sheet.text(make_sheet(["kv"], wide=True))
    row = next(line for line in wide.splitlines() if line.startswith("oracle_static"))
    assert row.split()[7] == "100"


def test_the_charged_verdict_stands_beside_the_spare_one() -> None:
    shown = sheet.text(make_sheet())
    assert "kernel threads on spare cores" in shown and "charged to the application's cores" in shown


def test_header_says_machine_scale_and_sysctls_of_each_row() -> None:
    shown = sheet.text(make_sheet())
    top = " ".join(shown.split("\n\n")[0].split())
    for fact in (
        "180 runs",
        "3 paired seeds",
        "120 s",
        "kernel 6.18",
        "HZ 1000",
        "4 KiB",
        "cxl-asic",
        "114 ns",
        "1/32",
    ):
        assert fact in top
    assert "numa_balancing=0 (=2 for numa_balancing)" in top and "demotion_enabled=1" in top and "32 GiB" in top


def test_footnotes_say_scope_scale_waking_saturation_and_seeds() -> None:
    shown = " ".join(sheet.text(make_sheet()).split())
    for said in (
        "absolute times are not claimed",
        "not invariant",
        "wake_kswapd=posted",
        "saturated (gups)",
        "seeds change stream and page order",
        "kv, gups: threads raised",
        "kv/klruscand: heap full",
        "not PEBS or IBS",
        "Holm",
    ):
        assert said in shown


def test_one_seed_gives_numbers_but_no_verdict() -> None:
    shown = sheet.text(make_sheet(seeds=1))
    assert "1 seed" in shown and "no interval, no verdict" in shown and "**" not in shown.split("\n\n")[1]
    assert "+-" not in shown.split("\n\n")[1].split("\n", 1)[1]


def test_verdicts_in_words() -> None:
    notes = footnotes.Footnotes()
    cells = {"klruscand": Cell(5.8, 0.2), "first_touch": Cell(6.0, 0.1), "all_lower": Cell(22.0, None)}
    rows = [
        Row("a", cells, Verdict("klruscand", "**")),
        Row("b", cells, Verdict("klruscand", "equal", ("first_touch",))),
        Row("c", cells, Verdict("first_touch", "alone")),
        Row("d", cells, Verdict("klruscand:wake_kswapd=posted", "n.s.")),
    ]
    lines = matrix_lines(Matrix("title", list(cells), rows), notes, 100)
    ends = [line.split("  ")[-1].strip() for line in lines if line[:2] in ("a ", "b ", "c ", "d ")]
    assert ends == ["klruscand **", "equal [b]", "first_touch", "klruscand posted n.s."]
    assert "equal, surely within +-1 point: klruscand, first_touch" in " ".join(notes.lines(100))


def test_the_rates_axis_says_what_each_point_means() -> None:
    notes = footnotes.Footnotes()
    nothing = Row("0.1", {"all_lower": Cell(1.1, 0.0)}, Verdict("klruscand", "equal", ("first_touch",)), 0.1, 0.09)
    clear = Row("2", {"all_lower": Cell(22.0, 0.0)}, Verdict("klruscand", "**"), 2, 0.65)
    full = Row("10", {"all_lower": Cell(110.0, 0.0)}, Verdict("first_touch", "equal", ("klruscand",)), 10, 0.97)
    said = [meaning(row, "all_lower", notes) for row in (nothing, clear, full)]
    assert said == ["equal: nothing at stake", "klruscand **", "equal [a]: saturated"]
    shown = sheet.text(make_sheet(["kv:rate=0.1", "kv:rate=10"], rates=True))
    assert "what it means" in shown and "geomean" not in shown


# ---- the wide table


def test_the_wide_table_has_cost_beside_benefit() -> None:
    shown = sheet.text(make_sheet(["kv"], wide=True))
    assert widest(shown) <= 100 and "best [" not in shown
    for head in (
        "run",
        "steady",
        "charged",
        "gap",
        "hit %",
        "op p99",
        "promo",
        "demo",
        "again",
        "prec",
        "rec",
        "metadata",
    ):
        assert head in shown
    for word in (
        "own",
        "kpro-",
        "kswapd",
        "hint",
        "kernel threads",
        "application",
        "conv",
        "bound by",
        "kpromoted 98, gate 3",
    ):
        assert word in shown
    assert "idle" not in shown.split("kernel threads")[1].split("\n\n")[0], "what cost nothing has no column"


def test_wide_rows_may_lack_columns() -> None:
    rows: list[dict[str, Any]] = [
        {"policy": "mine", "slowdown_pct": 1.0},
        {"policy": "other", "slowdown_pct": None, "cpu_pct": {}},
    ]
    lines = wide_lines(rows, footnotes.Footnotes(), 72)
    assert any(line.startswith("mine") and "1.0" in line for line in lines)
    assert any(line.startswith("other") and "-" in line for line in lines)


def test_bound_by_names_the_largest_first_and_drops_crumbs() -> None:
    assert bound_text({"gate": 0.03, "kpromoted": 0.98, "heap": 0.001}) == "kpromoted 98, gate 3"
    assert bound_text(None) == "" and bound_text({"x": 0.0}) == ""


# ---- other forms


def test_lkml_is_72_columns_of_plain_ascii() -> None:
    shown = sheet.as_lkml(make_sheet(wide=True))
    assert widest(shown) <= 72 and shown.isascii() and "\x1b" not in shown and "\t" not in shown
    assert not any(line != line.rstrip() for line in shown.splitlines())


def test_tsv_has_full_numbers_and_one_width() -> None:
    made = make_sheet(["kv", "gups"])
    lines = sheet.as_tsv(made).splitlines()
    names = lines[0].split("\t")
    assert len(lines) == 1 + len(text.rows_of(made.cells)) and {len(line.split("\t")) for line in lines} == {len(names)}
    first = dict(zip(names, lines[2].split("\t"), strict=True))
    assert float(first["slowdown_pct"]) == text.rows_of(made.cells)[1]["slowdown_pct"]
    wide = sheet.as_tsv(make_sheet(["kv"], wide=True)).splitlines()
    assert json.loads(dict(zip(wide[0].split("\t"), wide[1].split("\t"), strict=True))["bound"])["kpromoted"] == 0.98


def test_json_has_full_numbers() -> None:
    made = make_sheet(["kv"], wide=True)
    found = json.loads(json.dumps(sheet.as_json(made)))
    assert found["cells"] == json.loads(json.dumps(text.rows_of(made.cells)))
    assert found["schema"] and found["machine"]["name"] == "cxl-asic" and found["seeds"] == 3
    assert found["wide"]["kv"][0]["cpu_pct"]


# ---- header


def test_header_names_changed_costs_and_settings() -> None:
    machine = load_machine("optane", costs={"walk_pte": "2x"}, sysctls={"watermark_scale_factor": 100})
    top = header.Header(1, 1, 60.0, machine, scales={"kv": 1, "gups": 32}, footprints_gib={"kv": 8.0, "gups": 8.0})
    lines = header.header_lines(top, footnotes.Footnotes(), 80)
    joined = " ".join(" ".join(lines).split())
    assert "walk_pte" in joined and "(x 2)" in joined and "watermark_scale_factor=100" in joined
    assert "1 (1/32: gups)" in joined and top.tiers == ("DRAM", "Optane") and max(map(len, lines)) <= 80


def test_axes_of_the_machine_are_named_in_rows_not_in_the_header() -> None:
    keys = [(ratio, policy, seed) for ratio in ("1:1", "1:8") for policy in POLICIES for seed in (1, 2)]
    runs = frame([{**run_row("kv", policy, seed), "ratio": ratio} for ratio, policy, seed in keys])
    shown = sheet.text(
        sheet.Sheet(
            facts={**facts(["kv"], POLICIES, 2), "varies": ["machine", "ratio"]},
            cells=scores.matrix(runs),
            verdicts=scores.verdicts(runs),
            charged_verdicts=scores.verdicts(runs, charged=True),
            suite=scores.suite_scores(runs),
            runs=runs,
        )
    )
    assert "kv 1:1" in shown and "kv 1:8" in shown and "of footprint" not in shown and "as each row says" in shown
    assert widest(shown) <= 100


# ---- time line and single run


def test_plain_ascii_keeps_the_meaning() -> None:
    assert text.plain_ascii("±1 µs × 2 – 3 → 4 ≤ 5 …") == "+-1 us x 2 - 3 -> 4 <= 5 ..."  # noqa: RUF001


def test_sparkline_follows_the_series() -> None:
    assert sparkline.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == sparkline.BLOCKS
    assert sparkline.sparkline([0, None, 7]) == "▁ █"
    assert sparkline.sparkline([1.0] * 5, ascii_only=True) == "@" * 5 and sparkline.sparkline([]) == ""


@given(st.lists(st.floats(0, 1e9), max_size=300), st.integers(1, 80))
def test_sparkline_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline.sparkline(values, width)) == min(width, len(values))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(1, 60))
def test_resampling_keeps_the_mean(values: list[float], width: int) -> None:
    means = sparkline.resampled(values, width)
    low, high = min(values), max(values)
    assert all(mean is not None and low - 1e-6 <= mean <= high + 1e-6 for mean in means)


def test_rates_and_shares_of_cumulative_counters() -> None:
    assert sparkline.rates([0, 1, 3], [0, 10, 30]) == [10, 10]
    assert sparkline.ratios([0, 3, 3], [0, 4, 4]) == [0.75, None]


def one_result(seconds: int = 120) -> dict[str, Any]:
    times = list(range(seconds + 1))
    return {
        "metrics": {
            name: value for name, value in run_row("kv", "klruscand", 1).items() if isinstance(value, (int, float))
        },
        "cpu": {"klruscand": 40.0, "hint faults": 3.0},
        "daemon_threads": ["klruscand"],
        "bound": {"kpromoted": 0.98},
        "vmstat": {"pgpromote_success": 12, "pgdemote_kswapd": 3},
        "notes": ["a note"],
        "series": {
            "t_s": times,
            "accesses": [1e6 * t for t in times],
            "hits_top": [3e5 * t + 1e3 * t * t for t in times],
            "nr_top_pages": [2 << 20] * len(times),
            "pgpromote_success": [0 if t < 4 else 51_200 * (t - 4) for t in times],
        },
    }


@pytest.mark.parametrize("width", [72, 100])
def test_a_single_run_fits_its_width_and_shows_its_time_line(width: int) -> None:
    shown = run.run_text(one_result(), {"run": 5.8, "charged": 21.0}, width)
    assert widest(shown) <= width
    for word in ("5.80", "klruscand", "kernel thread", "application", "pgpromote_success", "DRAM hit %", "a note", "█"):
        assert word in shown
    assert run.run_text(one_result(), {}, width, ascii_only=True).isascii()


def test_a_very_short_run_has_no_time_line() -> None:
    assert run.time_line({"t_s": [0, 1], "accesses": [0, 5]}, 100) == [] and run.time_line({}, 100) == []


def test_vmstat_is_one_counter_a_line() -> None:
    assert run.vmstat_text({"b": 2, "a": 1}) == "a 1\nb 2"


# ---- describe and lists


class _Scanner(Policy):
    """Find hot pages by looking.

    More of it here.
    """

    source = "a patch, 2025"
    chain = "walk -> list -> thread"
    sysctls: ClassVar[dict[str, int]] = {"kernel.numa_balancing": 2}
    blind = "all pages are young"
    interval_ms: float = param(2000, low=10, high=60_000, log=True, help="start to start", origin="INTERVAL")
    wake_kswapd: str = param("on", choices=("on", "posted"), help="a refused promotion wakes kswapd", origin="ours")


def test_describe_comes_from_the_declarations() -> None:
    info = describe.component_info(_Scanner)
    shown = describe.component_text(info)
    assert widest(shown) <= 100
    for word in (
        "Find hot pages by looking",
        "More of it",
        "a patch, 2025",
        "walk -> list",
        "numa_balancing=2",
        "10-60000 log",
    ):
        assert word in shown
    for word in (
        "interval_ms",
        "2000",
        "start to start",
        "INTERVAL",
        "on, posted",
        "blind when",
        "klrubench compare -p",
    ):
        assert word in shown
    assert json.loads(json.dumps(info))["parameters"][0]["low"] == 10
    assert "not modelled" not in shown, "what is not declared has no line"


@pytest.mark.parametrize("width", [72, 100])
def test_describe_explains_choices(width: int) -> None:
    """In the order of the choices, what is implied behind what is said; only those of which anything is said."""

    class Switched(Policy):
        """A policy with a switch."""

        implies: ClassVar[Any] = {"which": {"b": {"size": 4, "fast": True}}}
        explains: ClassVar[Any] = {"which": {"c": "word " * 60, "b": "both"}, "text": {"x": "a free word"}}
        other: str = param("a", choices=("a", "z"))
        which: str = param("a", choices=("a", "b", "c"))
        size: int = param(1)
        fast: bool = param(False)
        text: str = param("")

    info = describe.component_info(Switched)
    assert list(info["choices"]) == ["which", "text"] and list(info["choices"]["which"]) == ["b", "c"]
    assert info["choices"]["which"]["b"] == "both; size=4, fast=true"
    shown = describe.component_text(info, width)
    assert widest(shown) <= width and shown.count("word") == 61 and "both; size=4, fast=true" in shown
    assert json.loads(json.dumps(info)) == info
    assert "choices" not in describe.component_info(_Scanner)


@pytest.mark.parametrize("width", [72, 100])
def test_describe_keeps_the_width_with_long_texts(width: int) -> None:
    class Wordy(Workload):
        """A workload."""

        size: int = param(1, low=0, high=1 << 40, help="word " * 60, origin="origin " * 20)
        kinds: str = param("a", choices=tuple(f"choice{n}" for n in range(20)), help="which")

    info = describe.component_info(Wordy, Workload.parameters)
    shown = describe.component_text(info, width)
    assert widest(shown) <= width and "parameters that every workload has" in shown
    assert {item["name"] for item in info["parameters"]} == {"size", "kinds"} and "choice19" in shown


def test_lists_wrap_what_they_tell() -> None:
    rows = [
        {"name": "a", "from": "bundled", "about": "word " * 40, "file": "x"},
        {"name": "bb", "from": "study", "about": "", "file": ""},
    ]
    shown = listing.listing_text("policies", rows, 80)
    assert widest(shown) <= 80 and "file" not in shown and shown.startswith("policies")
    assert listing.listing_text("runs", [], 80) == "runs: none"
