"""Chunks of a file that may be plain, gzip, xz or zstd; which it is, its first bytes tell."""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from klrubench.errors import TraceFormatError, UsageError

__all__ = ["read_chunks"]

CHUNK_BYTES = 1 << 20
_ZSTD_CHUNK_BYTES = 1 << 14  # a damaged frame can ask for a great deal of memory for each byte that it is given
_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


def read_chunks(path: str) -> Iterator[tuple[bytes, int]]:
    """Pieces of the unpacked text with the bytes of the file that were read for them; `-` is standard input.

    Raises:
        UsageError: the file cannot be opened, or needs the package zstandard.
        TraceFormatError: it is damaged or cut short.
    """
    if path == "-":
        yield from _unpacked(sys.stdin.buffer, "standard input")
        return
    try:
        source = open(path, "rb")  # noqa: SIM115  (an error here is another one than an error while reading)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    with source:
        yield from _unpacked(source, Path(path).name)


class _Counted:
    """A file that counts what is read from it and gives its first bytes again."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.head = source.read(6)
        self.given = 0
        self._ahead = self.head

    def read(self, size: int = -1) -> bytes:
        data, self._ahead = self._ahead, b""
        if size < 0 or len(data) < size:
            data += self.source.read(size - len(data) if size >= 0 else -1)
        elif len(data) > size:
            data, self._ahead = data[:size], data[size:]
        self.given += len(data)
        return data


def _unpacked(source: IO[bytes], name: str) -> Iterator[tuple[bytes, int]]:
    try:
        counted = _Counted(source)
        for chunk in _opened(counted):
            yield chunk, counted.given
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise TraceFormatError(f"{name}: damaged or cut short: {str(error) or type(error).__name__}") from None
    except OSError as error:
        raise TraceFormatError(f"{name}: cannot be read: {error.strerror or error}") from None


def _opened(source: _Counted) -> Iterator[bytes]:
    stream: Any = source
    if source.head.startswith(_ZSTD):
        return _zstd(source)
    if source.head.startswith(_GZIP):
        stream = gzip.GzipFile(fileobj=source)  # type: ignore[call-overload]
    elif source.head.startswith(_XZ):
        stream = lzma.LZMAFile(source)  # type: ignore[arg-type]  # noqa: SIM115
    return iter(lambda: stream.read(CHUNK_BYTES), b"")


def _zstd(source: _Counted) -> Iterator[bytes]:
    """All frames of a zstd file; the stream reader of the package would take a cut one for its end."""
    try:
        import zstandard
    except ImportError:
        raise UsageError("reading .zst needs the package zstandard: pip install zstandard") from None
    frame, within = zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while data := source.read(_ZSTD_CHUNK_BYTES):
            while data:
                yield frame.decompress(data)
                data, within = frame.unused_data, not frame.eof
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if within:
        raise EOFError("the last zstd frame has no end")
