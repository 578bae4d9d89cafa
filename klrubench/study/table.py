"""Stored runs as a Polars frame, one row a run; and its Parquet copy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from klrubench.study.store import Store, store_error

if TYPE_CHECKING:
    import polars as pl

PARQUET = "results.parquet"
KEYS = ("machine", "ratio", "workload", "policy", "seed", "run_id")
"""Columns that order the rows of the Parquet copy."""

WHOLE = ("checksum", "run_json", "series_json")
"""Columns of rows that hold a whole run (kept.py): the three parts of its file."""


def row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stored run as one flat row; what is not a number or a word becomes JSON text (`*_json`)."""
    spec, result, manifest = record["spec"], record["result"], record["manifest"]
    workload, policy = spec["workload"], spec["policy"]
    return {
        "policy": policy["label"],
        "workload": workload["label"],
        "machine": spec["machine"]["name"],
        "ratio": ratio_text(spec["machine"].get("ratio")),
        "seed": spec["seed"],
        "run_id": record["id"],
        "policy_role": policy["facts"].get("role", "policy"),
        "contestant": bool(policy["facts"].get("contestant", True)),
        "workload_control": bool(workload["facts"].get("control", False)),
        **result["metrics"],
        "cpu_json": _json(result.get("cpu", {})),
        "daemon_threads_json": _json(result.get("daemon_threads", [])),
        "bound_json": _json(result.get("bound", {})),
        "vmstat_json": _json(result.get("vmstat", {})),
        "notes_json": _json(result.get("notes", [])),
        "tenants_json": _json(result.get("tenants", [])),
        "sysctls_json": _json(policy["facts"].get("sysctls", {})),
        "daemon_cpus": str(spec["options"].get("daemon_cpus", "spare")),
        "components_json": _json(spec["components"]),
        "created": manifest.get("created", ""),
        "wall_s": float(manifest.get("wall_s", 0.0)),
    }


def ratio_text(ratio: Any) -> str:
    """`1:2` of (1.0, 2.0); empty where every node has its own capacity."""
    return ":".join(f"{part:g}" for part in ratio or ())


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def frame(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame, in the order given: integers as Int64, columns with a float (or only nulls) as Float64."""
    import polars as pl

    rows = list(rows)
    names = dict.fromkeys(name for each in rows for name in each)
    columns = {name: [each.get(name) for each in rows] for name in names}
    return pl.DataFrame([pl.Series(name, values, dtype=_type(values)) for name, values in columns.items()])


def _type(values: list[Any]) -> Any:
    import polars as pl

    kinds = {type(value) for value in values if value is not None}
    for kind, found in ((str, pl.String), (float, pl.Float64), (int, pl.Int64), (bool, pl.Boolean)):
        if kind in kinds:
            return found
    return pl.Float64


def compact(store: Store) -> pl.DataFrame:
    """One row for every stored run, ordered by `KEYS`; brings `results.parquet` up to date and returns its rows.

    Only runs that the Parquet file does not hold yet are read; it is a cache, and a damaged one is made anew.

    Raises:
        StoreError: it cannot be written.
    """
    import polars as pl

    stored = set(store.ids())
    known = _known(store)
    kept = known.filter(pl.col("run_id").is_in(sorted(stored))) if known is not None else None
    have = set(kept["run_id"]) if kept is not None else set()
    records = (store.get(run_id) for run_id in sorted(stored - have))
    fresh = frame(row(record) for record in records if record is not None)
    parts = [part for part in (kept, fresh) if part is not None and part.height]
    whole = pl.concat(parts, how="diagonal_relaxed").sort(KEYS) if parts else fresh
    if fresh.height or known is None or (kept is not None and kept.height != known.height):
        write(store, whole)
    return whole.drop(WHOLE, strict=False)


def _known(store: Store) -> pl.DataFrame | None:
    import polars as pl

    try:
        found = pl.read_parquet(store.path / PARQUET)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return found if {"run_id", *KEYS} <= set(found.columns) else None


def write(store: Store, whole: pl.DataFrame, **how: Any) -> None:
    """Replace the Parquet copy at once; raises StoreError."""
    temporary = store.path / f".{PARQUET}.{os.getpid()}.tmp"
    try:
        store.path.mkdir(parents=True, exist_ok=True)
        whole.write_parquet(temporary, metadata={"klrubench": "one row a run"}, **how)
        os.replace(temporary, store.path / PARQUET)
    except OSError as error:
        raise store_error(store.path, error) from None
