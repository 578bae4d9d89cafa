"""Where one stands: the study's folder, the plug-ins that come along, and where results go."""

from __future__ import annotations

import tomllib
from pathlib import Path

from klrubench.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent
RESULTS_OUTSIDE = "klrubench-results"


def find_study(start: Path | None = None) -> Path | None:
    """The nearest folder, from `start` (default: the current one) upward, whose pyproject.toml has `[tool.klrubench]`.

    Raises:
        UsageError: that pyproject.toml cannot be read or is not TOML.
    """
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if _is_study(folder / "pyproject.toml")), None)


def _is_study(pyproject: Path) -> bool:
    try:
        text = pyproject.read_text(encoding="utf-8")
    except OSError:
        return False
    except UnicodeDecodeError:
        raise UsageError(f"{pyproject}: not UTF-8 text") from None
    if "tool.klrubench" not in text:
        return False
    try:
        return "klrubench" in tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{pyproject}: {error}") from None


def bundled_root() -> Path:
    """The folder that holds the policies/ and workloads/ that come along: inside the wheel, or beside klrubench/."""
    packed = PACKAGE / "_bundled"
    return packed if packed.is_dir() else PACKAGE.parent


def plugin_roots(start: Path | None = None) -> list[tuple[str, Path]]:
    """Folders that may hold policies/ and workloads/, in lookup order, each with the word that `list` prints for it."""
    study, bundled = find_study(start), bundled_root()
    roots = [("study", study)] if study is not None and study != bundled else []
    return [*roots, ("bundled", bundled)]


def results_folder(start: Path | None = None) -> tuple[Path, str]:
    """Where results go by default, and a line for stderr when that is not a study's results/ (else empty)."""
    study = find_study(start)
    if study is not None:
        return study / "results", ""
    folder = (start or Path.cwd()) / RESULTS_OUTSIDE
    return folder, f"not in a study: results go to ./{RESULTS_OUTSIDE}"


def shown(path: Path) -> str:
    """The path as a person standing here would type it."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return path.as_posix()
