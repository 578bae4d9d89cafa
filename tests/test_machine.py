"""Machines: presets, costs, settings, files of one's own, and what is said when they are wrong."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klrubench import machine as machine_module
from klrubench.errors import ParameterError, UnknownNameError
from klrubench.machine import Cost, Machine, Node, list_machines, load_machine

PRESETS = ["cxl-asic", "cxl-fpga", "cxl-micron", "emulated", "optane", "remote-numa"]

# Instructions counted in real kernels, on a machine whose clock counts them.
COUNTED = {
    "walk_pte": 39,
    "walk_fast_pte": 82,
    "walk_young": 245,
    "pass_fixed": 50_000,
    "aging_pte": 63,
    "aging_young": 63 + 176,
    "carry_page": 244,
    "pghot_record": 190,
    "pghot_list_element": 8,
    "heap_push": 570,
    "kpromoted_page": 7000,
    "hint_fault": 2300,
    "hint_fault_promote": 10_070,
    "minor_fault": 3734,
}
NOT_COUNTED = {
    "walk_pmd",
    "kpromoted_pop",
    "kmigrated_pfn",
    "kswapd_page",
    "kswapd_scan",
    "mark_pte",
    "mark_flush",
    "idle_set",
    "idle_check",
    "shootdown",
    "migrate_2m",
    "kscand_pte",
    "kscand_list",
    "kscand_cycle",
    "ibs_sample",
    "hotlist_entry",
    "hotlist_drain",
}


def said(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# Presets


def test_the_default_comes_first_and_all_load() -> None:
    assert list_machines() == PRESETS
    assert load_machine().name == "cxl-asic"


@pytest.mark.parametrize("name", PRESETS)
def test_each_number_of_a_preset_names_its_source(name: str) -> None:
    machine = load_machine(name)
    path = Path(machine_module.__file__).parent / "presets" / f"{name}.toml"
    data = tomllib.loads(path.read_text())
    numbers = {key for key in data if key not in ("node", "unit", "cost", "sources", "description", "source")}
    assert numbers <= set(machine.sources)
    for node, written in zip(machine.nodes, data["node"], strict=True):
        assert set(written) - {"name", "tier", "sources"} <= set(node.sources)
        assert "write_ns" in node.sources and "write_gb_s" in node.sources
    assert all(cost.source and cost.meaning for cost in machine.costs.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_machine_that_makes_sense(name: str) -> None:
    machine = load_machine(name)
    assert machine.top_nodes == (0,) and machine.lower_nodes == (1,)
    assert machine.cpus >= 1 and machine.nodes[1].cpus == 0
    top, lower = machine.nodes
    assert top.read_ns[0] <= lower.read_ns[0]
    assert top.read_gb_s >= lower.read_gb_s
    for cost in machine.costs.values():
        assert cost.low_ns <= cost.ns <= cost.high_ns
        assert cost.factor == 1.0


def test_headers_say_latency_bandwidth_and_source() -> None:
    assert load_machine().header() == "machine cxl-asic: DRAM 114 ns 218 GB/s; CXL 271 ns 26 GB/s (Soar, OSDI'25)"
    assert (
        load_machine("optane")
        .header()
        .startswith("machine optane: DRAM 64/87 ns 105 GB/s; Optane 276/523 ns 40.1/13.6")
    )
    assert load_machine().sizing() == "DRAM 1/3 of footprint, CXL 2/3 of footprint"
    assert load_machine("emulated").sizing() == "node0 1 GiB, node1 1 GiB"


@pytest.mark.parametrize("name", PRESETS)
def test_describe_fits_a_terminal_and_tells_everything(name: str) -> None:
    machine = load_machine(name, costs={"pghot_record": "100x"})
    lines = machine.describe_lines()
    text = "\n".join(lines)
    assert text.isascii() and max(map(len, lines)) <= 100 and not any(line != line.rstrip() for line in lines)
    for part in (*machine.costs, *machine.sysctls, *(node.name for node in machine.nodes)):
        assert part in text
    assert "changed: x 100, outside its range" in text


# Costs


def test_every_cost_is_there_and_counted_ones_keep_their_ratios() -> None:
    costs = load_machine().costs
    assert set(costs) == set(COUNTED) | NOT_COUNTED
    for name, instructions in COUNTED.items():
        assert costs[name].instructions == instructions
    for scale in ("stream", "miss"):
        ns_each = [cost.ns / cost.instructions for cost in costs.values() if cost.unit == scale and cost.instructions]
        assert max(ns_each) == pytest.approx(min(ns_each))


def test_the_two_scales_meet_the_anchors_of_the_literature() -> None:
    ns = {name: cost.ns for name, cost in load_machine().costs.items()}
    assert ns["walk_pte"] == pytest.approx(5.0, abs=0.05)
    assert 100 <= ns["pghot_record"] <= 400
    assert 800 <= ns["hint_fault"] <= 2000
    assert 5300 <= ns["kpromoted_page"] <= 13_000
    assert 5000 <= ns["hint_fault_promote"] <= 15_000
    assert ns["kswapd_scan"] == ns["idle_check"] == 229


def test_costs_of_the_walk_are_those_of_the_kernel_version() -> None:
    old, new = load_machine(kernel="6.12").costs, load_machine(kernel="6.14").costs
    assert (old["aging_pte"].instructions, old["aging_young"].instructions) == (100, 171)
    assert (new["aging_pte"].instructions, new["aging_young"].instructions) == (63, 239)


def test_the_emulated_machine_takes_2_ns_for_each_instruction() -> None:
    machine = load_machine("emulated")
    assert (machine.cpus, machine.hz, machine.kernel) == (1, 1000, "6.17")
    assert [node.capacity_gib for node in machine.nodes] == [1, 1]
    assert machine.nodes[0].read_ns == machine.nodes[1].read_ns
    for name, cost in machine.costs.items():
        assert cost.ns == 2 * (cost.instructions or 0) == cost.low_ns == cost.high_ns
        assert name not in COUNTED or cost.instructions == COUNTED[name]
    # 1024 pages were seen to take 14.5 ms.
    assert 1024 * machine.costs["kpromoted_page"].ns == pytest.approx(14.5e6, rel=0.02)


@pytest.mark.parametrize(
    ("change", "ns"),
    [("2x", 323.0), ("0.5x", 80.75), ("300ns", 300.0), ("1.5us", 1500.0), ("2ms", 2e6), ("0x", 0), (" 1 x", 161.5)],
)
def test_a_cost_can_be_scaled_or_set_and_keeps_its_range(change: str, ns: float) -> None:
    own = load_machine().costs["pghot_record"]
    cost = load_machine(costs={"pghot_record": change}).costs["pghot_record"]
    assert cost.ns == pytest.approx(ns)
    assert cost.factor == pytest.approx(ns / own.ns)
    assert (cost.low_ns, cost.high_ns) == (own.low_ns, own.high_ns) == (100, 400)


def test_changed_costs_are_said() -> None:
    assert load_machine().cost_changes() == ""
    assert load_machine(costs={"pghot_record": "2x"}).cost_changes() == "pghot_record 323 ns (x 2)"
    assert "shootdown 300 ns" in load_machine("emulated", costs={"shootdown": "300ns"}).cost_changes()


@pytest.mark.parametrize(
    "change", ["", "2", "x", "-2x", "nanx", "infx", "1e99x", "300 s s", "300parsec", "9" * 400 + "x"]
)
def test_a_change_that_cannot_be_read_is_refused(change: str) -> None:
    with pytest.raises(ParameterError) as error:
        load_machine(costs={"pghot_record": change})
    assert "cost pghot_record" in said(error)


# Settings


def test_settings_have_the_kernels_defaults_and_short_names() -> None:
    machine = load_machine(sysctls={"demotion_enabled": 0, "numa_balancing": "2", "scan_size_mb": 128})
    assert machine.sysctls["demotion_enabled"] == 0
    assert machine.sysctls["kernel.numa_balancing"] == 2
    assert machine.sysctls["numa_balancing/scan_size_mb"] == 128
    assert machine.sysctls["vm.pghot_promote_freq_window_ms"] == 5000
    assert load_machine().sysctls["kernel.numa_balancing_promote_rate_limit_MBps"] == 65536
    assert machine.with_sysctls({"kernel.numa_balancing": 1}).sysctls["kernel.numa_balancing"] == 1


def test_a_mistyped_setting_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError) as error:
        load_machine(sysctls={"watermark_scale_facter": 10})
    assert "did you mean watermark_scale_factor?" in said(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numa_balancing", 4),
        ("demotion_enabled", -1),
        ("demotion_enabled", True),
        ("demotion_enabled", "yes"),
        ("vm.watermark_scale_factor", 3001),
        ("scan_size_mb", 0),
        ("scan_delay_ms", 1.5),
        ("scan_delay_ms", "٣"),
        ("scan_period_min_ms", 70_000),
    ],
)
def test_a_setting_outside_the_kernels_range_is_refused(name: str, value: int | str) -> None:
    with pytest.raises(ParameterError) as error:
        load_machine(sysctls={name: value})
    assert name.split(".")[-1] in said(error) and str(value) in said(error)


def test_rules_of_a_kernel_are_chosen_by_its_version() -> None:
    assert load_machine(kernel="6.14").kernel_at_least("6.14")
    assert load_machine(kernel="6.14.2").kernel_at_least("6.14")
    assert not load_machine(kernel="6.9").kernel_at_least("6.14")
    assert load_machine(kernel="7.0").kernel_at_least("6.14")


@pytest.mark.parametrize("kernel", ["", "six", "6", "6.", "6.12-rc1", "5.15", "6.12.1.1", "v6.12"])
def test_a_kernel_that_is_not_known_is_refused(kernel: str) -> None:
    with pytest.raises(ParameterError) as error:
        load_machine(kernel=kernel)
    assert f"'{kernel}'" in said(error)


@pytest.mark.parametrize("hz", [0, 500, -1, "fast", 1e3])
def test_hz_is_one_of_the_kernels_choices(hz: int) -> None:
    assert load_machine(hz="250").hz == 250
    with pytest.raises(ParameterError) as error:
        load_machine(hz=hz)
    assert "100, 250, 300, 1000" in said(error)


# Sizes


def test_the_ratio_shares_the_footprint_among_tiers() -> None:
    assert load_machine().node_shares() == pytest.approx((1 / 3, 2 / 3))
    assert load_machine(ratio="1:4").node_shares() == pytest.approx((0.2, 0.8))
    assert load_machine(ratio=(2, 1)).node_shares() == pytest.approx((2 / 3, 1 / 3))
    assert load_machine("emulated").node_shares() == (None, None)


@pytest.mark.parametrize("ratio", ["", "1", "1:2:3", "a:b", "0:1", "-1:2", "1:nan", "1:inf", "1;2", (), (1, "x")])
def test_a_ratio_that_makes_no_sense_is_refused(ratio: str) -> None:
    with pytest.raises(ParameterError) as error:
        load_machine(ratio=ratio)
    assert "ratio" in said(error)


def test_a_ratio_without_effect_is_refused() -> None:
    with pytest.raises(ParameterError, match="emulated gives every node its own capacity"):
        load_machine("emulated", ratio="1:2")


# The model

NAMES = st.from_regex(r"[A-Za-z][a-z0-9]{0,7}", fullmatch=True)
POSITIVE = st.floats(0.1, 1e6)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    tiers = draw(st.integers(1, len(names)))
    latencies = st.tuples(*[POSITIVE] * len(names))
    nodes = tuple(
        Node(
            name=name,
            tier=min(i, tiers - 1),
            cpus=draw(st.integers(1 if i == 0 else 0, 64)),
            capacity_gib=draw(st.none() | POSITIVE),
            read_ns=draw(latencies),
            write_ns=draw(latencies),
            read_gb_s=draw(POSITIVE),
            write_gb_s=draw(POSITIVE),
            sources=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        )
        for i, name in enumerate(names)
    )
    costs = {
        name: Cost(name, draw(POSITIVE), draw(st.none() | POSITIVE), 0.0, draw(POSITIVE), "s", draw(POSITIVE))
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    }
    return Machine(
        name=draw(NAMES),
        description="d",
        source="s",
        nodes=nodes,
        costs=costs,
        cache_hit_ns=draw(POSITIVE),
        hz=draw(st.sampled_from([100, 250, 300, 1000])),
        kernel=draw(st.sampled_from(["6.1", "6.12", "6.18.3"])),
        ratio=tuple(draw(st.lists(POSITIVE, min_size=tiers, max_size=tiers))),
    )


@settings(deadline=None)
@given(machine=machines())
def test_a_machine_survives_json_and_pickle(machine: Machine) -> None:
    data = machine.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert Machine.from_dict(json.loads(json.dumps(data))) == machine
    assert pickle.loads(pickle.dumps(machine)) == machine
    shares = [share for share in machine.node_shares() if share is not None]
    assert sum(shares) <= 1 + 1e-9 and all(share > 0 for share in shares)
    assert machine.header().count(" GB/s") == len(machine.nodes)
    assert max(map(len, machine.describe_lines())) <= 100


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    machine = load_machine(name, costs={"walk_pte": "3x"})
    assert Machine.from_dict(json.loads(json.dumps(machine.to_dict(), allow_nan=False))) == machine


@pytest.mark.parametrize(
    "data", [{}, {"nodes": 3}, {"nodes": [], "costs": {}, "ratio": []}, {"nodes": [7], "costs": {}}]
)
def test_what_is_not_a_stored_machine_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ParameterError) as error:
        Machine.from_dict(data)
    said(error)


def test_identity_holds_what_changes_a_result_and_nothing_else() -> None:
    machine = load_machine()
    told = replace(machine, description="other", source="other", sources={})
    assert told.identity() == machine.identity()
    assert replace(machine, hz=250).identity() != machine.identity()
    assert machine.with_costs({"walk_pte": "2x"}).identity() != machine.identity()
    assert machine.with_costs({"walk_pte": "1x"}).identity() == machine.identity()
    assert machine.with_ratio("1:4").identity() != machine.identity()


@settings(deadline=None)
@given(loads=st.tuples(st.floats(0, 2), st.floats(0, 2)))
def test_latency_never_falls_with_load(loads: tuple[float, float]) -> None:
    node = load_machine().nodes[0]
    low, high = sorted(loads)
    assert 1.0 <= node.load_factor(low) <= node.load_factor(high) <= node.load_factor(0.99)


def test_the_curve_is_the_one_that_is_written_down() -> None:
    node = load_machine().nodes[0]
    assert node.load_factor(0.0) == 1.0
    assert node.load_factor(0.5) == pytest.approx(1 + 0.2 * 0.0625 / 0.5)
    assert node.load_factor(0.95) == pytest.approx(4.26, abs=0.01)


def test_loading_is_repeatable_and_light() -> None:
    assert load_machine() == load_machine()
    code = "import sys, klrubench.machine as m; assert 'pydantic' not in sys.modules; m.load_machine()"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search(r"\b(numba|polars|numpy|scipy)\b", done.stdout)
