"""Three unlike programs on one machine, each in a memory cgroup of its own."""

from __future__ import annotations

from typing import Any

from klrubench.errors import ParameterError
from klrubench.workload import Workload, param

from .gups import Gups
from .kv import Kv
from .zipf import Zipf

OWN = ("compute_ns", "mlp", "touches", "read_share")


class _Idle(Zipf):
    """The tenant that sleeps most of the time."""


class Mixed(Workload):
    """`kv`: a key-value store that is always busy, on 3/8 of the memory, at `rate`.

    `gups`: random updates on 2/8, at five times that rate: within 2 s nearly every page of it is young. `idle`: Zipf
    over 3/8 at `rate` while awake, 10 s of each minute. Each has a third of the threads, its own pages, stream and
    memcg; they start together and share nodes, bandwidth and kernel threads. No single scan interval suits all three.
    """

    source = "ours; 'oversubscribed, multi-tenant ... temporal variation' was asked for (call notes, 15 Jan 2026)"

    threads: int = param(6, low=3, high=1024, help="busy threads, one a CPU; a third for each tenant")
    pace: float = param(5.0, low=0.01, high=100, log=True, help="rate of gups over that of the others")
    busy_s: float = param(10.0, low=0.01, high=3600, help="seconds of work of the idle tenant before it sleeps")
    idle_s: float = param(50.0, low=0, high=3600, help="seconds asleep of the idle tenant")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        for name in OWN:
            if self.values[name] != self.parameters[name].default:
                raise ParameterError(f"mixed.{name}: each tenant keeps its own; set it on kv, gups or zipf alone")

    def tenants(self) -> list[Workload]:
        """kv, gups and idle."""
        common = {name: self.values[name] for name in ("placement", "page", "open_loop")}
        common["threads"] = self.threads // 3
        wide, narrow = 0.375 * self.footprint_gib, 0.25 * self.footprint_gib
        return [
            Kv(footprint_gib=wide, rate=self.rate, **common),
            Gups(footprint_gib=narrow, rate=self.rate * self.pace, **common),
            _Idle(footprint_gib=wide, rate=self.rate, busy_s=self.busy_s, idle_s=self.idle_s, **common),
        ]
