"""What a policy is: a choice of source, hotness rule and migrator, in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from klrubench.params import Parameterised, param

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klrubench.simulate import System as System

    Steps: TypeAlias = Iterator[Any]  # a thread: it yields how it sleeps, or nothing to go on when its work is paid for
else:  # names for annotations: what they stand for needs numba, which a list of policies does not load
    System = Steps = Any

__all__ = ["Policy", "Steps", "System", "param"]


class Policy(Parameterised):
    """Base class of policies. A subclass declares parameters and sets up its mechanisms in `start`.

    Class attributes:
        source: paper, patch message-id or kernel function the policy comes from.
        status: what became of it (merged, dropped, never posted).
        chain: source -> hotness rule -> migrator, in one line.
        sees, blind: what the source can and cannot see (for `describe`).
        not_modelled: what of the real thing is left out.
        sysctls: settings the policy runs under, e.g. `{"kernel.numa_balancing": 2}` (an instance may set it).
        place: `None` (the workload's placement), `"top"` or `"lower"` for the bounds, `"truth"` for the static oracle.
        needs_truth: the policy asks for the future (oracles).
        role: `"policy"`, `"bound"` or `"control"`.
    """

    kind: ClassVar[str] = "policy"
    source: ClassVar[str] = ""
    status: ClassVar[str] = ""
    chain: ClassVar[str] = ""
    sees: ClassVar[str] = ""
    blind: ClassVar[str] = ""
    not_modelled: ClassVar[str] = ""
    sysctls: Mapping[str, int] = {}
    place: ClassVar[str | None] = None
    needs_truth: ClassVar[bool] = False
    role: ClassVar[str] = "policy"

    def start(self, system: System) -> None:
        """Add mechanisms and daemons to `system`. The default does nothing (no migration)."""

    def finished(self, system: System) -> None:
        """Re-check the policy's own invariants at the end of a run; raise ConservationError if broken."""
