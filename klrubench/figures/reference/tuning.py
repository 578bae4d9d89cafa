"""Default against tuned, by policy: on the workloads that chose the parameters, and on held-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klrubench.figures import expect, word_for
from klrubench.figures.frames import overall_slowdown, slowdowns
from klrubench.figures.style import GREY, look
from klrubench.figures.winners import winners

if TYPE_CHECKING:
    import polars as pl

POLICIES = ("klruscand", "numa_balancing", "random_sampling")
EQUAL = 1.0
"""Points within which two slowdowns count as equal."""
MEAN = "mean"
GROUPS = ("tuned on", "held out")
PANELS, WIDTH, HEIGHT = len(POLICIES), "page", 0.36


def LACKS() -> str:
    """The sweeps whose winners are not there."""
    return winners(POLICIES)[1]


def RUNS() -> list[Any]:
    """Default, tuned and no migration, on seeds that chose nothing."""
    return [each for found in winners(POLICIES)[0] for each in found.questions(["all_top", "first_touch"])]


def CAPTION() -> str:
    """What is drawn, and which parameters won."""
    found = winners(POLICIES)[0]
    tried = ", ".join(dict.fromkeys(str(each.trials) for each in found))
    tuned = "; ".join(each.tuned if each.tuned != each.default else f"{each.default} as it is" for each in found)
    return f"""
        Slowdown against all memory in DRAM, kernel threads' CPU time charged, with default parameters (hollow) and
        with those that won a sweep of {tried} trials a policy (filled), on the workloads that the sweep tuned on and,
        below the line, on workloads that it never saw; seeds are others than those that chose. Means are over the
        workloads above them. Bars: 95 % intervals. Light dots: kernel threads on spare cores. Ticks: no migration.
        Tuned: {tuned}.
    """


def data(frame: pl.DataFrame) -> pl.DataFrame:
    """Slowdown, charged and spare, by policy, workload (and their mean), and setting."""
    import polars as pl

    cells = {(one["policy"], one["workload"]): one for one in slowdowns(frame).iter_rows(named=True)}
    rows = []
    for each in winners(POLICIES)[0]:
        settings = {"default": each.default, "tuned": each.tuned, "no migration": "first_touch"}
        for group, workloads in zip(GROUPS, (each.tuned_on, each.held_out), strict=True):
            for setting, label in settings.items():
                about = {"policy": each.policy, "group": group, "setting": setting, "label": label}
                means = overall_slowdown(frame, label, workloads, ("charged", "spare"))
                rows.append({**about, "workload": MEAN, **means})
                rows += [{**about, "workload": name, **_numbers(cells[label, name])} for name in workloads]
    return pl.DataFrame(rows)


def _numbers(cell: dict[str, Any]) -> dict[str, Any]:
    names = {"charged_pct": "charged_pct", "charged_half_pct": "charged_half_pct"}
    names |= {"spare_pct": "slowdown_pct", "spare_half_pct": "half_pct", "seeds": "seeds"}
    return {name: cell[column] for name, column in names.items()}


def draw(axes: Any, data: pl.DataFrame) -> None:
    """A panel a policy, a line a workload from default to tuned."""
    for panel, policy in zip(axes, POLICIES, strict=True):
        part = data.filter(data["policy"] == policy)
        lines = list(dict.fromkeys(part.select("group", "workload").iter_rows()))
        lines.sort(key=lambda line: (GROUPS.index(line[0]), line[1] == MEAN))
        for place, (group, workload) in enumerate(lines):
            here = part.filter((part["group"] == group) & (part["workload"] == workload))
            _line(panel, policy, -place, {one["setting"]: one for one in here.iter_rows(named=True)})
        panel.axhline(0.5 - sum(group == GROUPS[0] for group, _ in lines), color=GREY, linewidth=0.8)
        names = [f"{group}: mean" if name == MEAN else name for group, name in lines]
        panel.set_yticks([-place for place in range(len(lines))], names if panel is axes[0] else [""] * len(lines))
        panel.set_title(word_for(policy))
        panel.set_xlabel("slowdown, charged, %")
        panel.grid(False, axis="y")


def _line(panel: Any, policy: str, y: int, at: dict[str, dict[str, Any]]) -> None:
    how, (old, new) = look(policy), (at["default"], at["tuned"])
    panel.plot([old["charged_pct"], new["charged_pct"]], [y, y], color=how.colour, linewidth=1)
    panel.plot(at["no migration"]["charged_pct"], y, "|", color="black", markersize=8, label="no migration")
    for one, fill, up, label in ((old, "white", 0.12, "default"), (new, how.colour, -0.12, "tuned")):
        panel.plot(one["spare_pct"], y + up, ".", color=how.colour, alpha=0.45, markersize=4, label="spare cores")
        panel.errorbar(one["charged_pct"], y, xerr=one["charged_half_pct"] or 0, fmt=how.marker, color=how.colour,
                       markerfacecolor=fill, elinewidth=0.8, capsize=1.5, label=label, zorder=4)  # fmt: skip


def _means(data: Any, group: str) -> dict[str, tuple[float, float]]:
    """By policy: default and tuned."""
    part = data.filter((data["group"] == group) & (data["workload"] == MEAN))
    by = {(one["policy"], one["setting"]): one["charged_pct"] for one in part.iter_rows(named=True)}
    return {policy: (by[policy, "default"], by[policy, "tuned"]) for policy in POLICIES}


def _not_worse(data: Any) -> tuple[bool, str]:
    means = _means(data, GROUPS[0])
    told = ", ".join(f"{policy} {old:.1f} % to {new:.1f} %" for policy, (old, new) in means.items())
    return all(new <= old + EQUAL for old, new in means.values()), told


def _less_gained(data: Any) -> tuple[bool, str]:
    own, other = ({name: old - new for name, (old, new) in _means(data, group).items()} for group in GROUPS)
    told = ", ".join(f"{name} {own[name]:.1f} and {other[name]:.1f} points" for name in POLICIES)
    return all(other[name] <= own[name] + EQUAL for name in POLICIES), told


EXPECT = [
    expect("On the workloads it was tuned on no policy is worse tuned than at its defaults, by a point of the mean.",
           _not_worse),
    expect("No policy gains a point more on held-out workloads than on those it was tuned on.", _less_gained),
]  # fmt: skip
