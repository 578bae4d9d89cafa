"""Replay of a recorded program: its pattern of pages, stretched to the suite's footprint and duration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from klrubench.errors import UnknownNameError
from klrubench.trace import replay
from klrubench.trace.format import load_once
from klrubench.workload import Layout, Stream, Workload, param

if TYPE_CHECKING:
    import numpy as np

    from klrubench.trace.format import Trace as Recording

BUNDLED = Path(__file__).resolve().parent / "traces"


class Trace(Workload):
    """A real program's pages, recorded with valgrind and rescaled (klrubench trace info FILE shows the card)."""

    source = "workloads/traces/sqlite3.sql under valgrind lackey; klrubench trace record makes others"
    seeds_change: ClassVar[str] = "placement and daemon phases, not the recorded stream's epochs"

    file: str = param("sqlite3", help="trace: a name in workloads/traces, or the path of a .parquet")
    loops: int = param(1, low=1, high=10_000, log=True, help="times the recording is played in the run")
    cached_touches: int = param(1, low=0, high=64, help="most cache-served touches played a page and epoch")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        # the recording's own; timing asks for them
        self.cached_share, self.read_share = replay.shares(self.recording(), self.cached_touches)

    def path(self) -> Path:
        """The trace's file: what looks like a path is one, another name is that of a trace that comes along."""
        if self.file.endswith(".parquet") or "/" in self.file:
            return Path(self.file)
        known = [path.stem for path in BUNDLED.glob("*.parquet")]
        if self.file not in known:
            raise UnknownNameError("trace", self.file, known, "or give the path of a .parquet file")
        return BUNDLED / f"{self.file}.parquet"

    def recording(self) -> Recording:
        return load_once(self.path())

    def stream(self, layout: Layout) -> Stream:
        return replay.Replay(self.recording(), layout, self.loops, self.cached_touches)

    def init_order(self, layout: Layout) -> np.ndarray:
        return replay.init_order(self.recording(), layout)

    def content(self) -> str:
        return self.recording().digest()

    def notes(self, layout: Layout) -> list[str]:
        return [replay.stretch_note(self.path().stem, self.recording(), layout, self.loops, self.cached_touches)]
