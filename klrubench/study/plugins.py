"""Policies and workloads by name: in the study one stands in, then those that come along, then installed packages."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klrubench.errors import UnknownNameError, UsageError
from klrubench.params import Parameterised
from klrubench.study.closure import import_closure
from klrubench.study.folder import plugin_roots, shown
from klrubench.study.loader import PluginSource, load_module

if TYPE_CHECKING:
    from klrubench.policy import Policy
    from klrubench.workload import Workload

FOLDERS = {"policy": "policies", "workload": "workloads"}


@dataclass(frozen=True)
class PluginInfo:
    """One line of `klrubench list`.

    Attributes:
        name: what a person types.
        summary: first line of the class's docstring, read without loading the file.
        origin: "study", "bundled" or "package NAME".
        path: its file (`None` for an installed package's).
    """

    name: str
    summary: str
    origin: str
    path: Path | None


def find_policy(name: str) -> type[Policy]:
    """The policy of that name.

    Raises:
        UnknownNameError: there is none; suggests the nearest.
        UsageError: its file is broken; one line with file and line number.
    """
    return load(policy_source(name))


def find_workload(name: str) -> type[Workload]:
    """The workload of that name; raises like `find_policy`."""
    return load(workload_source(name))


def policy_source(name: str) -> PluginSource:
    """The policy of that name as plain data, not loaded."""
    return _source("policy", name)


def workload_source(name: str) -> PluginSource:
    """The workload of that name as plain data, not loaded."""
    return _source("workload", name)


def list_policies() -> list[PluginInfo]:
    """All policies that can be named from here, by name."""
    return _list("policy")


def list_workloads() -> list[PluginInfo]:
    """All workloads that can be named from here, by name."""
    return _list("workload")


def load(source: PluginSource) -> Any:
    """The class that a source defines, with the name a person types given to it."""
    module = load_module(source)
    found: Any = _entry_class(source, module) if source.entry else _only_class(source, module)
    found._registered_name = source.name
    return found


def _base(kind: str) -> type[Parameterised]:
    if kind == "policy":
        from klrubench.policy import Policy

        return Policy
    from klrubench.workload import Workload

    return Workload


def _only_class(source: PluginSource, module: Any) -> type[Parameterised]:
    base = _base(source.kind)
    own = [value for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_")]
    found = [value for value in own if issubclass(value, base) and value.__module__ == module.__name__]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise UsageError(
            f"{shown(source.path)}: one file defines one subclass of {base.__name__}, this one: {names} "
            "(helper classes start with _)"
        )
    return found[0]


def _entry_class(source: PluginSource, module: Any) -> type[Parameterised]:
    attribute = source.entry.partition(":")[2]
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, _base(source.kind))):
        raise UsageError(f"{source.kind} '{source.name}': entry point {source.entry} is no {source.kind} class")
    return found


def _source(kind: str, name: str) -> PluginSource:
    for _, root in plugin_roots():
        file = root / FOLDERS[kind] / f"{name}.py"
        if Path(name).name == name and _is_plugin(file):
            files, framework = import_closure(file, root)
            return PluginSource(kind, name, str(root), files, framework)
    for entry in _entry_points(kind):
        if entry.name == name:
            return _entry_source(kind, entry)
    known = [info.name for info in _list(kind)]
    raise UnknownNameError(kind, name, known, f"klrubench list {FOLDERS[kind]}")


def _is_plugin(file: Path) -> bool:
    return not file.name.startswith("_") and not any(mark in file.stem for mark in ".:,") and file.is_file()


def _entry_points(kind: str) -> list[importlib.metadata.EntryPoint]:
    return sorted(importlib.metadata.entry_points(group=f"klrubench.{FOLDERS[kind]}"), key=lambda entry: entry.name)


def _entry_source(kind: str, entry: importlib.metadata.EntryPoint) -> PluginSource:
    """An installed package's plug-in: its identity is that of its files below the package's top folder."""
    module = entry.value.partition(":")[0].strip()
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UsageError(f"{kind} '{entry.name}': its package has no source file for {module}; install it again")
    file = Path(spec.origin)
    depth = module.count(".") + (file.name == "__init__.py")
    files, framework = import_closure(file, file.parents[depth], top=module.split(".")[0])
    value = entry.value.replace(" ", "")
    return PluginSource(kind, entry.name, str(file.parents[depth]), files, framework, entry=value)


def _list(kind: str) -> list[PluginInfo]:
    found: dict[str, PluginInfo] = {}
    for info in _all(kind):
        found.setdefault(info.name, info)
    return [found[name] for name in sorted(found)]


def _all(kind: str) -> Iterator[PluginInfo]:
    for origin, root in plugin_roots():
        for file in sorted((root / FOLDERS[kind]).glob("*.py")):
            if _is_plugin(file):
                yield PluginInfo(file.stem, summary(file), origin, file)
    for entry in _entry_points(kind):
        yield PluginInfo(entry.name, "", f"package {entry.dist.name}" if entry.dist else "package", None)


def summary(file: Path) -> str:
    """First line of the docstring of the first public class in a file, else of the file itself."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return f"(broken: line {error.lineno}: {error.msg})"
    except (OSError, ValueError) as error:
        return f"(broken: {error})"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    texts = [*(ast.get_docstring(node) for node in classes), ast.get_docstring(tree)]
    return next((text.strip().splitlines()[0] for text in texts if text and text.strip()), "")
