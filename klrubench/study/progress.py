"""A bar with the time left, on a terminal's stderr; nothing when piped."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from klrubench.study.spec import RunSpec

_BAR = 24
_EVERY_S = 0.1


class Progress(Protocol):
    """What the executor tells while it works."""

    def start(self, specs: list[RunSpec]) -> None:
        """These runs are about to be computed."""

    def done(self, spec: RunSpec) -> None:
        """A run ended, well or not."""

    def note(self, text: str) -> None:
        """Something worth a line while it lasts."""

    def stop(self) -> None:
        """No more runs."""


class Quiet:
    """Says nothing."""

    def start(self, specs: list[RunSpec]) -> None:
        """Nothing."""

    def done(self, spec: RunSpec) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Bar:
    """`[=====     ] 238/450  0:27 left   kv/klruscand seed 2`, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._total = self._ended = 0
        self._work = self._work_done = self._first_work = 0.0
        self._first_s = self._drawn_s = 0.0

    def start(self, specs: list[RunSpec]) -> None:
        """Draw the empty bar."""
        self._total, self._work = len(specs), sum(spec.work for spec in specs)
        self._draw("")

    def done(self, spec: RunSpec) -> None:
        """Move the bar on."""
        now = time.monotonic()
        self._ended += 1
        self._work_done += spec.work
        if self._ended == 1:
            # the time left is told from the first result on: start-up and compilation come only once
            self._first_s, self._first_work = now, self._work_done
        if now - self._drawn_s >= _EVERY_S or self._ended == self._total:
            self._drawn_s = now
            self._draw(spec.title, self._left(now))

    def note(self, text: str) -> None:
        """Say it on a line above the bar."""
        self._stream.write(f"\r\x1b[K{text}\n")
        self._stream.flush()

    def stop(self) -> None:
        """Clear the bar."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()

    def _left(self, now: float) -> str:
        done = self._work_done - self._first_work
        return clock((self._work - self._work_done) * (now - self._first_s) / done) + " left" if done > 0 else ""

    def _draw(self, title: str, left: str = "") -> None:
        filled = _BAR * self._ended // max(1, self._total)
        line = f"[{'=' * filled:<{_BAR}}] {self._ended}/{self._total}  {left}   {title}"
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{line[:width].rstrip()}")
        self._stream.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, `1:05`; with hours from 60 minutes on, `1:00:00`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def progress_for(stream: TextIO | None = None) -> Progress:
    """A bar if the stream (stderr) is a terminal, else nothing."""
    stream = sys.stderr if stream is None else stream
    return Bar(stream) if stream.isatty() else Quiet()
