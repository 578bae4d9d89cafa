"""What a figure is, and finding its file: in the study one stands in, then among those that come along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from klrubench.errors import UnknownNameError, UsageError
from klrubench.study.closure import import_closure
from klrubench.study.folder import PACKAGE, find_study, shown
from klrubench.study.loader import PluginSource, load_module
from klrubench.study.suite import Question

if TYPE_CHECKING:
    import polars as pl

REFERENCE = PACKAGE / "figures" / "reference"
WIDTHS = ("column", "page")
NEEDED = ("CAPTION", "RUNS", "EXPECT", "data", "draw")
LATE = ("CAPTION", "RUNS", "LACKS")
"""What may be a function, called when the figure is loaded: what follows from the study one stands in."""

_QUICK_SCALE, _QUICK_SEEDS = 128, 3


class Expectation(NamedTuple):
    """What a figure should show if the model is right: a sentence, and the check of it on the data."""

    statement: str
    check: Callable[[pl.DataFrame], bool | tuple[bool, str]]

    def found(self, data: pl.DataFrame) -> tuple[bool, str]:
        """Whether it came out, and what was found instead (may be empty).

        A point that the data lacks (a run failed) counts as not come out.
        """
        try:
            answer = self.check(data)
        except Exception as error:  # a figure's own file may raise anything
            return False, f"cannot be told: {' '.join(str(error).split()) or type(error).__name__}"
        good, words = answer if isinstance(answer, tuple) else (answer, "")
        return bool(good), words


def expect(statement: str, check: Callable[[Any], bool | tuple[bool, str]]) -> Expectation:
    """An expectation of a figure file."""
    return Expectation(statement, check)


def asked(
    policy: Sequence[str],
    workload: Sequence[str],
    *,
    ratio: Sequence[str] = ("1:2",),
    seeds: int = 5,
    duration: float = 120.0,
    scale: str = "1/64",
    **more: Any,
) -> Question:
    """Runs that a figure needs: policies x workloads x machines x ratios x rates, on paired seeds.

    The bounds are not added: name `all_top` where slowdowns are drawn. `more` are the other names of `Question`.
    """
    return Question(
        policy=tuple(policy),
        workload=tuple(workload),
        ratio=tuple(ratio),
        seeds=seeds,
        duration=duration,
        scale=scale,
        **more,
    )


@dataclass(frozen=True)
class Figure:
    """One figure of a study, as its file says (see `klrubench.figures`).

    Attributes:
        lacks: what has to be there before its runs can be told, in one line; empty: nothing.
        quick: coarser scale and fewer seeds than the file asks for; the caption says so.
    """

    name: str
    path: Path
    caption: str
    runs: tuple[Question, ...]
    expectations: tuple[Expectation, ...]
    data: Callable[[pl.DataFrame], pl.DataFrame]
    draw: Callable[[Any, pl.DataFrame], None]
    table: Callable[[pl.DataFrame], pl.DataFrame]
    series: tuple[str, ...] = ()
    panels: int = 1
    width: str = "column"
    height: float = 0.72
    lacks: str = ""
    quick: bool = False

    def questions(self) -> list[Question]:
        """What has to be stored before it can be drawn."""
        return [_quickly(each) for each in self.runs] if self.quick else list(self.runs)


def _quickly(question: Question) -> Question:
    return question.model_copy(
        update={"seeds": min(question.seeds, _QUICK_SEEDS), "scale": _coarser(question.scale, _QUICK_SCALE)}
    )


def _coarser(scale: str, fold: int) -> str:
    above, _, below = scale.partition("/")
    given = int(below) if above == "1" and below.isdigit() else 1
    return f"1/{max(given, fold)}"


def figure_files(start: Path | None = None) -> dict[str, Path]:
    """Every figure's file by name: the study's own go before those of the same name that come along."""
    study = find_study(start)
    folders = [REFERENCE, *([study / "figures"] if study is not None else [])]
    files = {file.stem: file for folder in folders for file in folder.glob("*.py") if not file.name.startswith("_")}
    return dict(sorted(files.items()))


def load_figure(name: str, quick: bool = False, start: Path | None = None) -> Figure:
    """The figure of that name.

    Raises:
        UnknownNameError: there is none; suggests the nearest.
        UsageError: its file is broken or lacks something, in one line.
    """
    files = figure_files(start)
    if name not in files:
        raise UnknownNameError("figure", name, files, "klrubench figures --list")
    file = files[name]
    closure, framework = import_closure(file, file.parent)
    module = load_module(PluginSource("figure", name, str(file.parent), closure, framework))
    return _figure(name, file, vars(module), quick)


def _figure(name: str, file: Path, told: dict[str, Any], quick: bool) -> Figure:
    asked_now = {word: told[word]() for word in LATE if callable(told.get(word))}
    told = {**told, **asked_now}
    lacks = " ".join(str(told.get("LACKS", "")).split())
    for word in NEEDED:
        if not told.get(word) and not (lacks and word == "RUNS"):
            raise UsageError(f"{shown(file)}: a figure needs {word} (see klrubench.figures)")
    if not all(isinstance(each, Question) for each in told["RUNS"]):
        raise UsageError(f"{shown(file)}: RUNS is a list of asked(policy=[...], workload=[...])")
    if told.get("WIDTH", "column") not in WIDTHS:
        raise UsageError(f"{shown(file)}: WIDTH={told['WIDTH']!r}: write 'column' or 'page'")
    return Figure(
        name,
        file,
        " ".join(str(told["CAPTION"]).split()),
        tuple(told["RUNS"]),
        tuple(Expectation(*each) for each in told["EXPECT"]),
        told["data"],
        told["draw"],
        told.get("TABLE", lambda data: data),
        tuple(told.get("SERIES", ())),
        int(told.get("PANELS", 1)),
        told.get("WIDTH", "column"),
        float(told.get("HEIGHT", 0.72)),
        lacks,
        quick,
    )
