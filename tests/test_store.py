"""The store: nothing half-written, nothing lost, damage found and set aside, any number of writers."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_fakes import toy_result, toy_spec, write_study

from klrubench.errors import StoreError
from klrubench.study.reasons import reasons
from klrubench.study.store import Store, encode
from klrubench.study.table import PARQUET, compact

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_study(tmp_path))
    return tmp_path


@pytest.fixture
def store(study: Path) -> Store:
    return Store(study / "results")


def put(store: Store, **about: Any) -> str:
    spec = toy_spec(**about)
    store.put(spec.run_id, spec.to_record(), toy_result(spec), {"created": "2026-01-01T00:00:00+00:00", "wall_s": 0.5})
    return spec.run_id


def test_what_was_put_is_got(store: Store) -> None:
    run_id = put(store)
    found = store.get(run_id, series=True)
    assert found is not None
    assert found["result"] == toy_result(toy_spec())
    assert found["spec"] == toy_spec().to_record()
    assert found["manifest"]["wall_s"] == 0.5
    without = store.get(run_id)
    assert without is not None
    assert "series" not in without["result"]
    assert store.ids() == [run_id]
    assert store.look(run_id) == "stored"


def test_a_file_is_one_json_document_below_the_first_two_digits(store: Store) -> None:
    run_id = put(store)
    document = json.loads((store.path / "runs" / run_id[:2] / f"{run_id}.json").read_text())
    assert document["run"]["id"] == run_id
    assert document["series"]["t_s"] == [0.0, 1.0, 2.0]


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.get(RUN) is None
    assert store.look(RUN) == "missing"
    assert store.ids() == []
    assert list(store.scan()) == []
    assert not store.path.exists()


@pytest.mark.parametrize("kept", [0, 1, 40, 200, -1])
def test_a_file_cut_short_is_set_aside_by_name(store: Store, kept: int) -> None:
    run_id = put(store)
    file = store.file(run_id)
    file.write_bytes(file.read_bytes()[:kept])
    assert store.look(run_id).startswith("damaged: ")
    assert file.exists()
    assert store.get(run_id) is None
    assert not file.exists()
    assert [path.name.partition(".")[0] for path in store.damaged()] == [run_id]
    assert run_id in store.notes[0]
    put(store)
    assert store.get(run_id) is not None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(store: Store, where: float, bit: int) -> None:
    run_id = put(store)
    data = bytearray(store.file(run_id).read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    store.file(run_id).write_bytes(data)
    assert store.get(run_id, series=True) is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_any_bytes_are_a_damaged_file(store: Store, data: bytes) -> None:
    store.file(RUN).parent.mkdir(parents=True, exist_ok=True)
    store.file(RUN).write_bytes(data)
    assert store.get(RUN) is None


def test_a_file_under_another_run_s_name_is_damaged(store: Store) -> None:
    run_id = put(store)
    store.file(RUN).parent.mkdir(parents=True)
    os.replace(store.file(run_id), store.file(RUN))
    assert store.get(RUN) is None
    assert "another run" in store.notes[0]


def test_half_written_temporaries_are_no_results(store: Store) -> None:
    run_id = put(store)
    (store.file(run_id).parent / f".{RUN}.json.1.0.tmp").write_bytes(b"{")
    assert store.ids() == [run_id]


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(RUN, {}, {"metrics": {"x": float("nan")}}, {})


def test_an_unwritable_folder_is_one_line(study: Path) -> None:
    (study / "results").write_text("a file, not a folder")
    store = Store(study / "results")
    with pytest.raises(StoreError, match="cannot write results to results: ") as caught:
        store.check_writable()
    assert caught.value.exit_code == 5
    with pytest.raises(StoreError, match="cannot write results"):
        put(store)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as out:
            out.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="no room to write results to results: No space left"):
        put(store, seed=2)
    monkeypatch.undo()
    assert len([path for path in store.path.rglob("*") if path.is_file()]) == 1


def _write_many(folder: str, seeds: list[int], study: str) -> None:
    os.chdir(study)
    for seed in seeds:
        put(Store(Path(folder)), seed=seed)


def test_many_writers(store: Store, study: Path) -> None:
    context = multiprocessing.get_context("spawn")
    seeds = [list(range(20)), list(range(10, 30))]
    writers = [context.Process(target=_write_many, args=(str(store.path), each, str(study))) for each in seeds]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list(store.scan())) == len(store.ids()) == 30
    assert store.notes == []


def test_compaction_has_one_row_a_run_and_follows_the_files(store: Store) -> None:
    ids = [put(store, seed=seed) for seed in (3, 1, 2)]
    whole = compact(store)
    assert whole["seed"].to_list() == [1, 2, 3]
    assert whole.schema["accesses"] == pl.Int64
    assert whole.schema["time_s"] == whole.schema["promoted_again_share"] == pl.Float64
    assert pl.read_parquet(store.path / PARQUET).equals(whole)
    put(store, seed=4)
    store.file(ids[0]).unlink()
    assert compact(store)["seed"].to_list() == [1, 2, 4]


def test_compaction_survives_a_damaged_parquet_file_and_new_columns(store: Store) -> None:
    put(store)
    (store.path / PARQUET).write_bytes(b"garbage")
    assert compact(store).height == 1
    spec = toy_spec(seed=2)
    result = toy_result(spec)
    result["metrics"]["new_metric"] = 7
    store.put(spec.run_id, spec.to_record(), result, {})
    assert compact(store)["new_metric"].to_list() == [None, 7]


def test_why_a_run_would_be_computed(store: Store, study: Path) -> None:
    spec = toy_spec()
    assert reasons([spec], store) == {spec.run_id: "not in the store"}
    put(store)
    assert reasons([spec], store) == {}
    longer = toy_spec(duration_s=240.0, fold=16)
    assert reasons([longer], store)[longer.run_id] == "changed since it was stored: duration, scale"
    file = study / "policies" / "mine.py"
    file.write_text(file.read_text() + "EXTRA = 1\n")
    edited = toy_spec()
    assert reasons([edited], store) == {edited.run_id: "changed since it was stored: policy code"}
    store.file(spec.run_id).write_bytes(b"{")
    assert reasons([spec], store)[spec.run_id].startswith("damaged: cut short")
    store.get(spec.run_id)
    assert reasons([spec], store)[spec.run_id] == "its stored result was damaged and set aside"
