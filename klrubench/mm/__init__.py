"""The kernel's mechanisms, each under its Linux name. A policy combines them: a source, a hotness rule, a migrator."""

from __future__ import annotations

from klrubench.mm import damon, mglru, page_idle
from klrubench.mm.chmu import Chmu
from klrubench.mm.ibs import Ibs
from klrubench.mm.kpromoted import Kpromoted
from klrubench.mm.kscand import Kscand
from klrubench.mm.memcg import MemcgTimers
from klrubench.mm.migrate import promote_pages, set_residents
from klrubench.mm.numa_balancing import NumaBalancing
from klrubench.mm.pghot import Pghot
from klrubench.mm.pghot_hint_faults import PghotHintFaults
from klrubench.mm.pghot_versions import PGHOT_DEFAULTS, PGHOT_EXPLAINS, PGHOT_VERSIONS, pghot_engine
from klrubench.mm.two_rates import TwoRates
from klrubench.mm.vmscan import Kswapd

__all__ = [
    "PGHOT_DEFAULTS", "PGHOT_EXPLAINS", "PGHOT_VERSIONS", "Chmu", "Ibs", "Kpromoted", "Kscand", "Kswapd", "MemcgTimers",
    "NumaBalancing", "Pghot", "PghotHintFaults", "TwoRates", "damon", "mglru", "page_idle", "pghot_engine",
    "promote_pages", "set_residents",
]  # fmt: skip
