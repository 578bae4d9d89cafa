"""Puts policies/, workloads/ and the winners of the reference sweeps inside the klrubench package of a wheel.

Only of a standard build: an editable install reads them where they are, and a copy in site-packages would go stale.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("policies", "workloads", "results/reference/sweeps")


class BundlePlugins(BuildHookInterface):
    """Build hook of the wheel target."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each file of these folders below klrubench/_bundled."""
        if version != "standard":
            return
        root = Path(self.root)
        for file in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                build_data["force_include"][str(file)] = f"klrubench/_bundled/{file.relative_to(root).as_posix()}"
