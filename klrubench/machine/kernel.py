"""Kernel versions and tick rates that a machine may be given."""

from __future__ import annotations

import re

from klrubench.errors import ParameterError

OLDEST_KERNEL = "6.1"
HZ_CHOICES = (100, 250, 300, 1000)

_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}")


def version_tuple(version: str) -> tuple[int, int, int]:
    """`6.12` as (6, 12, 0), `6.12.3` as (6, 12, 3).

    Raises:
        ParameterError: the text is not a kernel version.
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ParameterError(f"kernel {version!r}: write a version such as '6.12'")
    numbers = [int(part) for part in version.split(".")]
    return (numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0)


def check_kernel(version: str) -> str:
    """The version itself, if the simulator knows its rules.

    Raises:
        ParameterError: not a version, or older than 6.1, where hot-page selection was merged.
    """
    if version_tuple(version) < version_tuple(OLDEST_KERNEL):
        raise ParameterError(f"kernel '{version}': the rules of kernels before {OLDEST_KERNEL} are not modelled")
    return version


def check_hz(hz: int | str) -> int:
    """Timer ticks a second: one of the kernel's four choices (`CONFIG_HZ`).

    Raises:
        ParameterError: any other value.
    """
    if str(hz) not in {str(choice) for choice in HZ_CHOICES}:
        raise ParameterError(f"hz {hz!r}: legal are {', '.join(map(str, HZ_CHOICES))}")
    return int(hz)
