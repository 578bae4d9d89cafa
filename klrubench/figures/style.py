"""How all figures look: widths and type sizes of venues, colours, markers, dashes and hatches by policy.

Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any colour vision; in grey the
markers, dashes and hatches tell them apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from klrubench.errors import UnknownNameError


class Venue(NamedTuple):
    """A place of publication: widths of a column and of the page in inches, type size in points."""

    column: float
    page: float
    points: float


VENUES = {
    "usenix": Venue(3.33, 7.0, 8.0),  # two columns of 3.33 in, body type 10 pt
    "acm": Venue(3.33, 7.0, 7.5),  # acmart sigconf: body type 9 pt
    "ieee": Venue(3.5, 7.16, 8.0),  # IEEE transactions: labels of 8 to 10 pt
}

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PINK = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#808080"


class Look(NamedTuple):
    """How one policy or part is drawn wherever it appears."""

    colour: str
    marker: str
    dashes: Any
    hatch: str


LOOKS = {
    "klruscand": Look(BLUE, "o", "-", ""),
    "numa_balancing": Look(RED, "s", (0, (5, 1.5)), "////"),
    "random_sampling": Look(GREEN, "^", (0, (3, 1, 1, 1)), "...."),
    "random_promotion": Look(PINK, "v", (0, (1, 1)), "\\\\\\\\"),
    "klruscand:hash=sized": Look(SKY, "D", (0, (4, 1, 1, 1, 1, 1)), "xxxx"),
    "kmmscand": Look(ORANGE, "h", (0, (2, 1)), "||"),
    "damon": Look(ORANGE, "P", (0, (6, 2)), "||||"),
    "first_touch": Look(BLACK, "x", (0, (1, 1.5)), "oo"),
    "oracle_static": Look(BLACK, "*", (0, (8, 2)), "++"),
    "oracle_window": Look(GREY, "d", (0, (2, 2)), "**"),
    "all_lower": Look(GREY, "+", (0, (1, 3)), "--"),
    "all_top": Look(GREY, "1", "-", ""),
}
OTHERS = (
    Look(BLUE, "o", "-", ""),
    Look(RED, "s", (0, (5, 1.5)), "////"),
    Look(GREEN, "^", (0, (3, 1, 1, 1)), "...."),
    Look(ORANGE, "D", (0, (1, 1)), "\\\\\\\\"),
    Look(SKY, "v", (0, (6, 2)), "xxxx"),
    Look(BLACK, "P", (0, (2, 2)), "||||"),
    Look(PINK, "*", (0, (4, 1, 1, 1)), "++"),
)


def look(name: str, place: int = 0) -> Look:
    """The look of a policy by its label; of anything else by its place among the others."""
    return LOOKS.get(name, OTHERS[place % len(OTHERS)])


def venue(name: str) -> Venue:
    """The venue of that name; raises UnknownNameError."""
    if name not in VENUES:
        raise UnknownNameError("venue", name, VENUES)
    return VENUES[name]


def settings(place: Venue) -> dict[str, Any]:
    """matplotlib's settings: embedded TrueType fonts that come with it, hair lines, nothing that varies by machine."""
    small = place.points - 1
    return {
        "font.family": "DejaVu Sans",
        "font.size": place.points,
        "axes.titlesize": place.points,
        "axes.labelsize": place.points,
        "legend.fontsize": small,
        "xtick.labelsize": small,
        "ytick.labelsize": small,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "hatch.linewidth": 0.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.4,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "legend.columnspacing": 1.2,
        "figure.constrained_layout.use": True,
        "pdf.fonttype": 42,
        "pdf.compression": 6,
        "svg.hashsalt": "klrubench",
        "text.usetex": False,
        "axes.unicode_minus": True,
    }
