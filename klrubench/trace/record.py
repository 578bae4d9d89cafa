"""Record a program: it runs under valgrind's lackey, whose text goes through a pipe and is never stored."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klrubench.errors import TraceFormatError, UsageError
from klrubench.trace.collect import Collector, Origin
from klrubench.trace.compressed import read_chunks
from klrubench.trace.format import Trace
from klrubench.trace.lackey import INSTRUCTION, Events, LackeyParser

__all__ = ["Progress", "Recording", "import_text", "record"]

Progress = Callable[[Collector, int], None]
"""Called now and then with the collector and the bytes of text (or of the file) read so far."""

_CHUNK_BYTES = 1 << 20
_POLL_S = 0.2
_PATIENCE_S = 1.0

LACKS = (
    "time: lackey counts instructions, so the rate of a replay is chosen",
    "the kernel: what it touches for the program in system calls and faults",
    "child processes, and programs started by exec",
    "parallelism: threads run one at a time",
    "instruction fetches (instructions are counted, their pages are not touched)",
    "prefetches of the hardware",
)
UNFILTERED = "a cache: every touch counts as a miss"
FILTERED = "physical addresses: the cache is indexed with virtual ones"


@dataclass(frozen=True)
class Recording:
    """A recorded program.

    Attributes:
        trace: what it touched.
        exit_code: its own (negative: ended by that signal); None: stopped before its end.
    """

    trace: Trace
    exit_code: int | None


def lacks(filtered: bool, threads: int | None, missing: str = "") -> tuple[str, ...]:
    """What a lackey recording does not hold."""
    listed = [text for text in LACKS if threads != 1 or not text.startswith("parallelism")]
    return (*listed, FILTERED if filtered else UNFILTERED, *([missing] if missing else []))


def find_valgrind() -> str:
    """Path of valgrind.

    Raises:
        UsageError: there is none; says how to get it.
    """
    found = shutil.which("valgrind")
    if found is None:
        raise UsageError(
            "recording needs valgrind: apt install valgrind, dnf install valgrind or pacman -S valgrind (https://valgrind.org)"
        )
    return found


def find_command(name: str) -> str:
    """Path of the program that a shell would run for that name.

    Raises:
        UsageError: there is none.
    """
    found = shutil.which(name)
    if found is None:
        reason = "is not executable" if os.path.exists(name) and os.sep in name else "not found"
        raise UsageError(f"command '{name}' {reason}; write klrubench trace record -- COMMAND ARGUMENTS")
    return found


def record(
    command: Sequence[str],
    collector: Collector,
    *,
    filtered: bool,
    max_accesses: int | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Recording:
    """Run `command` under lackey and count what it touches. Its standard streams are those of this process.

    Args:
        command: program and arguments.
        collector: an unused one.
        filtered: whether the collector has a cache (for the card).
        max_accesses: stop the program after so many; None: let it end.
        note: words for the card.
        progress: told now and then how far it is.

    An interrupt (Ctrl-C) stops the program and keeps what was recorded.

    Raises:
        UsageError: valgrind or the command is missing, or valgrind cannot run it.
        TraceFormatError: valgrind wrote something else than a trace.
    """
    if not command:
        raise UsageError("nothing to record: write klrubench trace record -- COMMAND ARGUMENTS")
    valgrind = find_valgrind()
    find_command(command[0])
    version = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    recorder = _Recorder(valgrind, command, collector, max_accesses, progress)
    stopped = recorder.run()
    exit_code = None if stopped else recorder.process.returncode
    if not collector.accesses and stopped:
        raise KeyboardInterrupt
    if not collector.accesses:
        code = recorder.process.returncode
        raise UsageError(f"valgrind could not run '{command[0]}' (exit code {code}): nothing was recorded")
    missing = stopped
    if exit_code is not None and exit_code < 0:
        missing = f"what came after signal {-exit_code}, which ended the program"
    origin = Origin(
        command=Path(command[0]).name,
        note=note,
        tool=f"{version or 'valgrind'} lackey",
        threads=recorder.threads,
        exit_code=exit_code,
        complete=not missing,
        lacks=lacks(filtered, recorder.threads, missing),
    )
    return Recording(collector.finish(origin), exit_code)


class _Recorder:
    """A program under valgrind and the pipe that its trace comes through."""

    def __init__(
        self, valgrind: str, command: Sequence[str], collector: Collector, limit: int | None, progress: Progress | None
    ) -> None:
        self.collector, self.limit, self.progress = collector, limit, progress
        self.parser = LackeyParser("valgrind's output")
        self.threads = 1
        self.read_bytes = 0
        self.source, sink = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
        options = ["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", "--child-silent-after-fork=yes"]
        quiet = ["-q", "--vgdb=no", f"--log-fd={sink}"]
        try:
            self.process = subprocess.Popen([valgrind, *options, *quiet, *command], pass_fds=(sink,))
        except OSError as error:
            os.close(self.source)
            raise UsageError(f"cannot start valgrind: {error.strerror}") from None
        finally:
            os.close(sink)

    def run(self) -> str:
        """Read until the program ends; returns what is missing if it was stopped before."""
        stopped = ""
        try:
            with _interrupts() as interrupted:
                stopped = self._read_all(interrupted)
        finally:
            os.close(self.source)
            if stopped or self.process.poll() is None:
                self._stop()
        return stopped

    def _read_all(self, interrupted: list[int]) -> str:
        for chunk in self._chunks(interrupted):
            for events in self.parser.feed(chunk):
                if self._count(events):
                    return f"the end of the program: it was stopped after {self.limit:,} accesses"
            if self.progress:
                self.progress(self.collector, self.read_bytes)
        if interrupted:
            return "the end of the program: recording was interrupted"
        if self.process.wait() >= 0:
            self.parser.close()
        return ""

    def _count(self, events: Events) -> bool:
        """Count events up to the limit; whether it is reached."""
        if self.limit is None:
            self.collector.feed(events)
            return False
        accesses = np.flatnonzero(events.kind != INSTRUCTION)
        left = self.limit - self.collector.accesses
        if accesses.size >= left:
            stop = int(accesses[left - 1]) + 1
            events = Events(events.kind[:stop], events.address[:stop], events.size[:stop])
        self.collector.feed(events)
        return accesses.size >= left

    def _chunks(self, interrupted: list[int]) -> Iterator[bytes]:
        """Pieces of the trace. A child that lives on may hold the pipe open, so the program's end is an end too."""
        looked, ended = 0.0, 0.0
        while not interrupted:
            ready, _, _ = select.select([self.source], [], [], _POLL_S)
            now = time.monotonic()
            if now - looked > _POLL_S:
                looked = now
                self._look_at_threads()
            if ready:
                chunk = os.read(self.source, _CHUNK_BYTES)
                if not chunk:
                    return
                self.read_bytes += len(chunk)
                yield chunk
            elif self.process.poll() is not None:
                ended = ended or now
                if now - ended > _PATIENCE_S:
                    return

    def _look_at_threads(self) -> None:
        with contextlib.suppress(OSError):
            self.threads = max(self.threads, len(os.listdir(f"/proc/{self.process.pid}/task")))

    def _stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Signals of Ctrl-C are listed instead of raised, so that none falls between two steps of counting."""
    listed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield listed
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: listed.append(number))
    try:
        yield listed
    finally:
        signal.signal(signal.SIGINT, before)


def import_text(
    path: str, collector: Collector, *, filtered: bool, note: str = "", progress: Progress | None = None
) -> Trace:
    """The trace of a file of lackey text: plain, gzip, xz or zstd; `-` is standard input.

    Raises:
        UsageError: the file cannot be opened.
        TraceFormatError: it is cut short, damaged, or no lackey text.
    """
    name = "standard input" if path == "-" else Path(path).name
    parser = LackeyParser(name)
    for chunk, read_bytes in read_chunks(path):
        for events in parser.feed(chunk):
            collector.feed(events)
        if progress:
            progress(collector, read_bytes)
    parser.close()
    if not collector.accesses:
        raise TraceFormatError(f"{name}: holds no memory accesses")
    return collector.finish(Origin(note=note, lacks=lacks(filtered, None)))
