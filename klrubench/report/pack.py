"""An artifact archive: stored runs with versions, commands and sources, in bytes that do not depend on who packs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from klrubench.errors import KlrubenchError, StoreError
from klrubench.report.cite import cite_text
from klrubench.report.methods import methods_text
from klrubench.study.again import command_of
from klrubench.study.facts import facts
from klrubench.study.loader import PluginSource
from klrubench.study.plugins import policy_source, workload_source
from klrubench.study.sources import of_runs, sources
from klrubench.study.store import Store, store_error
from klrubench.study.table import KEYS, row

ROOT = "artifact"
README = """\
Results of klrubench {version}: {runs} runs.

runs/            one JSON file a run: what was asked, its result with the time line, versions and host
table.tsv        one row a run
commands.sh      a command for each run; run it where klrubench {version} is installed
methods.txt      how it was done, in a paragraph
sources.txt      where policies, workloads, machines and costs come from
policies/, workloads/   the files that the runs were made by
versions.json    versions, commits, hosts; SHA256SUMS: every file's hash

Check it:        klrubench verify . --sample 5      (recomputes runs and compares bytes)
Look at it:      klrubench list runs --results .    klrubench explain ID --results .
"""


def pack(store: Store, file: Path) -> dict[str, Any]:
    """Write `file` (.tar.gz) with all runs of a folder; the same runs give the same bytes.

    Returns:
        `files`, `runs`, `bytes`, `sha256` of the archive, and `missing`: plug-ins whose file is not the one that the
        runs were made by, and is therefore not in it.

    Raises:
        StoreError: it cannot be written.
    """
    content, missing = contents(store)
    data = archive(content)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise store_error(file.parent, error) from None
    digest = hashlib.sha256(data).hexdigest()
    runs = sum(name.startswith("runs/") for name in content)
    return {"files": len(content), "runs": runs, "bytes": len(data), "sha256": digest, "missing": missing}


def contents(store: Store) -> tuple[dict[str, bytes], list[str]]:
    """Every file of the archive by its name, and the plug-ins that are left out.

    Raises:
        StoreError: a stored run does not read back.
    """
    from klrubench import __version__

    records, content = [], {}
    for run_id in store.ids():
        look = store.look(run_id)
        if look != "stored":
            raise StoreError(f"run {run_id[:12]}: {look}; remove it or repeat it before packing")
        record = store.get(run_id)
        if record is not None:
            records.append(record)
            content[f"runs/{run_id[:2]}/{run_id}.json"] = store.data(run_id) or b""
    records.sort(key=lambda record: tuple(str(row(record)[name]) for name in KEYS))
    told = facts(records)
    commands = [f"{command_of(record)}  # {record['id']}" for record in records]
    content["README.txt"] = README.format(version=__version__, runs=len(records)).encode()
    content["table.tsv"] = _tsv([row(record) for record in records])
    content["commands.sh"] = "\n".join(["#!/bin/sh", "set -e", *commands, ""]).encode()
    content["methods.txt"] = (methods_text(told) + "\n").encode()
    content["sources.txt"] = (cite_text(sources(of_runs(records)), 100) + "\n").encode()
    content["versions.json"] = (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()
    plugins, missing = _plugins(records)
    content.update(plugins)
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in sorted(content.items())]
    content["SHA256SUMS"] = "\n".join([*sums, ""]).encode()
    return content, missing


def _plugins(records: list[dict[str, Any]]) -> tuple[dict[str, bytes], list[str]]:
    """Files of the plug-ins whose code is still what the runs were made by."""
    from klrubench.study.identity import plugin_hash

    found: dict[str, bytes] = {}
    missing: dict[str, None] = {}
    for kind, find in (("policy", policy_source), ("workload", workload_source)):
        for name, code in {(r["spec"][kind]["name"], r["spec"][kind]["code"]): None for r in records}:
            try:
                source: PluginSource | None = find(name)
            except KlrubenchError:
                source = None
            if source is None or plugin_hash(source) != code:
                missing[f"{kind} {name}"] = None
                continue
            found.update({path: text.encode() for path, text in source.files})
    return found, sorted(missing)


def _tsv(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for each in rows for name in each))
    lines = ["\t".join(names)]
    lines += ["\t".join("" if each.get(name) is None else str(each[name]) for name in names) for each in rows]
    return ("\n".join(lines) + "\n").encode()


def archive(content: dict[str, bytes]) -> bytes:
    """A gzipped tar: names sorted, below one folder, no times, owners or host in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(content):
            info = tarfile.TarInfo(f"{ROOT}/{name}")
            info.size, info.mode = len(content[name]), 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(content[name]))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as out:
        out.write(raw.getvalue())
    return packed.getvalue()
