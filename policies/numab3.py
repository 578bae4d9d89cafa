"""numab3: kernel.numa_balancing=3, normal and memory tiering."""

from klrubench.policy import param

from .numa_balancing import NumaBalancing


class Numab3(NumaBalancing):
    """NUMA balancing, normal and memory tiering at once ("NUMAB3"): top-tier pages are marked too."""

    mode: int = param(3, choices=(3,), help="as the name says", origin="kernel.numa_balancing")
