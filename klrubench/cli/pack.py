"""`klrubench pack`: an artifact archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A results folder; default: the study's results/.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The archive.")] = Path("artifact.tar.gz"),
) -> None:
    """Pack stored runs with versions, commands and sources.

    The same runs give the same bytes.

    \b
    Examples:
      klrubench pack results/reference -o artifact.tar.gz
    """
    from klrubench.cli.output import emit, say
    from klrubench.report.pack import pack
    from klrubench.report.text import size
    from klrubench.study.again import store_at
    from klrubench.study.folder import results_folder

    found = pack(store_at(folder or results_folder()[0]), out)
    for name in found["missing"]:
        say(f"warning: {name}: its file is not the one that the runs were made by; it is not in the archive")
    emit(f"{out}: {found['runs']} runs, {found['files']} files, {size(found['bytes'])}, sha256 {found['sha256']}")
