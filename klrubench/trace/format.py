"""The stored form of a recorded trace: touches and misses by epoch and page, and a card that says what they are.

A trace is a Parquet file (zstd) with one row for each page touched in each epoch, by epoch and then page:

    epoch u32         stretch of the recording, from 0; each has the same number of time-base units but the last
    page u32          4 KiB pages that the program touched, numbered from 0 in address order
    reads u32         touches that read, before any cache; a touch is an access to one 64-byte line
    writes u32        touches that wrote; a read-modify-write is one of each
    llc_misses u32    touches that the last-level cache did not have (all of them when nothing was filtered)

The file's metadata hold `klrubench.trace`, a JSON object: format version, card, instructions of each epoch (as pairs:
so many epochs of so many), and a digest of all of it. A seal stands just before the footer, where readers of Parquet
never look: 4 bytes `KLRU` and the blake2b-128 of all other bytes of the file. It is checked before the file is decoded,
because one wrong byte in a length can make a Parquet reader ask for more memory than there is and end the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from klrubench.errors import StoreError, TraceFormatError, UsageError

__all__ = ["PAGE_SHIFT", "VERSION", "Trace", "TraceCard", "load", "load_once", "save"]

VERSION = 1
PAGE_SHIFT = 12
MAX_EPOCHS = 1 << 27
KEY = "klrubench.trace"
SEAL = b"KLRU"
_CHECKSUM_BYTES = 16
COLUMNS = ("epoch", "page", "reads", "writes", "llc_misses")
TIME_BASES = ("instructions", "accesses")


@dataclass(frozen=True)
class TraceCard:
    """What a reader must know about a trace before believing anything made from it.

    Attributes:
        command: base name of the program that was recorded ("" if not known).
        note: what the program did, in the words of who recorded it.
        tool: what recorded it.
        threads: most threads seen at once; None: not known.
        exit_code: the program's own; None: not known, or stopped before its end.
        complete: whether the recording goes from the program's start to its end.
        time_base: what an epoch is counted in, "instructions" or "accesses"; never time.
        epoch_length: time-base units an epoch.
        epochs: number of epochs.
        instructions: instructions in all (0: the recording has none).
        accesses: loads, stores and modifies in all.
        touches: touches of a 64-byte line in all, reads + writes.
        llc_misses: those that missed the cache.
        llc_bytes: capacity of the cache in bytes; 0: unfiltered.
        llc_ways: its ways; 0: unfiltered.
        pages: 4 KiB pages touched.
        extents: runs of neighbouring pages that these form.
        lacks: what the recording does not hold.
    """

    command: str
    note: str
    tool: str
    threads: int | None
    exit_code: int | None
    complete: bool
    time_base: str
    epoch_length: int
    epochs: int
    instructions: int
    accesses: int
    touches: int
    llc_misses: int
    llc_bytes: int
    llc_ways: int
    pages: int
    extents: int
    lacks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace in memory: the columns of the stored form, its card, and instructions of each epoch (i64)."""

    card: TraceCard
    epoch: np.ndarray
    page: np.ndarray
    reads: np.ndarray
    writes: np.ndarray
    llc_misses: np.ndarray
    instructions: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The stored columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def digest(self) -> str:
        """Hash of everything that the trace says (32 hex digits)."""
        told = hashlib.blake2b(digest_size=16)
        told.update(json.dumps({"version": VERSION, "card": asdict(self.card)}, sort_keys=True).encode())
        told.update(np.ascontiguousarray(self.instructions, "<i8").data)
        for column in self.columns().values():
            told.update(np.ascontiguousarray(column, "<u4").data)
        return told.hexdigest()


def save(trace: Trace, path: str | Path) -> None:
    """Write a trace, all or nothing.

    Raises:
        StoreError: it cannot be written there.
    """
    import polars as pl

    footer = {
        "version": VERSION,
        "digest": trace.digest(),
        "card": asdict(trace.card),
        "instructions": [[len(list(same)), number] for number, same in groupby(trace.instructions.tolist())],
    }
    rows = pl.DataFrame({name: np.ascontiguousarray(column, np.uint32) for name, column in trace.columns().items()})
    packed = io.BytesIO()
    rows.write_parquet(
        packed, compression="zstd", compression_level=19, statistics=False, metadata={KEY: json.dumps(footer)}
    )
    _write_atomically(Path(path), seal(packed.getvalue()))


def seal(data: bytes) -> bytes:
    """Parquet with a seal before its footer; offsets in the footer count from the file's start, so they stay right."""
    footer = _footer_begin(data)
    return data[:footer] + SEAL + _checksum(data[:footer], data[footer:]) + data[footer:]


def _footer_begin(data: bytes) -> int:
    """Where the footer of Parquet begins: before the last 8 bytes, its length and `PAR1`."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _checksum(*parts: bytes) -> bytes:
    told = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for part in parts:
        told.update(part)
    return told.digest()


def _check_seal(data: bytes) -> None:
    footer = _footer_begin(data)
    begin = footer - len(SEAL) - _CHECKSUM_BYTES
    if begin < 0 or data[begin : begin + len(SEAL)] != SEAL:
        raise TraceFormatError("is no klrubench trace, or damaged: Parquet without the seal of a trace")
    if data[begin + len(SEAL) : footer] != _checksum(data[:begin], data[footer:]):
        raise TraceFormatError("is damaged: its bytes do not match its seal")


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise StoreError(f"cannot write the trace {path}: {error.strerror}") from None


def load(path: str | Path) -> Trace:
    """Read a trace and check all that it says of itself.

    Raises:
        UsageError: there is no such file, or it may not be read.
        TraceFormatError: it is cut short, damaged, no trace, or of a later version.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the trace {path}: {error.strerror}") from None
    try:
        return _decode(data)
    except TraceFormatError as error:
        raise TraceFormatError(f"{path}: {error}") from None


def load_once(path: str | Path) -> Trace:
    """`load`, remembered as long as the file is the same by size and time of change."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise UsageError(f"cannot read the trace {path}: {error.strerror}") from None
    return _load_state(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _load_state(path: str, size: int, mtime_ns: int) -> Trace:
    return load(path)


def _decode(data: bytes) -> Trace:
    if len(data) < 12 or data[:4] != b"PAR1":
        raise TraceFormatError("is no klrubench trace (klrubench trace import makes one from lackey text)")
    if data[-4:] != b"PAR1":
        raise TraceFormatError("is cut short: its end is missing")
    _check_seal(data)
    rows, footer = _parquet(data)
    if not isinstance(footer, dict) or footer.get("version") != VERSION:
        version = footer.get("version") if isinstance(footer, dict) else None
        raise TraceFormatError(f"has trace format version {version!r}; this klrubench reads version {VERSION}")
    card = _card(footer.get("card"))
    trace = Trace(card, **rows, instructions=_instructions(footer.get("instructions")))
    if trace.digest() != footer.get("digest"):
        raise TraceFormatError("is damaged: its content does not match its digest")
    _check(trace)
    return trace


def _parquet(data: bytes) -> tuple[dict[str, np.ndarray], Any]:
    import polars as pl

    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(data))
        if KEY not in metadata:
            raise TraceFormatError("is Parquet but no klrubench trace: its metadata hold no card")
        frame = pl.read_parquet(io.BytesIO(data))
        if dict(frame.schema) != dict.fromkeys(COLUMNS, pl.UInt32) or any(frame.null_count().row(0)):
            raise TraceFormatError(f"is no klrubench trace: its columns are not {', '.join(COLUMNS)}, all u32")
        return {name: frame[name].to_numpy() for name in COLUMNS}, json.loads(metadata[KEY])
    except TraceFormatError:
        raise
    except (pl.exceptions.PolarsError, ValueError, OSError, RecursionError) as error:
        raise TraceFormatError(f"is damaged: {' '.join(str(error).split())[:120]}") from None


_JSON_TYPES = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "tuple[str, ...]": (list,),
}


def _card(value: Any) -> TraceCard:
    kinds = {field.name: _JSON_TYPES[str(field.type)] for field in fields(TraceCard)}
    whole = isinstance(value, dict) and set(value) == set(kinds)
    if not whole or any(type(value[name]) not in kind for name, kind in kinds.items()):
        raise TraceFormatError("is damaged: its card does not hold what a card holds")
    return TraceCard(**{**value, "lacks": tuple(value["lacks"])})


def _instructions(pairs: Any) -> np.ndarray:
    try:
        counts, numbers = np.array(pairs, np.int64).reshape(-1, 2).T
    except (TypeError, ValueError, OverflowError):
        raise TraceFormatError("is damaged: instructions by epoch are no pairs of numbers") from None
    if counts.min(initial=0) < 0 or numbers.min(initial=0) < 0 or not 0 < counts.astype(object).sum() <= MAX_EPOCHS:
        raise TraceFormatError("is damaged: instructions by epoch are of no or too many epochs")
    return np.repeat(numbers, counts)


def _check(trace: Trace) -> None:
    """What must hold in any trace, however it was made."""
    card = trace.card
    touches = trace.reads.astype(np.int64) + trace.writes
    order = trace.epoch.astype(np.int64) << 32 | trace.page
    laws = {
        "rows are in order of epoch and page": bool(np.all(np.diff(order) > 0)),
        "no row is empty": trace.epoch.size > 0 and bool(np.all(touches > 0)),
        "misses are touches": bool(np.all(trace.llc_misses <= touches)),
        "touches add up": int(touches.sum()) == card.touches and int(trace.llc_misses.sum()) == card.llc_misses,
        "pages are numbered without gaps": np.unique(trace.page).size == card.pages == trace.page.max(initial=0) + 1,
        "epochs are as many as instructions": trace.instructions.size == card.epochs > trace.epoch.max(initial=0),
        "instructions add up": int(trace.instructions.sum()) == card.instructions,
        "the time base is known": card.time_base in TIME_BASES,
    }
    for law, holds in laws.items():
        if not holds:
            raise TraceFormatError(f"is damaged: it is not so that {law}")
