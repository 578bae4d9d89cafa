"""Figures and tables from stored results: this room reads them and does not know how to run.

A figure is one small file, found by name like a policy: those of the reference study in `klrubench/figures/reference`,
and those in the `figures/` folder of the study one stands in. It defines, at module level:

    CAPTION = "What is drawn, in a sentence or two."         what was run is added from the runs themselves
    RUNS = [asked(policy=[...], workload=[...])]             the runs it needs, as questions
    EXPECT = [expect("Statement.", check), ...]              `check(data)`: bool, or (bool, what was found instead)

    def data(frame): ...                                     runs (see `klrubench.figures.frames`) -> the frame drawn
    def draw(axes, data): ...                                the frame -> marks on matplotlib axes, and nothing else

and if it needs to: `SERIES = ("t_s", "hits_top")` (time series as list columns), `PANELS = 2` (`axes` is then a
list), `WIDTH = "page"` (default "column"), `HEIGHT = 0.7` (of the width), `TABLE(data)` (a short frame for the LaTeX
table; default: the data), `LACKS = "..."` (what has to be made before RUNS can be told; empty where it is there: the
figure is left out with that line, and the others are drawn). CAPTION, RUNS and LACKS may be functions without
arguments.
"""

from __future__ import annotations

from klrubench.figures.finding import Expectation, asked, expect
from klrubench.figures.frames import mean_by, slowdowns, values_of
from klrubench.figures.marks import annotated_map, bars, lines, policy_name, word_for

__all__ = [
    "Expectation",
    "annotated_map",
    "asked",
    "bars",
    "expect",
    "lines",
    "mean_by",
    "policy_name",
    "slowdowns",
    "values_of",
    "word_for",
]
