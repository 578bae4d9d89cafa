"""From a figure and its runs to files: PDF and PNG, the numbers as CSV, a LaTeX table, the caption as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import KlrubenchError, UsageError
from klrubench.figures.captions import Verdict, caption, judged
from klrubench.figures.frames import runs_frame
from klrubench.figures.latex import booktabs
from klrubench.figures.style import Venue, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import polars as pl

    from klrubench.figures.finding import Figure

PNG_DPI = 200


@dataclass(frozen=True)
class Answer:
    """A figure's numbers and words, before anything is drawn."""

    figure: Figure
    data: pl.DataFrame
    verdicts: list[Verdict]
    caption: str


def answer(figure: Figure, records: Iterable[Mapping[str, Any]]) -> Answer:
    """What a figure says of some stored runs.

    Raises:
        KlrubenchError: the runs that there are do not make up its data.
    """
    if figure.lacks:
        raise KlrubenchError(f"figure {figure.name}: {figure.lacks}")
    runs = runs_frame(records, figure.series)
    if not runs.height:
        raise KlrubenchError(f"figure {figure.name}: none of its runs is stored")
    try:
        data = figure.data(runs)
    except Exception as error:  # a figure's own file may raise anything
        raise KlrubenchError(
            f"figure {figure.name}: data(): {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    verdicts = judged(figure, data)
    return Answer(figure, data, verdicts, caption(figure, runs, verdicts))


def need_matplotlib() -> None:
    """Raises UsageError in one line if it is not installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        raise UsageError("figures need matplotlib: pip install 'klrubench[figures]'") from None


def write(found: Answer, folder: Path, place: Venue) -> list[Path]:
    """Write NAME.pdf, .png, .csv, .tex and .txt; the same data gives the same bytes.

    Raises:
        UsageError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    need_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    name = found.figure.name
    paths = {ending: folder / f"{name}.{ending}" for ending in ("pdf", "png", "csv", "tex", "txt")}
    found.data.write_csv(paths["csv"])
    paths["tex"].write_text(booktabs(found.figure.table(found.data), name, found.caption), encoding="utf-8")
    paths["txt"].write_text(found.caption + "\n", encoding="utf-8")
    _draw(found, paths["pdf"], paths["png"], place)
    return list(paths.values())


def _draw(found: Answer, pdf: Path, png: Path, place: Venue) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    with mpl.rc_context():
        mpl.rcdefaults()
        chosen: Any = settings(place)
        mpl.rcParams.update(chosen)
        sheet = Sheet(figsize=_size(found.figure, place))
        FigureCanvasAgg(sheet)
        panels = [sheet.add_subplot(1, found.figure.panels, 1 + index) for index in range(found.figure.panels)]
        found.figure.draw(panels if len(panels) > 1 else panels[0], found.data)
        _legend(sheet, panels)
        # a date or a version in the file would make two identical figures differ
        sheet.savefig(pdf, metadata={"CreationDate": None, "Creator": "klrubench", "Producer": None})
        sheet.savefig(png, dpi=PNG_DPI, metadata={"Software": None})


def _size(figure: Figure, place: Venue) -> tuple[float, float]:
    width = place.page if figure.width == "page" else place.column
    return width, width * figure.height


def _legend(sheet: Any, panels: list[Any]) -> None:
    """One legend above all panels, outside of them, so that it covers nothing; none for one entry."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) < 2:
        return
    width = sheet.get_size_inches()[0]
    letters = max(len(label) for label in found)
    # a letter of 7 pt is about 0.05 in wide, a handle with its gaps 0.45 in
    most = max(1, min(len(found), int(width / (0.05 * letters + 0.45))))
    columns = math.ceil(len(found) / math.ceil(len(found) / most))
    sheet.legend(list(found.values()), list(found), loc="outside upper center", ncols=columns)
