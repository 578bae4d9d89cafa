"""Whole runs in one Parquet file: what a folder under version control holds instead of a file a run.

`results.parquet` then has, beside the columns of `table.row`, the parts of each run's file as the store writes it
(`checksum`, `run_json`, `series_json`): its bytes can be put together again, so `verify`, `diff`, `report` and `pack`
take such a folder as they take one with `runs/`. A run takes about 2.5 KB, time line included.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from klrubench.errors import StoreError
from klrubench.study.store import Store
from klrubench.study.table import KEYS, PARQUET, WHOLE, frame, row, write

if TYPE_CHECKING:
    import polars as pl

_LEVEL = 19
"""Of zstandard: written seldom, kept for ever."""


def keep(store: Store, folder: Path, ids: Iterable[str] | None = None) -> int:
    """Write runs of a store (default: all) as `results.parquet` of another folder, in place of the one there.

    Returns:
        The number of runs.

    Raises:
        StoreError: a run does not read back, or the folder cannot be written.
    """
    rows = []
    for run_id in sorted(set(store.ids() if ids is None else ids)):
        look, data = store.look(run_id), store.data(run_id)
        record = store.get(run_id) if look == "stored" else None
        if record is None or data is None:
            raise StoreError(f"run {run_id[:12]}: {look}; remove it or repeat it")
        rows.append({**row(record), **_parts(data)})
    whole = frame(rows)
    write(Store(folder), whole.sort(KEYS) if rows else whole, compression="zstd", compression_level=_LEVEL)
    return len(rows)


def _parts(data: bytes) -> dict[str, str]:
    head, run, series = data.decode().split("\n")[:3]
    return dict(zip(WHOLE, (head, run, series), strict=True))


def read(folder: Path) -> dict[str, bytes]:
    """By id: the bytes of every run that a folder's `results.parquet` holds as a whole; nothing if there is none."""
    found = _frame(folder / PARQUET)
    if found is None:
        return {}
    rows = found.select("run_id", *WHOLE).drop_nulls().iter_rows()
    return {run_id: "\n".join([*parts, ""]).encode() for run_id, *parts in rows}


def _frame(file: Path) -> pl.DataFrame | None:
    if not file.is_file():
        return None
    import polars as pl

    try:
        known = pl.read_parquet_schema(file)
        return pl.read_parquet(file, columns=["run_id", *WHOLE]) if {"run_id", *WHOLE} <= set(known) else None
    except (OSError, pl.exceptions.PolarsError):
        return None  # a damaged cache is made anew; one that held whole runs comes back from version control
