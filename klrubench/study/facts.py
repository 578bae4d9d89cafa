"""What a set of stored runs says of itself: versions, machines, work, policies, seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from klrubench.study.table import ratio_text


def facts(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of some stored runs, each as the sorted list of its values.

    Keys: runs, policies, bounds, workloads, machines (name and ratio), kernels, hz, seeds, durations_s, folds,
    daemon_cpus, footprints_gib, versions (by library), commits, cpus (models), wall_s, schemas.
    """
    found: dict[str, set[Any]] = {}
    runs, wall_s = 0, 0.0
    for record in records:
        runs += 1
        wall_s += float(record["manifest"].get("wall_s", 0.0))
        for name, value in _facts(record):
            found.setdefault(name, set()).add(value)
    return {"runs": runs, "wall_s": wall_s, **{name: sorted(values) for name, values in found.items()}}


def _facts(record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    spec, manifest = record["spec"], record["manifest"]
    machine, policy = spec["machine"], spec["policy"]
    yield ("policies" if policy["facts"].get("role", "policy") == "policy" else "bounds"), policy["label"]
    yield "workloads", spec["workload"]["label"]
    yield "machines", (machine["name"], ratio_text(machine.get("ratio")))
    yield "kernels", machine["kernel"]
    yield "hz", machine["hz"]
    yield "seeds", spec["seed"]
    yield "durations_s", spec["duration_s"]
    yield "folds", spec["fold"]
    yield "daemon_cpus", spec["options"].get("daemon_cpus", "spare")
    yield "schemas", spec["components"].get("result schema", "")
    if spec["workload"]["params"].get("footprint_gib"):
        yield "footprints_gib", (spec["workload"]["label"], spec["workload"]["params"]["footprint_gib"])
    for name, version in manifest.get("versions", {}).items():
        if version:
            yield "versions", (name, version)
    commit = manifest.get("commit") or {}
    if commit.get("id"):
        yield "commits", f"{commit['id'][:12]}{' (with uncommitted changes)' if commit.get('dirty') else ''}"
    if manifest.get("cpu"):
        yield "cpus", manifest["cpu"]
