"""`klrubench report`: everything that is stored, in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A results folder; default: the study's results/.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The page; default: report.html in the folder.")
    ] = None,
) -> None:
    """Write one HTML file with all stored runs and sweeps; it opens offline.

    \b
    Examples:
      klrubench report
      klrubench report results/reference -o report.html
    """
    from klrubench.cli.output import emit, say
    from klrubench.report.html import report
    from klrubench.report.text import size
    from klrubench.study.again import store_at
    from klrubench.study.folder import results_folder, shown

    store = store_at(folder or results_folder()[0])
    file = out or store.path / "report.html"
    page = report(store, say).encode()
    file.write_bytes(page)
    emit(f"{shown(file)}: {size(len(page))}")
