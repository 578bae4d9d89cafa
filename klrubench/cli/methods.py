"""`klrubench methods`: the paragraph that a paper needs."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from klrubench.cli.options import Json


def command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A results folder; default: the study's results/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the methods paragraph of a paper, from the facts of stored runs.

    \b
    Examples:
      klrubench methods
      klrubench methods results/reference
    """
    from klrubench.cli.output import emit, emit_json, width
    from klrubench.report.methods import methods_text
    from klrubench.study.again import store_at
    from klrubench.study.facts import facts
    from klrubench.study.folder import results_folder

    found = facts(store_at(folder or results_folder()[0]).scan())
    if as_json:
        emit_json(found)
    else:
        emit(textwrap.fill(methods_text(found), width(), break_on_hyphens=False))
