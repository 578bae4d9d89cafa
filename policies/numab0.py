"""numab0: kernel.numa_balancing=0, off."""

from klrubench.policy import param

from .numa_balancing import NumaBalancing


class Numab0(NumaBalancing):
    """NUMA balancing off ("NUMAB0"): nothing is marked, no page moves up."""

    mode: int = param(0, choices=(0,), help="as the name says", origin="kernel.numa_balancing")
