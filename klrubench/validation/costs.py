"""The cost rows: guest instructions, read off what a run charges.
klrubench's cost table takes these numbers as they are.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from klrubench.mm.mglru.aging import run_aging
from klrubench.mm.mglru.walk import N_WALK
from klrubench.mm.migrate import move_many
from klrubench.mm.state import KSWAPD_WAKE, PGAGING_PTE, PGAGING_YOUNG, PGCARRIED
from klrubench.validation.emulated import (
    NS_PER_INSTRUCTION,
    PERIOD_S,
    TABLE,
    Meter,
    Plan,
    Script,
    before_pass,
    emulated,
    instructions,
    instructions_of,
    start,
    touch,
    turns,
    untouch,
)
from klrubench.validation.facts import facts
from klrubench.validation.finding import Finding, Part, check, finding, near, same

GROUP = "costs"
SLOW, TABLES, YOUNG = 1, 32, 192
AGING = [PGAGING_PTE, PGAGING_YOUNG, PGCARRIED]


def counted(name: str) -> float:
    """The number that a row begins with."""
    return facts()[name].number


# --- the aging walk, by the CPU time of a kswapd that has to make a generation ----------------------------------------


def first_aging(young: int, pages: int, kernel: str) -> tuple[float, int]:
    """(instructions that the first aging pass of a full fast node takes kswapd, PTEs that it visits).

    The pass is forced, as each first one is, so it visits every PTE. Folios examined and demoted in the same round are
    taken off.
    """
    program = Script(pages, [], placement="first_touch")
    system = start(workload=program, machine=emulated(fast_pages=pages // 2, kernel=kernel), duration_s=0.5)
    untouch(system)
    on_fast = np.flatnonzero((system.mm.pte & 3) == 0)
    touch(system, on_fast[-young:] if young else on_fast[:0])
    system.mm.node[0, KSWAPD_WAKE] = 1
    for spent_ps, events in turns(system, "kswapd"):
        if abs(spent_ps - instructions_of(system, events) * NS_PER_INSTRUCTION * 1000) > 1:
            raise RuntimeError("kswapd's CPU time is not what it was charged")
        if events["aging_pte"]:
            return instructions_of(system, events, "aging_pte", "aging_young", "carry_page"), pages
    raise RuntimeError("kswapd made no generation")


def old_pte(kernel: str, fact: str) -> Finding:
    """What a second half of untouched PTEs adds to the pass, each."""
    (idle, visited), (larger, more) = first_aging(0, 64 * TABLE, kernel), first_aging(0, 128 * TABLE, kernel)
    each = (larger - idle) / (more - visited)
    return finding(f"{each:.0f}", near("instructions", counted(fact), each, share=0.01))


def young_extra(kernel: str, fact: str) -> Finding:
    """What 6000 accessed PTEs add to the pass, each."""
    young = 6000
    each = (first_aging(young, 64 * TABLE, kernel)[0] - first_aging(0, 64 * TABLE, kernel)[0]) / young
    return finding(f"{each:.0f}", near("instructions", counted(fact), each, share=0.01))


@check("walk_old_pte", GROUP, is_input=True)
def walk_old_pte() -> Finding:
    """6.18."""
    return old_pte("6.18", "walk_old_pte")


@check("walk_young_extra", GROUP, is_input=True)
def walk_young_extra() -> Finding:
    """6.18."""
    return young_extra("6.18", "walk_young_extra")


@check("walk_old_pte_612", GROUP, is_input=True)
def walk_old_pte_612() -> Finding:
    """6.12."""
    return old_pte("6.12", "walk_old_pte_612")


@check("walk_young_extra_612", GROUP, is_input=True)
def walk_young_extra_612() -> Finding:
    """6.12."""
    return young_extra("6.12", "walk_young_extra_612")


@check("carry_page", GROUP, is_input=True)
def carry_page() -> Finding:
    """Pages of the oldest of four generations moved to the next when max_seq advances, and what each costs."""
    parts: list[Part] = []
    for kernel, carried in (("6.12", 8 * TABLE), ("6.18", 2 * 8 * TABLE)):
        system = start(workload=Script(8 * TABLE, []), machine=emulated(kernel=kernel), duration_s=1)
        before = system.mm.stat[AGING]
        for _ in range(4):
            run_aging(system.mm, SLOW, 0, SLOW, True, np.zeros(N_WALK, np.int64))
        pte, young, moved = (system.mm.stat[AGING] - before).tolist()
        parts.append(same(f"{kernel}: PTEs visited", 4 * 8 * TABLE, pte + young))
        parts.append(same(f"{kernel}: pages carried", carried, moved))
    each = instructions(system.machine, "carry_page")
    return finding(f"{each:.0f}", same("instructions", counted("carry_page"), each), more=parts)


@check("minor_fault", GROUP, is_input=True)
def minor_fault() -> Finding:
    """The cost table's number."""
    each = instructions(emulated(kernel="6.18"), "minor_fault")
    return finding(f"{each:.0f}", same("instructions", counted("minor_fault"), each))


# --- klruscand's pass -------------------------------------------------------------------------------------------------


def pass_costs(plan: Plan, on_fast: int = 0) -> list[Counter[str]]:
    """What klruscand is charged in each pass of a program that follows a plan; `on_fast` pages are moved up before."""
    system = start(
        "klruscand", Script((TABLES + 2) * TABLE, plan), duration_s=7.5 * PERIOD_S, policy_values={"threshold": 7}
    )
    untouch(system)
    move_many(system.mm, np.arange(on_fast), 0, 1, False)
    meter = Meter(system)
    system.run()
    begins = [k for k, charge in enumerate(meter.log) if charge["pass_fixed"]]
    return [sum(meter.log[a:b], Counter()) for a, b in zip(begins, [*begins[1:], None], strict=True)]


def walked(charge: Counter[str]) -> float:
    """Instructions of the walk alone."""
    machine = emulated()
    names = ("walk_pte", "walk_fast_pte", "walk_young", "walk_pmd")
    return sum(charge[name] * instructions(machine, name) for name in names)


def pass_plan() -> Plan:
    """One page a table touched before pass 4, 192 a table before pass 5."""
    one_each, many = ((np.arange(TABLES)[:, None] * TABLE + np.arange(n)).ravel() for n in (1, YOUNG))
    return before_pass([4], one_each) + before_pass([5], many)


@check("klru_walk_unseen", GROUP, is_input=True)
def klru_walk_unseen() -> Finding:
    """A pass over 32 more tables."""
    passes = pass_costs(pass_plan())
    each = (walked(passes[4]) - walked(passes[3])) / (TABLES * TABLE)
    return finding(f"{each:.1f}", near("instructions", counted("klru_walk_unseen"), each, share=0.03))


def accessed(passes: list[Counter[str]]) -> float:
    """A PTE that is accessed, by what 191 more of them a table add to a pass."""
    extra = (walked(passes[5]) - walked(passes[4])) / (TABLES * (YOUNG - 1))
    return extra + counted("klru_walk_unseen")


@check("klru_walk_young", GROUP, is_input=True)
def klru_walk_young() -> Finding:
    """A PTE that is reported."""
    each = accessed(pass_costs(pass_plan()))
    return finding(f"{each:.0f}", near("instructions", counted("klru_walk_young"), each, share=0.01))


@check("klru_walk_fast", GROUP, is_input=True)
def klru_walk_fast() -> Finding:
    """An accessed PTE whose page is on the fast node; of the others only the page touched in between is reported."""
    passes = pass_costs(pass_plan(), on_fast=TABLES * TABLE)
    each = accessed(passes)
    return finding(
        f"{each:.0f}",
        near("instructions", counted("klru_walk_fast"), each, share=0.01),
        same("PTEs reported", [1, 1, 1], [charge["walk_young"] for charge in passes[3:6]]),
    )
