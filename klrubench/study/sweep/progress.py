"""How far a sweep is: a line with the best value so far and the time left, on a terminal's stderr."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from klrubench.study.progress import Progress, Quiet, clock

if TYPE_CHECKING:
    from klrubench.study.spec import RunSpec

_BAR = 20
_EVERY_S = 0.2


class SweepProgress(Progress, Protocol):
    """What a sweep tells while it works; also what the executor tells of its runs."""

    def begin(self, done: int, trials: int, what: str) -> None:
        """So many trials of so many are done."""

    def batch(self, done: int, best: str) -> None:
        """A batch was told; `best` is a line on the best trial."""


class Silent(Quiet):
    """Says nothing."""

    def begin(self, done: int, trials: int, what: str) -> None:
        """Nothing."""

    def batch(self, done: int, best: str) -> None:
        """Nothing."""


class SweepBar:
    """`[=====     ] 87/200 trials  3:12 left   best -4.3 % at #54 interval_ms=640`, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._done = self._first = self._trials = 0
        self._began = self._drawn = 0.0
        self._runs = 0
        self._what = self._best = ""

    def begin(self, done: int, trials: int, what: str) -> None:
        """Draw the bar where the sweep goes on."""
        self._done = self._first = done
        self._trials, self._what = trials, what
        self._began, self._runs = time.monotonic(), 0
        self._draw()

    def batch(self, done: int, best: str) -> None:
        """Move the bar on."""
        self._done, self._best = done, best
        self._draw()

    def start(self, specs: list[RunSpec]) -> None:
        """Nothing: batches move the bar."""

    def done(self, spec: RunSpec) -> None:
        """Count the run."""
        self._runs += 1
        if time.monotonic() - self._drawn >= _EVERY_S:
            self._draw()

    def note(self, text: str) -> None:
        """Say it on a line above the bar."""
        self._stream.write(f"\r\x1b[K{text}\n")
        self._stream.flush()

    def stop(self) -> None:
        """Clear the bar; the next batch draws it again."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()

    def _left(self) -> str:
        here = self._done - self._first
        if here <= 0:
            return ""
        return f"  {clock((time.monotonic() - self._began) / here * (self._trials - self._done))} left"

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if not self._trials:
            return
        filled = _BAR * self._done // max(1, self._trials)
        line = f"[{'=' * filled:<{_BAR}}] {self._done}/{self._trials} {self._what}{self._left()}  {self._runs} runs"
        if self._best:
            line += f"   {self._best}"
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{line[:width].rstrip()}")
        self._stream.flush()


def sweep_progress(stream: TextIO | None = None) -> SweepProgress:
    """A bar if the stream (stderr) is a terminal, else nothing."""
    stream = sys.stderr if stream is None else stream
    return SweepBar(stream) if stream.isatty() else Silent()
