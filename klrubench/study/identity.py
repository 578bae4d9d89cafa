"""What a run's id is made of: the resolved run and the tokens of the code that computes it, never its comments."""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.study.closure import framework_closure
from klrubench.study.folder import PACKAGE

if TYPE_CHECKING:
    from klrubench.study.loader import PluginSource

RESULT_SCHEMA = 2
"""Version of what a stored result holds. A higher one makes every stored run out of date."""

COUNTED = ("engine", "mm", "machine", "simulate", "workload", "policy", "params", "generate", "errors")
"""Names below klrubench whose code is in every run's id (`errors` cannot change a result and is not hashed)."""

ROOMS = {
    "engine": ("engine/**/*.py", "generate*.py"),
    "mm": ("mm/**/*.py",),
    "machine": ("machine/**/*.py",),
    "simulate": ("simulate*.py", "simulate/**/*.py"),
    "bases": ("policy.py", "workload.py", "params.py"),
}
_DROPPED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_SHAPE = {tokenize.NEWLINE: "\n", tokenize.INDENT: "\x01", tokenize.DEDENT: "\x02"}
_WORDS_ONLY = ("description", "source", "sources")


def digest(*parts: str) -> str:
    """blake2b-128 of some texts, as 32 hex digits."""
    told = hashlib.blake2b(digest_size=16)
    for part in parts:
        told.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return told.hexdigest()


def canonical(value: Any) -> str:
    """One text for equal values: sorted, compact JSON.

    Raises:
        ValueError: a number is not finite.
        TypeError: the value is not plain data.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def tokens(text: str) -> Iterator[str]:
    """The tokens that mean something: no comments, blank lines or docstrings; indentation by depth alone."""
    statement: list[str] = []
    only_strings = True
    for kind, word in _joined(text):
        if kind in _DROPPED:
            continue
        if kind not in _SHAPE:
            statement.append(word)
            only_strings = only_strings and kind == tokenize.STRING
            continue
        if kind == tokenize.NEWLINE:
            if not only_strings:
                yield from statement
                yield _SHAPE[kind]
            statement, only_strings = [], True
        else:
            yield _SHAPE[kind]
    yield from statement


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """(kind, text) of each token, an f-string as the one string it was before Python 3.12 took it apart."""
    starts = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
    ends = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}
    lines = text.splitlines(keepends=True)
    depth, begin = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in starts:
            begin = begin if depth else token.start
            depth += 1
        elif token.type in ends:
            depth -= 1
            if depth == 0:
                yield tokenize.STRING, _between(lines, begin, token.end)
        elif depth == 0:
            yield token.type, token.string


def _between(lines: list[str], begin: tuple[int, int], end: tuple[int, int]) -> str:
    first, last = begin[0] - 1, end[0] - 1
    if first == last:
        return lines[first][begin[1] : end[1]]
    return "".join([lines[first][begin[1] :], *lines[first + 1 : last], lines[last][: end[1]]])


@lru_cache(maxsize=4096)
def token_hash(text: str) -> str:
    """Hash of a source text's tokens: the same after an edit to comments, docstrings, blank lines or indent width."""
    try:
        return digest(*tokens(text))
    except (tokenize.TokenError, SyntaxError):
        return digest("not Python", text)


def _hash_files(root: Path, files: Iterable[Path]) -> str:
    named = sorted((path.relative_to(root).as_posix(), path) for path in set(files))
    return digest(*(part for name, path in named for part in (name, token_hash(path.read_text(encoding="utf-8")))))


@lru_cache(maxsize=1)
def framework_hashes() -> dict[str, str]:
    """Hash of each room of the framework whose code decides results, as it was when first asked for."""
    return {
        room: _hash_files(PACKAGE, [path for pattern in patterns for path in PACKAGE.glob(pattern)])
        for room, patterns in ROOMS.items()
    }


@lru_cache(maxsize=256)
def plugin_hash(source: PluginSource) -> str:
    """Hash of a plug-in's import closure: its own files, and klrubench's that only it brings in."""
    own = [part for path, text in source.files for part in (path, token_hash(text))]
    return digest(*own, _hash_files(PACKAGE, framework_closure(source.framework, COUNTED)))


def without_words(value: Any) -> Any:
    """A resolved machine without the texts that only people read."""
    if isinstance(value, dict):
        return {key: without_words(inner) for key, inner in value.items() if key not in _WORDS_ONLY}
    if isinstance(value, (list, tuple)):
        return [without_words(inner) for inner in value]
    return value
