"""The import closure of a plug-in file: itself and the files of its own folder tree that it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from klrubench.study.folder import PACKAGE

FRAMEWORK = "klrubench"


Closure = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


def import_closure(file: Path, root: Path, top: str = "") -> Closure:
    """What a plug-in's behaviour depends on, apart from installed libraries.

    Args:
        file: the plug-in.
        root: the study (or the folder that comes along); only files below it are followed.
        top: follow absolute imports only below this name (an installed package shares its root with all others).

    Returns:
        `(path below root, text)` of every file, the plug-in first, then by path; and the klrubench modules that any of
        them imports, as dotted names.
    """
    texts: dict[Path, str] = {}
    framework: set[str] = set()
    queue = [file, *_package_inits(file, root)]
    while queue:
        here = queue.pop()
        if here in texts or not here.is_file():
            continue
        texts[here] = here.read_text(encoding="utf-8", errors="replace")
        for level, name in imported_names(texts[here]):
            if level == 0 and name.split(".")[0] == FRAMEWORK:
                framework.add(name)
            elif level > 0 or not top or name.split(".")[0] == top:
                queue += _candidates(here, root, level, name)
    helpers = sorted(path for path in texts if path != file)
    ordered = tuple((path.relative_to(root).as_posix(), texts[path]) for path in [file, *helpers])
    return ordered, tuple(sorted(framework))


def _package_inits(file: Path, root: Path) -> list[Path]:
    between = [folder for folder in file.parents if folder != root and root in folder.parents]
    return [folder / "__init__.py" for folder in between]


def imported_names(text: str) -> Iterator[tuple[int, str]]:
    """Every import in the text, wherever it stands, as (dots in front, dotted name); nothing if it does not parse."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        yield from _names(node)


def imported_at_load(text: str) -> list[str]:
    """Dotted names of absolute imports that run when the module is loaded (not in functions, not for type checkers)."""
    try:
        nodes: list[ast.AST] = [ast.parse(text)]
    except (SyntaxError, ValueError):
        return []
    found = []
    while nodes:
        node = nodes.pop()
        found += [name for level, name in _names(node) if level == 0]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _for_type_checkers(node):
            continue
        nodes += ast.iter_child_nodes(node)
    return found


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if base:
            yield node.level, base
        yield from ((node.level, f"{base}.{alias.name}".strip(".")) for alias in node.names)


def _candidates(importer: Path, root: Path, level: int, name: str) -> list[Path]:
    """Files that `name` may stand for. Too many does no harm: those that are missing or outside the root drop out."""
    folders = [importer.parents[level - 1]] if 0 < level <= len(importer.parents) else [root, importer.parent]
    parts = name.split(".")
    found = []
    for folder in folders:
        if folder != root and root not in folder.parents:
            continue
        found += [folder.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
        found.append(folder.joinpath(*parts).with_suffix(".py"))
    inside_wheel = PACKAGE in root.parents
    return [path for path in found if inside_wheel or PACKAGE not in path.parents]


def framework_closure(modules: tuple[str, ...], counted: tuple[str, ...]) -> list[Path]:
    """Files of klrubench that the named modules lead to and that are not counted in every run already.

    Args:
        modules: dotted names as `import_closure` returns them.
        counted: names just below klrubench that every run's identity holds (`engine`, `mm`, `policy` ...).
    """
    found: set[Path] = set()
    queue = [name for name in modules if not _is_counted(name, counted)]
    while queue:
        for path in _module_files(queue.pop()):
            if path in found:
                continue
            found.add(path)
            names = [name for level, name in imported_names(path.read_text(encoding="utf-8")) if level == 0]
            queue += [name for name in names if name.startswith(FRAMEWORK + ".") and not _is_counted(name, counted)]
    return sorted(found)


def _is_counted(name: str, counted: tuple[str, ...]) -> bool:
    parts = name.split(".")
    return len(parts) == 1 or parts[1] in counted


def _module_files(name: str) -> list[Path]:
    parts = name.split(".")[1:]
    inits = [PACKAGE.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [path for path in [*inits, PACKAGE.joinpath(*parts).with_suffix(".py")] if path.is_file()]
