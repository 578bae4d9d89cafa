"""DAMON on physical addresses: regions, access checks, interval tuning, and DAMOS schemes that migrate.

Source: mm/damon/{core,paddr,ops-common}.c of Linux 6.12-6.18; samples/damon/mtier.c for the way policies combine it.
Not modelled: virtual addresses, other operations of DAMOS, several targets a context,
rmap walks that fail to lock the folio; the later rule that a region's age starts again when its count goes from or to
zero, however small the change (20250916032339.115817-2-sj@kernel.org).
"""

from __future__ import annotations

from klrubench.mm.damon.damos import Scheme
from klrubench.mm.damon.kdamond import Kdamond
from klrubench.mm.damon.tuning import Intervals

__all__ = ["Intervals", "Kdamond", "Scheme"]
