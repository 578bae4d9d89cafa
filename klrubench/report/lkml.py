"""The same tables for a mailing list: 72 columns, 7-bit characters, no escape sequences."""

from __future__ import annotations

import re

from klrubench.report.text import plain_ascii, wrapped

WIDTH = 72
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def lkml(text: str) -> str:
    """A text made safe to paste into a mail: no colour, plain ASCII, prose over 72 columns wrapped, no trailing blanks.

    Tables have to be laid out for 72 columns beforehand; a line that is too long is taken for prose.
    """
    lines = [line.rstrip() for line in plain_ascii(_ESCAPE.sub("", text)).splitlines()]
    return "\n".join(
        piece for line in lines for piece in ([line] if len(line) <= WIDTH else wrapped(line, WIDTH, "  "))
    )
