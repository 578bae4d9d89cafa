"""A key-value store under YCSB: Zipf over keys, whose records lie scattered, several to a page."""

from __future__ import annotations

from typing import Any

from klrubench.generate import RecordStream
from klrubench.workload import Layout, Stream, Workload, param

READ_SHARE = {"a": 0.5, "b": 0.95, "c": 1.0, "d": 0.95}


class Kv(Workload):
    """YCSB core workloads A (half updates), B (5 % updates), C (reads only) and D (reads of the latest, 5 % inserts).

    Keys are drawn by Zipf's law and hashed, so that a 4 KiB page holds hot and cold records side by side: of 1 M
    records of 1 KiB the hottest 10 % take 83 % of the touches, but the hottest 10 % of the pages 75 %. In D popularity
    goes by age: inserts write the newest record, in the place of the oldest, and the hot records drift through memory.
    """

    scattered = True
    source = "YCSB core workloads A-D (Cooper et al., SoCC 2010); 1 KB records, exponent 0.99"
    calibration = "Redis under YCSB-C, all on CXL: +19 % (SK hynix, DAMON tiering series, lore 20240614030010.751-1)"

    mix: str = param("b", choices=("a", "b", "c", "d"), help="YCSB core workload; sets read_share unless that is given")
    s: float = param(0.99, low=0, high=4, help="exponent of the law over keys", origin="YCSB's ZIPFIAN_CONSTANT")
    record_bytes: int = param(1024, low=64, high=4096, log=True, help="size of a record", origin="YCSB")
    idle: float = param(0.0, low=0, high=99, help="pages that are never touched, at random places", unit="%")
    compute_ns: float = param(
        300.0, low=0, high=1e6, log=True, help="compute a cache miss (used when rate=0)", origin="calibration, MLP 2"
    )

    def __init__(self, **values: Any) -> None:
        values.setdefault("read_share", READ_SHARE.get(str(values.get("mix", "b")), READ_SHARE["b"]))
        super().__init__(**values)

    def stream(self, layout: Layout) -> Stream:
        """Draw a key's rank over the full-size records, fold it, scatter it over the records, and take its page."""
        inserts = (1 - self.read_share) / self.touches if self.mix == "d" else 0.0
        return RecordStream(layout, self.s, self.record_bytes, self.idle, self.read_share, inserts)
