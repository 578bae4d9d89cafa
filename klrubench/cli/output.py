"""Where text goes: data to stdout, words about it to stderr; colour and width follow the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import typer

WIDTH = 100
NARROWEST = 72


def emit(text: str) -> None:
    """Data on stdout, with a line end."""
    typer.echo(text.rstrip("\n"))


def emit_json(value: Any) -> None:
    """JSON on stdout, two blanks a level."""
    emit(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say(line: str) -> None:
    """A line on stderr."""
    typer.echo(line, err=True)


def colour() -> bool:
    """Whether escape sequences are welcome: a terminal, and no NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns that a table may take: 100, or those of a narrower terminal (72 at least)."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def ascii_only() -> bool:
    """Whether stdout cannot show block characters."""
    return "utf" not in (sys.stdout.encoding or "").lower()
