"""numab2: kernel.numa_balancing=2, memory tiering."""

from klrubench.policy import param

from .numa_balancing import NumaBalancing


class Numab2(NumaBalancing):
    """NUMA balancing in memory tiering mode ("NUMAB2"): numa_balancing under another name."""

    mode: int = param(2, choices=(2,), help="as the name says", origin="kernel.numa_balancing")
