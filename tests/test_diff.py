"""`diff`, `verify`, `methods`, `cite` and `pack`: what reviewers ask of stored results."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest
from small_runs import machine
from typer.testing import CliRunner

from klrubench.cli import app
from klrubench.errors import UnknownNameError, UsageError
from klrubench.report.difference import difference_text
from klrubench.report.methods import methods_text
from klrubench.report.pack import archive, contents, pack
from klrubench.study.difference import difference, versions
from klrubench.study.facts import facts
from klrubench.study.run import run_spec
from klrubench.study.sources import Source, bibtex, of_runs, sources
from klrubench.study.spec import make_spec, policy_part, workload_part
from klrubench.study.store import Store
from klrubench.study.verify import differing, sampled, verify

SMALL = "kv:footprint_gib=0.25"


def filled(folder: Path, policies: tuple[str, ...] = ("all_top", "klruscand"), seeds: int = 2, **where: Any) -> Store:
    store = Store(folder)
    for policy in policies:
        for seed in range(1, seeds + 1):
            spec = make_spec(machine(**where), workload_part(SMALL), policy_part(policy), seed, duration_s=5, fold=8)
            run_spec(spec, store)
    return store


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("stored"))


def changed(record: dict[str, Any], factor: float, code: str = "other") -> dict[str, Any]:
    """The same run as other code would have computed it, slower by a factor."""
    metrics = {**record["result"]["metrics"]}
    for name in ("time_s", "charged_time_s"):
        metrics[name] *= factor
    parts = {**record["spec"]["components"], "mm code": code}
    spec = {**record["spec"], "components": parts}
    return {**record, "id": record["id"][::-1], "spec": spec, "result": {**record["result"], "metrics": metrics}}


# ---- diff


def test_runs_by_other_code_are_paired(stored: Store) -> None:
    ours = list(stored.scan())
    theirs = [changed(record, 1.05 if record["spec"]["policy"]["name"] == "klruscand" else 1.0) for record in ours]
    found = difference(ours, theirs)
    words = {row["policy"]: row["word"] for row in found["rows"]}
    assert found["pairs"] == 4 and words == {"all_top": "same", "klruscand": "slower"}
    row = next(row for row in found["rows"] if row["policy"] == "klruscand")
    assert row["time_pct"] == pytest.approx(5) and row["low_pct"] == pytest.approx(5) and row["seeds"] == 2
    assert found["components"] == {"mm code": 4} and found["strict"]
    text = difference_text(found, ("a", "b"), 100)
    assert "+5.00" in text and "1 of 2 rows are the same" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_changed_machine_is_named(stored: Store, tmp_path: Path) -> None:
    other = filled(tmp_path, ("klruscand", "first_touch"), seeds=1, sysctls={"watermark_scale_factor": 40})
    found = difference(list(stored.scan()), list(other.scan()))
    assert found["pairs"] == 1 and "machine" in found["components"] and not found["strict"]
    assert found["details"] == ["machine.sysctls.vm.watermark_scale_factor: 10 -> 40"]
    assert len(found["only_a"]) == 3 and len(found["only_b"]) == 1
    assert found["rows"][0]["word"] in ("one seed", "same")


def test_nothing_in_common_is_said(stored: Store) -> None:
    records = list(stored.scan())
    seeds = {1: records[:1], 2: [r for r in records if r["spec"]["seed"] != records[0]["spec"]["seed"]]}
    with pytest.raises(UsageError, match="no run in common"):
        difference(seeds[1], seeds[2])


def test_versions_of_the_code(stored: Store, tmp_path: Path) -> None:
    both = Store(tmp_path)
    for record in stored.scan():
        for each in (record, changed(record, 1.0)):
            both.put(each["id"], each["spec"], each["result"], each["manifest"])
    codes = list(versions(both))
    assert len(codes) == 2
    listed = CliRunner().invoke(app, ["diff", "--results", str(tmp_path)])
    assert all(code in listed.output for code in codes)
    done = CliRunner().invoke(app, ["diff", *codes, "--results", str(tmp_path), "--exit-code"])
    assert done.exit_code == 0 and "mm code (4)" in done.output
    assert isinstance(
        CliRunner().invoke(app, ["diff", "zz", codes[0], "--results", str(tmp_path)]).exception, UsageError
    )


# ---- verify


def test_stored_runs_are_the_same_to_the_byte(stored: Store) -> None:
    before = {path: path.read_bytes() for path in stored.path.rglob("*.json")}
    assert all(check.good and not check.code for check in verify(stored, 3))
    assert before == {path: path.read_bytes() for path in stored.path.rglob("*.json")}


def test_a_run_that_differs_is_named_and_ends_with_1(stored: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    for record in stored.scan():
        full = stored.get(record["id"], series=True)
        assert full is not None
        if full["spec"]["policy"]["name"] == "klruscand" and full["spec"]["seed"] == 2:
            full["result"]["metrics"]["promoted_pages"] += 1
        other.put(full["id"], full["spec"], full["result"], full["manifest"])
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert done.exit_code == 1
    bad = [line for line in done.output.splitlines() if " differs " in line]
    assert len(bad) == 1 and "klruscand seed 2" in bad[0] and "metrics.promoted_pages: stored" in bad[0]
    assert "3 of 4 are the same" in done.output


def test_a_damaged_file_counts_and_stays_where_it_is(stored: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run_id = stored.ids()[0]
    file = store.file(run_id)
    file.parent.mkdir(parents=True)
    file.write_bytes(stored.file(run_id).read_bytes().replace(b"metrics", b"metricz", 1))
    checks = list(verify(store))
    assert [check.word for check in checks] == ["damaged"] and file.exists()


def test_the_sample_is_drawn_once_for_all(stored: Store) -> None:
    assert sampled(stored, 2, 1) == sampled(stored, 2, 1)
    assert sampled(stored, None, 1) == sampled(stored, 99, 1) == stored.ids()
    assert list(differing({"a": [1, 2], "b": 1}, {"a": [1, 3], "c": 1})) == [
        "a.1: stored 2, now 3", "b: only stored", "c: only now",
    ]  # fmt: skip


def test_no_results_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert isinstance(done.exception, UsageError) and "no stored runs" in str(done.exception)


# ---- methods, cite


def test_the_paragraph_has_the_facts_of_the_runs(stored: Store) -> None:
    told = facts(stored.scan())
    text = methods_text(told)
    for fact in ("4 runs", "kernel 6.18", "HZ=1000", "kv:footprint_gib=0.25 (0.25 GiB)", "in 5 s", "1/8", "1 and 2",
                 "klruscand", "all_top", "cxl-asic with tiers sized 1:2", "95 %"):  # fmt: skip
        assert fact in text, fact
    one = methods_text(facts(record for record in stored.scan() if record["spec"]["seed"] == 1))
    assert "one seed, so no interval" in one and "95 %" not in one
    assert CliRunner().invoke(app, ["methods", str(stored.path)]).exit_code == 0


def test_every_row_of_a_study_has_a_source(stored: Store) -> None:
    names = of_runs(stored.scan())
    assert {"klruscand", "kv", "cxl-asic", "pghot_record"} <= set(names)
    found = sources(names)
    assert next(s for s in found if s.name == "klruscand").message_ids == [
        "20250910235121.2544928-3-kinseyho@google.com"
    ]
    assert all(source.text for source in found if source.kind in ("machine", "cost"))
    with pytest.raises(UnknownNameError, match="did you mean klruscand"):
        sources(["klruscnd"])


def test_bibtex_is_balanced_and_escaped() -> None:
    texts = ["100 % of {a_b} & c, 20250910235121.2544928-3-kinseyho@google.com", "plain"]
    text = bibtex([Source("policy", f"p{k}", "x", each) for k, each in enumerate(texts)], "1.0")
    assert text.count("@") - text.count("kinseyho@") == 3
    assert text.count("{") == text.count("}") and r"100 \% of  a\_b  \& c" in text
    assert r"\url{https://lore.kernel.org/all/20250910235121.2544928-3-kinseyho@google.com/}" in text


# ---- pack


def test_the_archive_is_the_same_every_time_and_reads_back(stored: Store, tmp_path: Path) -> None:
    first, second = (pack(stored, tmp_path / name) for name in ("a.tar.gz", "b.tar.gz"))
    data = (tmp_path / "a.tar.gz").read_bytes()
    assert data == (tmp_path / "b.tar.gz").read_bytes() and first["sha256"] == hashlib.sha256(data).hexdigest()
    assert first["runs"] == second["runs"] == 4 and not first["missing"]
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "artifact"
    assert Store(root).ids() == stored.ids()
    for line in (root / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
    assert (root / "policies/klruscand.py").exists() and (root / "workloads/kv.py").exists()
    commands = [line for line in (root / "commands.sh").read_text().splitlines() if line.startswith("klrubench")]
    assert len(commands) == 4
    words = shlex.split(commands[0], comments=True)
    done = CliRunner().invoke(app, [*words[1:], "--results", str(root), "--json"])
    assert '"cached": true' in done.output
    assert [check.word for check in verify(Store(root), 1)] == ["same"]


def test_no_time_or_owner_is_in_the_archive(stored: Store) -> None:
    content, _ = contents(stored)
    with tarfile.open(fileobj=io.BytesIO(archive(content))) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}
