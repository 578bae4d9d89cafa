"""Results on disk: one JSON file a run, named by its id, written at once, by any number of writers.

- `runs/<hh>/<id>.json`: checksum, then the run (spec, result, manifest), then its time series, a line each
- `runs/damaged/`: files that did not read back, set aside
- `results.parquet`: one row a run; a cache, rebuilt from runs/ (table.py); rows that hold a whole run (kept.py) are
  read as if its file were there
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klrubench.errors import StoreError
from klrubench.study.folder import shown
from klrubench.study.identity import canonical, digest

_HEAD = b'{"checksum":"'
_RUN = b'"run":'
_SERIES = b'"series":'
_count = itertools.count()


class _DamagedError(Exception):
    """What is wrong with a file's bytes."""


@dataclass
class Store:
    """A folder of results.

    Attributes:
        path: the results folder; made when the first result is written.
        notes: one line for each file that was found damaged and set aside.
    """

    path: Path
    notes: list[str] = field(default_factory=list)
    _kept: dict[str, bytes] | None = field(default=None, repr=False, compare=False)

    def file(self, run_id: str) -> Path:
        """Where the run of that id is or would be."""
        return self.path / "runs" / run_id[:2] / f"{run_id}.json"

    def check_writable(self) -> None:
        """Raise StoreError now when results could not be written later."""
        probe = self.path / "runs" / f".probe.{os.getpid()}.tmp"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
            probe.unlink()
        except OSError as error:
            raise store_error(self.path, error) from None

    def put(self, run_id: str, spec: dict[str, Any], result: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Write a run at once: a reader sees all of it or nothing, and the last of several writers wins.

        Raises:
            StoreError: the folder cannot be written or the disk is full; nothing half-written is left.
        """
        file = self.file(run_id)
        temporary = file.parent / f".{file.name}.{os.getpid()}.{next(_count)}.tmp"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(encode(run_id, spec, result, manifest))
            os.replace(temporary, file)
        except OSError as error:
            _remove_quietly(temporary)
            raise store_error(self.path, error) from None

    def get(self, run_id: str, series: bool = False) -> dict[str, Any] | None:
        """The run of that id: `{"id", "spec", "result", "manifest"}`, the time series in its result if asked for.

        `None` if there is none. A damaged file is set aside, named in `notes`, and counts as none.
        """
        try:
            return self._read(self.file(run_id), series)
        except _DamagedError as error:
            self._set_aside(self.file(run_id), str(error))
            return None

    def look(self, run_id: str) -> str:
        """`"stored"`, `"missing"`, or `"damaged: why"`; changes nothing."""
        try:
            return "missing" if self._read(self.file(run_id), False) is None else "stored"
        except _DamagedError as error:
            return f"damaged: {error}"

    def ids(self) -> list[str]:
        """Ids of all stored runs, sorted."""
        files = (self.path / "runs").glob("[0-9a-f][0-9a-f]/*.json")
        return sorted({path.stem for path in files if path.name[0] != "."} | set(self.kept()))

    def kept(self) -> dict[str, bytes]:
        """By id: the bytes of every run that `results.parquet` holds as a whole."""
        if self._kept is None:
            from klrubench.study.kept import read

            self._kept = read(self.path)
        return self._kept

    def data(self, run_id: str) -> bytes | None:
        """The bytes of a run's file, wherever they are kept; `None` if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        file = self.file(run_id)
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return self.kept().get(run_id)
        except OSError as error:
            raise StoreError(f"cannot read {shown(file)}: {error.strerror}") from None

    def scan(self) -> Iterator[dict[str, Any]]:
        """Every stored run that reads back, by id, without time series; the damaged ones are set aside."""
        records = (self.get(run_id) for run_id in self.ids())
        return (record for record in records if record is not None)

    def damaged(self) -> list[Path]:
        """Files that were set aside."""
        return sorted((self.path / "runs" / "damaged").glob("*.json"))

    def _read(self, file: Path, series: bool) -> dict[str, Any] | None:
        data = self.data(file.stem)
        if data is None:
            return None
        record = decode(data, series)
        if record.get("id") != file.stem:
            raise _DamagedError("it holds another run than its name says")
        return record

    def _set_aside(self, file: Path, why: str) -> None:
        if not file.exists() and self.kept().pop(file.stem, None) is not None:
            self.notes.append(f"damaged result left out: {file.stem} of {shown(self.path)}/results.parquet ({why})")
            return
        folder = self.path / "runs" / "damaged"
        target = folder / f"{file.stem}.{os.getpid()}.{next(_count)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            raise store_error(self.path, error) from None
        self.notes.append(f"damaged result set aside: {shown(target)} ({why})")


def encode(run_id: str, spec: dict[str, Any], result: dict[str, Any], manifest: dict[str, Any]) -> bytes:
    """The bytes of a run's file: a JSON document of three lines, so that a reader can leave out the series."""
    without = {key: value for key, value in result.items() if key != "series"}
    run = canonical({"id": run_id, "spec": spec, "result": without, "manifest": manifest})
    body = f'"run":{run},\n"series":{canonical(result.get("series", {}))}}}\n'
    return f'{{"checksum":"{digest(body)}",\n{body}'.encode()


def decode(data: bytes, series: bool = True) -> dict[str, Any]:
    """Read back what `encode` wrote; raises _DamagedError with the reason when a byte differs."""
    head, newline, body = data.partition(b"\n")
    lines = body.split(b"\n")
    if not newline or not head.startswith(_HEAD) or len(lines) != 3:
        raise _DamagedError("cut short or no result file")
    if head != f'{{"checksum":"{digest(body.decode("utf-8", "replace"))}",'.encode():
        raise _DamagedError("its checksum does not match")
    try:
        record: dict[str, Any] = json.loads(lines[0].removeprefix(_RUN).removesuffix(b","))
        if series:
            record["result"]["series"] = json.loads(lines[1].removeprefix(_SERIES).removesuffix(b"}"))
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"unreadable: {error}") from None
    return record


def _remove_quietly(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return  # the first error is the one to report


def store_error(path: Path, error: OSError) -> StoreError:
    """What went wrong when results were written, in one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"no room to write results to {shown(path)}: {error.strerror}")
    return StoreError(f"cannot write results to {shown(path)}: {error.strerror or error}")
