"""Frames as LaTeX tables with booktabs rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

ROWS = 60
"""A longer table is not for a page: its first rows are written, and that it goes on in the CSV file."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


def latex(text: str) -> str:
    """Plain text with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def booktabs(data: pl.DataFrame, name: str, caption: str) -> str:
    """A `table` environment (needs the package booktabs): words left, numbers right with four significant digits."""
    numeric = [dtype.is_numeric() for dtype in data.dtypes]
    heads = " & ".join(latex(column.replace("_", " ")) for column in data.columns)
    rows = [" & ".join(_cell(value) for value in row) + r" \\" for row in data.head(ROWS).iter_rows()]
    if data.height > ROWS:
        rows.append(rf"\multicolumn{{{data.width}}}{{l}}{{({data.height - ROWS} more rows in {latex(name)}.csv)}} \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(caption)}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{{''.join('r' if each else 'l' for each in numeric)}}}",
            r"\toprule",
            heads + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "--"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else latex(str(value))
