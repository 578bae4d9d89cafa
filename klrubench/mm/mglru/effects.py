"""The side effects of the walk with a callback as it was posted, each of which can be repaired alone.

Found by reading RFC v2 and measured on a kernel built from it (klrubench/validation/observed). As posted a pass has
all of them; a walk object holds a bit for each one that is repaired.
"""

from __future__ import annotations

from klrubench.errors import UnknownNameError

AGING, BLOOM, STICKY_FORCE, PMD, STEAL, RESUME, EDGE, UNFILTERED = (1 << k for k in range(8))

EFFECTS: dict[str, tuple[int, str, str]] = {
    "aging": (
        AGING,
        "every pass counts as one of the lruvec's own, so that after the first one reclaim can never age it again",
        "passes have a cursor, a marker and a sequence number of their own",
    ),
    "bloom": (
        BLOOM,
        "max_seq stands, so the Bloom filter that is read is never written: no pruning at all, or frozen if aging "
        "came first",
        "two filters of its own, that change places with each pass (`filter=none`: none is asked)",
    ),
    "force": (
        STICKY_FORCE,
        "a newborn address space makes the rest of the node's pass unpruned, memcgs behind it included",
        "only the newborn itself is walked by force",
    ),
    "pmd": (
        PMD,
        "tables with accessed pages of other nodes, and tables not visited, lose their PMD's accessed bit: their own "
        "node's aging misses them",
        "a PMD is cleared only if its table was visited and no page of another node is left accessed",
    ),
    "steal": (
        STEAL,
        "the accessed bit is gone for others: idle page tracking and DAMON do not see the touch",
        "PG_young is set and PG_idle cleared for each page reported",
    ),
    "resume": (
        RESUME,
        "after a full batch the walk goes back to the first pending PMD, up to 64 tables: pages touched meanwhile are "
        "reported twice",
        "it goes on at the next PTE",
    ),
    "edge": (
        EDGE,
        "a batch that fills at the end of a table with no PMD pending loses the rest of the address space for the pass",
        "it goes on at the next table",
    ),
}  # fmt: skip
"""By name: bit of the repair, what the posted walk does, what it does without."""

VARIANTS = {"as_posted": tuple(EFFECTS), "clean": ()}

EXPLAINS: dict[str, dict[str, str]] = {
    "variant": {name: "+".join(effects) or "none of the effects" for name, effects in VARIANTS.items()},
    "effects": {name: posted for name, (_, posted, _) in EFFECTS.items()},
}
"""What choices of a walk mean, for a policy's `explains`."""


def repairs(effects: str, filtered: bool = True) -> int:
    """The bits of all effects that are absent from a text: `as_posted`, `clean`, `all`, `none`, or names joined by `+`.

    Args:
        filtered: without the effect `bloom`, whether a pass has filters of its own or asks none.
    Raises:
        UnknownNameError: a name that is no effect.
    """
    words = {"all": VARIANTS["as_posted"], "none": (), **VARIANTS}.get(effects) or (
        () if effects in ("none", "clean") else effects.split("+")
    )
    for word in words:
        if word not in EFFECTS:
            raise UnknownNameError("effect of the walk", word, [*EFFECTS, "all", "none"])
    bits = sum(bit for name, (bit, *_) in EFFECTS.items() if name not in words)
    return bits | (UNFILTERED if bits & BLOOM and not filtered else 0)
