"""`explain`: the parts of a run's time add up, against closed forms where there are any; sentences from stored runs."""

from __future__ import annotations

import itertools
import math
import shlex
from pathlib import Path

import pytest
from small_runs import Neighbours, Quarter, kv, machine, run
from typer.testing import CliRunner

from klrubench.cli import app
from klrubench.errors import UsageError
from klrubench.report.explain import explain_text
from klrubench.simulate import RunResult
from klrubench.simulate.parts import mean_parts
from klrubench.study.again import command_of, find_run, machine_of, spec_of
from klrubench.study.explain import explain
from klrubench.study.plugins import find_workload, list_policies
from klrubench.study.spec import RunSpec, make_spec, policy_part, workload_part
from klrubench.study.store import Store

POLICIES = [info.name for info in list_policies()]
SMALL = "kv:footprint_gib=0.25"


def adds_up(result: RunResult) -> None:
    assert math.fsum(result.parts.values()) == pytest.approx(result.metrics["time_s"], rel=1e-12)
    assert result.parts == mean_parts([row["parts"] for row in result.tenants])
    for row in result.tenants:
        assert math.fsum(row["parts"].values()) == pytest.approx(row["time_s"], rel=1e-12)
    assert all(seconds > -1e-4 for seconds in result.parts.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("workload", ["kv", "neighbours"])
def test_the_parts_add_up_to_the_time(policy: str, workload: str) -> None:
    made, fold = (kv(), 16) if workload == "kv" else (Neighbours(footprint_gib=0.25), 4)
    result = run(policy, made, daemon_cpus="shared", duration_s=3, fold=fold)
    adds_up(result)
    pages = result.residency
    if pages:
        assert pages["held"] + pages["came"] + pages["lost"] + pages["stayed"] == pages["best"] <= pages["misses"]
        assert pages["misses"] == result.metrics["misses"]
        assert pages["untouched_pages"] <= pages["below_median_pages"] <= pages["entered_pages"]
        assert pages["last_never_pages"] <= pages["last_best_pages"]
    else:
        assert policy == "all_top"


def test_each_kind_of_waiting_has_its_part() -> None:
    faults = run("numa_balancing", kv(), duration_s=6)
    assert faults.parts["hint faults"] > 0 and faults.parts["task_numa_work"] > 0
    shared = run("klruscand", kv(), daemon_cpus="shared")
    daemon_s = sum(shared.cpu[name] for name in shared.daemon_threads)
    assert shared.parts["kernel threads"] == pytest.approx(daemon_s / shared.metrics["threads"], rel=1e-6)
    duty = run("first_touch", kv(busy_s=1.0, idle_s=0.5))
    assert duty.parts["asleep"] == 1.5, "4 s of work in phases of 1 s, and no sleep after the last"
    waiting = run("all_top", kv(open_loop=True))
    adds_up(waiting)
    assert waiting.parts["arrivals"] > 0


def test_idle_latency_is_touches_times_latency() -> None:
    """Closed form: with one node at rest the part of a node is its misses times latency over MLP and threads."""
    result = run("all_lower", Quarter(footprint_gib=0.25, rate=0.5, threads=2, read_share=1.0))
    node = machine().nodes[1]
    expected = result.metrics["misses"] * node.read_ns[0] / result.metrics["mlp"] / result.metrics["threads"] / 1e9
    assert result.parts[node.name] == pytest.approx(expected, rel=1e-9)
    assert result.parts[f"{node.name} queueing"] == pytest.approx(0, abs=1e-3)


def test_load_shows_as_queueing() -> None:
    result = run("all_lower", find_workload("gups")(footprint_gib=0.25, threads=48), duration_s=2)
    adds_up(result)
    assert result.parts["CXL queueing"] > 0.1 * result.parts["CXL"]


# ---- stored runs


def spec(policy: str, **more: object) -> RunSpec:
    values: dict[str, object] = {"duration_s": 6.0, "fold": 8, "seed": 3, **more}
    where = values.pop("where", machine())
    return make_spec(where, workload_part(SMALL), policy_part(policy), **values)  # type: ignore[arg-type]


def test_explain_adds_up_to_the_slowdown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for policy in ("klruscand", "numab2", "first_touch", "random_sampling", "all_top"):
        facts = explain(spec(policy), store)
        assert math.fsum(row["pct"] for row in facts["parts"]) == pytest.approx(facts["slowdown_pct"], abs=1e-9)
        text = explain_text(facts, 100)
        assert all(len(line) <= 100 for line in text.splitlines()), text
        if policy != "all_top":
            assert "where misses went" in text and "kernel" not in facts["bounds"]
    again = explain(find_run(store, facts["run"]["id"][:10])["id"][:12], store)
    assert again["slowdown_pct"] == facts["slowdown_pct"] == 0.0
    facts = explain(spec("klruscand"), store)
    assert facts["bounds"].keys() == {"first_touch"}
    assert facts["run"]["result"]["metrics"]["promoted_pages"] > 0


def test_what_is_tried_next_can_be_typed(tmp_path: Path) -> None:
    for policy in ("klruscand", "klruscand:interval_ms=100,pghot=v2", "numab2", "random_sampling"):
        for item in explain(spec(policy), Store(tmp_path))["tries"]:
            words = shlex.split(item["command"])
            assert words[:2] == ["klrubench", "compare"]
            for option, value in itertools.pairwise(words):
                if option == "-p":
                    policy_part(value)
            if words[-1] == "--robust":
                words.remove("--robust")  # which takes no --dry-run
            done = CliRunner().invoke(app, [*words[1:], "--dry-run", "--results", str(tmp_path)])
            assert done.exit_code == 0, done.output


def test_a_stored_run_resolves_to_itself_and_its_command_repeats_it(tmp_path: Path) -> None:
    changed = machine(sysctls={"watermark_scale_factor": 20}, costs={"pghot_record": "3x"}, hz=250, kernel="6.12")
    store = Store(tmp_path)
    for where in (machine(), changed):
        record = explain(spec("klruscand:threshold=3", where=where), store)["run"]
        assert spec_of(record).run_id == record["id"]
        assert machine_of(record["spec"]).sysctls == where.sysctls
        words = shlex.split(command_of(record))
        done = CliRunner().invoke(app, [*words[1:], "--json", "--results", str(tmp_path)])
        assert f'"id": "{record["id"]}"' in done.output and '"cached": true' in done.output


def test_which_run_is_meant(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [explain(spec(policy), store)["run"]["id"] for policy in ("all_top", "first_touch")]
    assert find_run(store, ids[1][:8])["id"] == ids[1]
    for text in ("", "zz", "klruscand", ids[0] + "0"):
        with pytest.raises(UsageError, match="no stored run"):
            find_run(store, text)
    runs = tmp_path / "runs"
    twin = ids[0][:31] + ("0" if ids[0][31] != "0" else "1")
    (runs / ids[0][:2] / f"{twin}.json").write_bytes(b"other")
    with pytest.raises(UsageError, match="not unique"):
        find_run(store, ids[0][:20])


def test_the_command(tmp_path: Path) -> None:
    where = ["--scale", "1/8", "--duration", "6", "--results", str(tmp_path)]
    done = CliRunner().invoke(app, ["explain", f"{SMALL}/klruscand", *where])
    assert done.exit_code == 0, done.output
    assert "slower than all-DRAM" in done.output and "\nrepeat" in done.output
    told = CliRunner().invoke(app, ["explain", "-p", "klruscand", "-w", SMALL, *where, "--json"])
    assert '"slowdown_pct"' in told.output
