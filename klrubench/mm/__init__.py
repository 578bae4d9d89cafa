"""The kernel's mechanisms, each under its Linux name. A policy combines them: a source, a hotness rule, a migrator."""

from __future__ import annotations

from klrubench.mm import mglru, page_idle
from klrubench.mm.kpromoted import Kpromoted
from klrubench.mm.migrate import promote_pages, set_residents
from klrubench.mm.numa_balancing import NumaBalancing
from klrubench.mm.pghot import Pghot
from klrubench.mm.pghot_versions import PGHOT_DEFAULTS, PGHOT_VERSIONS, pghot_engine
from klrubench.mm.vmscan import Kswapd

__all__ = [
    "PGHOT_DEFAULTS", "PGHOT_VERSIONS", "Kpromoted", "Kswapd", "NumaBalancing", "Pghot", "mglru", "page_idle", "pghot_engine", "promote_pages",
    "set_residents",
]  # fmt: skip
