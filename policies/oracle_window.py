"""oracle_window: the bound of a placement that knows the next ten seconds."""

from functools import partial

import numpy as np

from klrubench.mm import set_residents
from klrubench.policy import Policy, Steps, System, param


class OracleWindow(Policy):
    """At the start of each window of about 10 s, the pages that will be touched most in it move to the top tier."""

    source = "bound; moves free, or charged like kernel migration"
    chain = "the future -> touches of the next window -> moves at its start"
    role = "bound"
    place = "truth"
    needs_truth = True

    moves: str = param(
        "free", choices=("free", "charged"), help="whether the moves cost time and bandwidth", tune=False
    )

    def start(self, system: System) -> None:
        self.counts, starts = system.future()
        self.window = 0
        self.mover = system.daemon("oracle", self.move, parked=True)
        for index, first in enumerate(starts):
            system.at_touch(first, partial(self.enter, system, index))

    def enter(self, system: System, index: int) -> None:
        self.window = index
        if self.moves == "free":
            set_residents(system, self.best(system), charged=False)
        else:
            system.wake(self.mover)

    def best(self, system: System) -> np.ndarray:
        return system.hottest(self.counts[self.window])

    def move(self, system: System) -> Steps:
        while True:
            set_residents(system, self.best(system), charged=True)
            yield system.parked
