"""Claims and findings: the reference study's against its stored results, and the checking itself on a small study."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_runs import machine
from study_fakes import toy_result, toy_spec, write, write_policy, write_study, write_workload
from typer.testing import CliRunner

import klrubench
from klrubench.cli import app
from klrubench.errors import UsageError
from klrubench.report.claims import claims_markdown
from klrubench.study.claims import FILE, load_claims
from klrubench.study.evidence import Found, Results
from klrubench.study.findings import agrees, disagreements, printed, wrong
from klrubench.study.kept import keep
from klrubench.study.run import run_spec
from klrubench.study.spec import make_spec, policy_part, workload_part
from klrubench.study.statistics import t_quantile
from klrubench.study.store import Store
from klrubench.study.table import PARQUET, compact

REFERENCE = Path(klrubench.__file__).resolve().parent.parent / "results" / "reference"
TIMES = {
    "all_top": (100.0, 102.0, 101.0),
    "first_touch": (120.0, 121.0, 123.0),
    "mine": (110.0, 113.0, 112.0),
    "oracle_static": (105.0, 108.0, 106.0),
}
BUSY = {"mine": (1.0, 2.0, 3.0), "first_touch": (0.5, 0.5, 0.5)}

# the reference study itself


@pytest.fixture(scope="module")
def reference() -> list[Found]:
    results = Results(REFERENCE)
    return [results.found(claim) for claim in load_claims(REFERENCE / FILE)]


def test_every_claim_holds_in_the_stored_results(reference: list[Found]) -> None:
    assert reference
    missed = {each.claim.name: (each.claim.expected, each.value, each.why) for each in reference if not each.holds}
    assert not missed


def test_every_marked_number_of_the_findings_is_its_claim_s(reference: list[Found]) -> None:
    assert not disagreements(REFERENCE, reference)


def test_the_claims_table_is_up_to_date(reference: list[Found]) -> None:
    assert (REFERENCE / "CLAIMS.md").read_text() == claims_markdown(reference), "klrubench claims --write"


# the checking, on a small study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_study(tmp_path)
    for name in ("all_top", "first_touch", "oracle_static"):
        write_policy(tmp_path, name, role="bound")
    write_workload(tmp_path, "other_toy")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _store(folder: Path, workloads: tuple[str, ...] = ("toy",), **more: Any) -> Store:
    store = Store(folder)
    for workload in workloads:
        for policy, times in TIMES.items():
            for seed, time_s in enumerate(times, 1):
                spec = toy_spec(seed, policy, workload, **more)
                result = toy_result(spec, time_s + (3 * seed if workload != "toy" and policy == "mine" else 0))
                busy = BUSY.get(policy, (0.0, 0.0, 0.0))[seed - 1]
                result["metrics"] |= {"daemon_cpu_s": busy, "dram_hit_share": busy / 10}
                result["cpu"] = {"mine": busy}
                store.put(spec.run_id, spec.to_record(), result, {"created": "2026-01-01", "versions": {}})
    return store


def _claims(folder: Path, *claims: str, head: str = '[runs.all]\ncommand = "klrubench compare"\nminutes = 1') -> Path:
    parts = [f'[[claim]]\nid = "c{k}"\ntext = "Something."\n{each}\n' for k, each in enumerate(claims)]
    return write(folder / FILE, "\n".join([head, *parts]))


def _values(folder: Path, *claims: str, **more: str) -> list[Found]:
    results = Results(folder)
    numbers = (f"{each}\nexpected = 0\ntolerance = 0" for each in claims)
    return [results.found(claim) for claim in load_claims(_claims(folder, *numbers, **more))]


def _log(policy: str, base: str = "all_top") -> np.ndarray:
    return np.log(np.array(TIMES[policy]) / np.array(TIMES[base]))


def test_values_by_hand(study: Path) -> None:
    _store(study / "ref")
    of = 'of = {{ workload = "toy", policy = "mine", column = "{}"{} }}'
    still = 'minus = { policy = "first_touch" }'
    slow, gain, busy, more, part, ratio, gap = _values(
        study / "ref",
        of.format("slowdown_pct", ""),
        f"{of.format('slowdown_pct', '')}\n{still}",
        of.format("daemon_cpu_s", ""),
        f"{of.format('dram_hit_share', ', times = 100')}\n{still}",
        of.format("cpu.mine", ""),
        f'{of.format("daemon_cpu_s", "")}\nover = {{ policy = "first_touch" }}',
        of.format("gap_closed", ""),
    )
    logs, apart, quantile = _log("mine"), _log("mine") - _log("first_touch"), t_quantile(2) / math.sqrt(3)
    assert slow.value == pytest.approx(100 * math.expm1(logs.mean()))
    assert slow.half == pytest.approx(100 * math.exp(logs.mean()) * math.sinh(quantile * logs.std(ddof=1)))
    still_pct = 100 * math.expm1(_log("first_touch").mean())
    assert gain.value == pytest.approx(slow.value - still_pct)
    assert gain.half == pytest.approx((100 + slow.value) * math.sinh(quantile * apart.std(ddof=1)))
    assert (busy.value, busy.half) == (pytest.approx(2.0), pytest.approx(quantile))
    assert (more.value, more.half) == (pytest.approx(15.0), pytest.approx(10 * quantile))
    assert (part.value, ratio.value, ratio.half) == (pytest.approx(2.0), pytest.approx(4.0), None)
    best_pct = 100 * math.expm1(_log("oracle_static").mean())
    assert gap.value == pytest.approx((still_pct - slow.value) / (still_pct - best_pct))


def test_several_workloads_are_a_geometric_mean(study: Path) -> None:
    _store(study / "ref", ("toy", "other_toy"))
    of = 'of = {{ workload = {}, policy = "mine", column = "slowdown_pct" }}'
    one, two, both = _values(study / "ref", *(of.format(w) for w in ('"toy"', '"other_toy"', '["toy", "other_toy"]')))
    assert one.value is not None and two.value is not None and one.value < two.value
    assert both.value == pytest.approx(100 * math.sqrt((1 + one.value / 100) * (1 + two.value / 100)) - 100)


def test_runs_of_several_kinds_must_be_told_apart(study: Path) -> None:
    for fold in (32, 64):
        _store(study / "ref", fold=fold)
    _store(study / "ref", machine={"name": "toy-machine", "ratio": [1.0, 2.0], "source": "invented",
                                   "costs": {"walk_pte": {"ns": 9.0, "own_ns": 5.0}}})  # fmt: skip
    of = 'of = {{ workload = "toy", policy = "mine", column = "time_s"{} }}'
    told = ("", ', scale = "1/64"', ', scale = "1/2"', ', scale = "1/32", cost = "walk_pte=9"')
    unclear, found, none, dear = _values(study / "ref", *(of.format(each) for each in told))
    assert unclear.value is None and "fold [32, 64]): say which" in unclear.why
    assert found.value == pytest.approx(np.mean(TIMES["mine"])) == dear.value
    assert none.value is None and 'no stored run of mine on toy with {"fold": 2}' in none.why
    head = '[runs.fine]\ncommand = "x"\nminutes = 1\nwhere = { scale = "1/64" }'
    (default,) = _values(study / "ref", of.format(""), head=head)
    assert default.value == found.value


def test_a_cell_of_a_table(study: Path) -> None:
    write(study / "ref" / "a.tsv", "who\tn\tvalue\nme\t1\t3.5\nme\t2\t4.5\n")
    of = 'of = {{ file = "{}", who = "me", n = {}, column = "{}" }}'
    told = (("a.tsv", 2, "value"), ("a.tsv", 3, "value"), ("a.tsv", 1, "valu"), ("b.tsv", 1, "value"))
    good, none, misspelt, missing = _values(study / "ref", *(of.format(*each) for each in told))
    assert good.value == 4.5
    assert "0 rows" in none.why and "did you mean value" in misspelt.why and "b.tsv" in missing.why
    (apart,) = _values(study / "ref", f"{of.format('a.tsv', 2, 'value')}\nminus = {{ n = 1 }}")
    assert apart.value == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[claim]", "claims.toml: not TOML"),
        ("[claims]", "no table 'claims'; did you mean claim"),
        ('[[claim]]\nid = "a"', "claim a: it needs text, of, expected, tolerance"),
        ('[[claim]]\nid = "a"\nexpect = 1', "no key of claim a 'expect'; did you mean expected"),
        ("[runs.x]\nminutes = 1", "runs.x needs command"),
        ('[[claim]]\nid = "a"\ntext = ""\nof = {}\nexpected = 1\ntolerance = 1', "claim a"),
    ],
)
def test_a_claims_file_that_makes_no_sense_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / FILE, text)
    with pytest.raises(UsageError) as raised:
        load_claims(file)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_tolerance_is_in_decimals(study: Path) -> None:
    claim = load_claims(_claims(study, 'of = { column = "x" }\nexpected = 12.9\ntolerance = 0.1'))[0]
    assert Found(claim, 13.0).holds and Found(claim, 12.8).holds
    assert not Found(claim, 13.001).holds and not Found(claim, None).holds


# numbers in prose


def _found(study: Path, **values: tuple[float | None, float | None]) -> dict[str, Found]:
    (claim,) = load_claims(_claims(study, 'of = { column = "x" }\nexpected = 1\ntolerance = 1'))
    return {name: Found(claim, *each, "") for name, each in values.items()}


@pytest.mark.parametrize(
    ("text", "value", "good"),
    [("12.9", 12.85001, True), ("12.9", 12.96, False), ("13", 12.9, True), ("131,072", 131072.4, True),
     ("\u22124.3", -4.26, True), ("4.3", -4.3, False), ("0.00", 0.004, True), ("12.90", 12.9, True),
     ("12.90", 12.906, False), ("1,204.5", 1204.5, True)],
)  # fmt: skip
def test_a_number_is_compared_as_printed(text: str, value: float, good: bool) -> None:
    assert agrees(text, value) is good


def test_markers_are_found_and_compared(study: Path) -> None:
    text = (
        "# Findings of 2026\n\nklruscand loses 12.9 %<!-- a --> of it, **4.3 ± 0.4 points**<!-- -b --> less than v2,\n"
        "moves 131,072 pages<!-- c.d -->, and 3.1 times<!-- e --> as many as 7 others. <!-- a note -->\n"
    )
    marks = list(printed(text))
    assert [(m.name, m.text, m.half, m.negated, m.line) for m in marks] == [
        ("a", "12.9", "", False, 3), ("b", "4.3", "0.4", True, 3), ("c.d", "131,072", "", False, 4),
        ("e", "3.1", "", False, 4),
    ]  # fmt: skip
    good = {"a": (12.94, None), "b": (-4.3, 0.42), "c.d": (131072.0, 1.0), "e": (3.12, None)}
    assert wrong(text, _found(study, **good)) == []
    bad = {"a": (12.96, None), "b": (-4.3, 0.46), "c.d": (None, None)}
    lines = wrong(text, _found(study, **bad))
    assert [line.split(":")[0] for line in lines] == ["line 3", "line 3", "line 4", "line 4"]
    assert "a is 12.96, not 12.9" in lines[0] and "half the interval of b is 0.46" in lines[1]
    assert "c.d has no value" in lines[2] and "no claim 'e'" in lines[3]
    assert "no number before" in wrong("nothing<!-- a -->", _found(study, a=(1.0, None)))[0]
    assert "has no interval" in wrong("1 ± 2<!-- a -->", _found(study, a=(1.0, None)))[0]


# whole runs in one Parquet file


def test_a_folder_with_the_parquet_file_alone_is_read_as_its_runs(study: Path) -> None:
    store = _store(study / "all")
    assert keep(store, study / "ref") == 12
    assert [path.name for path in (study / "ref").iterdir()] == [PARQUET]
    kept = Store(study / "ref")
    assert kept.ids() == store.ids()
    for run_id in store.ids():
        assert kept.data(run_id) == store.file(run_id).read_bytes()
        assert kept.get(run_id, series=True) == store.get(run_id, series=True) and kept.look(run_id) == "stored"
    frame = compact(Store(study / "ref"))
    assert frame.equals(compact(store)) and "run_json" not in frame.columns
    spec = toy_spec(9)
    kept.put(spec.run_id, spec.to_record(), toy_result(spec), {"created": "2026-01-02"})
    assert compact(Store(study / "ref")).height == 13
    shutil.rmtree(study / "ref" / "runs")
    assert Store(study / "ref").ids() == store.ids()


def test_a_damaged_row_is_noticed(study: Path) -> None:
    keep(_store(study / "all"), study / "ref")
    file = study / "ref" / PARQUET
    whole = pl.read_parquet(file)
    whole.with_columns(pl.col("run_json").str.replace('"seed":2', '"seed":3')).write_parquet(file)
    kept = Store(study / "ref")
    assert sum(kept.look(run_id).startswith("damaged") for run_id in kept.ids()) == 4
    assert len(list(kept.scan())) == 8 and len(kept.notes) == 4 and "left out" in kept.notes[0]
    file.write_bytes(b"PAR1 and no more")
    assert Store(study / "ref").ids() == []


def test_verify_computes_kept_runs_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "all")
    for seed in (1, 2):
        spec = make_spec(machine(), workload_part("kv:footprint_gib=0.25"), policy_part("first_touch"), seed,
                         duration_s=2, fold=8)  # fmt: skip
        run_spec(spec, store)
    keep(store, tmp_path / "ref")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "ref")])
    assert done.exit_code == 0 and "2 of 2 are the same to the byte" in done.output
    other = Store(tmp_path / "other")
    record = store.get(store.ids()[0], series=True)
    assert record is not None
    record["result"]["metrics"]["time_s"] += 1e-9
    other.put(record["id"], record["spec"], record["result"], record["manifest"])
    keep(other, tmp_path / "ref")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "ref")])
    assert done.exit_code == 1 and "metrics.time_s" in done.output


# the command


def test_the_command_keeps_writes_and_checks(study: Path) -> None:
    _store(study / "results", ("toy", "other_toy"))
    place = study / "results" / "reference"
    of = 'of = { workload = "toy", policy = "mine", column = "slowdown_pct" }'
    head = '[runs.toys]\ncommand = "klrubench compare -w toy"\nminutes = 3\nwhere = { workload = "toy" }'
    _claims(place, f"{of}\nexpected = 10.5\ntolerance = 0.5", head=head)
    write(place / "FINDINGS.md", "It loses 10.6 %<!-- c0 -->.\n")
    done = CliRunner().invoke(app, ["claims", "--keep", "results", "--write", "--check"])
    assert done.exit_code == 0, done.output
    assert "kept 12 runs in results/reference/results.parquet" in done.output and "1 of 1 claims hold" in done.output
    table = (place / "CLAIMS.md").read_text()
    assert "`klrubench compare -w toy` | 3 |" in table and "slowdown_pct: toy, mine" in table and "| yes |" in table
    told = json.loads(CliRunner().invoke(app, ["claims", "--json"]).stdout)
    assert told["claims"][0]["holds"] and told["claims"][0]["found"] == pytest.approx(10.6, abs=0.1)
    write(place / "FINDINGS.md", "It loses 10.9 %<!-- c0 -->.\n")
    done = CliRunner().invoke(app, ["claims", "--check"])
    assert done.exit_code == 1 and "FINDINGS.md line 1: c0 is 10.5" in done.stdout
    _claims(place, f"{of}\nexpected = 13\ntolerance = 0.5", head=head)
    done = CliRunner().invoke(app, ["claims"])
    assert done.exit_code == 0 and "DOES NOT HOLD" in done.stdout and "0 of 1 claims hold" in done.stdout
    _claims(place, f'{of}\nexpected = 1\ntolerance = 1\nruns = "toy"', head=head)
    done = CliRunner().invoke(app, ["claims"])
    assert done.exit_code == 1 and "did you mean toys" in str(done.exception)
