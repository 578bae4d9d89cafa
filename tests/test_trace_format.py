"""The stored form: round trips, and files that are cut, flipped, foreign or of another version."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_fakes import random_trace, trace_of

from klrubench.errors import StoreError, TraceFormatError, UsageError
from klrubench.trace import format as stored
from klrubench.trace.card import card_json, card_text
from klrubench.trace.format import Trace, load, load_once, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def packed(folder: Path) -> bytes:
    save(random_trace(1), folder / "good.parquet")
    return (folder / "good.parquet").read_bytes()


def assert_same(first: Trace, second: Trace) -> None:
    assert first.card == second.card
    for name, column in first.columns().items():
        assert np.array_equal(column, second.columns()[name]), name
    assert np.array_equal(first.instructions, second.instructions)
    assert first.digest() == second.digest()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 8))
def test_what_is_saved_is_loaded(folder: Path, seed: int, pages: int, epochs: int) -> None:
    trace = random_trace(seed, pages, epochs)
    save(trace, folder / "round.parquet")
    assert_same(load(folder / "round.parquet"), trace)


def test_the_same_trace_is_the_same_bytes(folder: Path, packed: bytes) -> None:
    save(random_trace(1), folder / "again.parquet")
    assert (folder / "again.parquet").read_bytes() == packed
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_stored_trace_is_plain_parquet(folder: Path, packed: bytes) -> None:
    frame = pl.read_parquet(folder / "good.parquet")
    assert dict(frame.schema) == dict.fromkeys(["epoch", "page", "reads", "writes", "llc_misses"], pl.UInt32)
    footer = json.loads(pl.read_parquet_metadata(folder / "good.parquet")["klrubench.trace"])
    assert footer["version"] == 1
    assert footer["card"]["command"] == "made-up"


def test_a_change_of_the_file_is_noticed(folder: Path) -> None:
    path = folder / "changing.parquet"
    save(random_trace(2), path)
    first = load_once(path)
    assert load_once(path) is first
    save(random_trace(3, pages=50), path)
    assert load_once(path).digest() == random_trace(3, pages=50).digest()


def refused(folder: Path, data: bytes) -> str:
    path = folder / "bad.parquet"
    path.write_bytes(data)
    with pytest.raises(TraceFormatError) as error:
        load(path)
    text = str(error.value)
    assert "bad.parquet: " in text
    assert "\n" not in text
    return text


def test_every_cut_is_refused(folder: Path, packed: bytes) -> None:
    for length in [*range(0, 40), *range(40, len(packed), 97), len(packed) - 1]:
        refused(folder, packed[:length])
    assert "cut short" in refused(folder, packed[: len(packed) // 2])


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_flipped_byte_is_refused(folder: Path, packed: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(packed) - 1))
    damaged = bytearray(packed)
    damaged[place] ^= data.draw(st.integers(1, 255))
    refused(folder, bytes(damaged))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400), st.booleans())
def test_rubbish_is_refused(folder: Path, rubbish: bytes, framed: bool) -> None:
    refused(folder, b"PAR1" + rubbish + b"PAR1" if framed else rubbish)


def write_sealed(path: Path, frame: pl.DataFrame, metadata: str) -> None:
    frame.write_parquet(path, metadata={stored.KEY: metadata})
    path.write_bytes(stored.seal(path.read_bytes()))


def with_footer(path: Path, trace: Trace, **changes: object) -> None:
    """A trace whose metadata say something else than its rows."""
    save(trace, path)
    frame = pl.read_parquet(path)
    footer = json.loads(pl.read_parquet_metadata(path)["klrubench.trace"])
    write_sealed(path, frame, json.dumps({**footer, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "format version 2; this klrubench reads version 1"),
        ({"version": None}, "format version None"),
        ({"card": {}}, "its card"),
        ({"card": None}, "its card"),
        ({"card": {**dataclasses.asdict(random_trace(4).card), "pages": "40"}}, "its card"),
        ({"card": {**dataclasses.asdict(random_trace(4).card), "more": 1}}, "its card"),
        ({"instructions": [[5, 1]]}, "does not match its digest"),
        ({"instructions": ["x"]}, "no pairs of numbers"),
        ({"instructions": [1, 2, 3]}, "no pairs of numbers"),
        ({"instructions": None}, "no pairs of numbers"),
        ({"instructions": {"a": [1, 2]}}, "no pairs of numbers"),
        ({"instructions": []}, "of no or too many epochs"),
        ({"instructions": [[2**62, 1], [2**62, 1]]}, "of no or too many epochs"),
        ({"instructions": [[2**70, 1]]}, "no pairs of numbers"),
        ({"instructions": [[1, -1]]}, "of no or too many epochs"),
        ({"digest": "0" * 32}, "does not match its digest"),
    ],
)
def test_metadata_that_lie_are_refused(folder: Path, changes: dict[str, object], words: str) -> None:
    with_footer(folder / "lie.parquet", random_trace(4), **changes)
    with pytest.raises(TraceFormatError, match=words):
        load(folder / "lie.parquet")


def test_other_parquet_is_no_trace(folder: Path) -> None:
    path = folder / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(TraceFormatError, match="no klrubench trace, or damaged: Parquet without the seal"):
        load(path)
    path.write_bytes(stored.seal(path.read_bytes()))
    with pytest.raises(TraceFormatError, match="no klrubench trace: its metadata hold no card"):
        load(path)


def test_other_columns_are_no_trace(folder: Path) -> None:
    write_sealed(folder / "other.parquet", pl.DataFrame({"a": [1]}), "{}")
    with pytest.raises(TraceFormatError, match="its columns are not epoch, page"):
        load(folder / "other.parquet")


ROWS = [(0, 0, 3, 1, 2), (0, 1, 1, 0, 1), (1, 0, 2, 2, 0)]


@pytest.mark.parametrize(
    ("name", "value", "law"),
    [
        ("llc_misses", [9, 1, 0], "misses are touches"),
        ("page", [1, 0, 0], "in order of epoch and page"),
        ("page", [0, 5, 0], "numbered without gaps"),
        ("epoch", [0, 0, 9], "epochs are as many"),
        ("reads", [3, 1, 0], "touches add up"),
    ],
)
def test_a_trace_that_breaks_a_law_is_refused(folder: Path, name: str, value: list[int], law: str) -> None:
    # saved with a digest that fits, as a faulty recorder would
    save(dataclasses.replace(trace_of(ROWS), **{name: np.array(value, np.uint32)}), folder / "law.parquet")
    with pytest.raises(TraceFormatError, match=f"it is not so that .*{law}"):
        load(folder / "law.parquet")


def test_missing_files_and_unwritable_places(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the trace .*nowhere"):
        load(folder / "nowhere")
    with pytest.raises(UsageError, match=r"cannot read the trace .*nowhere"):
        load_once(folder / "nowhere")
    with pytest.raises(StoreError, match=r"cannot write the trace .*No such file or directory"):
        save(random_trace(1), folder / "no" / "such" / "folder.parquet")


def test_a_full_disk_leaves_the_old_file(folder: Path, packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "kept.parquet"
    path.write_bytes(packed)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        save(random_trace(5), path)
    assert path.read_bytes() == packed
    assert not list(folder.glob(".kept*"))


def test_the_card_says_what_it_must(packed: bytes, folder: Path) -> None:
    trace = load(folder / "good.parquet")
    text = card_text(trace, "good.parquet")
    for words in (
        "made-up",
        "test; exit code 0; 1 thread at most",
        "6,000 instructions",
        "6 epochs of 1,000 instructions",
        "40 pages of 4 KiB (160 KiB)",
        "1 MiB, 16 ways",
        "the rate of a replay is chosen",
        "everything real",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(card_json(trace))["pages"] == 40
