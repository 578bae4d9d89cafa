"""A Slurm profile: what a worker's job asks for, as a TOML file of the user's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from klrubench.errors import UsageError
from klrubench.study.folder import shown

STOP_EARLY_S = 300
"""Workers end so long before their job does: what they have is then handed over, not lost."""


class SlurmProfile(BaseModel):
    """What each job asks for.

    Attributes:
        jobs: how many of them.
        cores: CPUs of a job, each of which computes one run at a time.
        memory: of a job, such as "16GB"; a run takes up to 1 GB.
        walltime: "HH:MM:SS".
        queue, account: partition and account, where the site wants them.
        python: the interpreter that has klrubench there; default: this one.
        directives: more `#SBATCH` lines, such as "--exclusive".
        prologue: shell lines before the worker starts, such as "module load python".
        scratch: node-local folder for compiled kernels and streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: int = Field(ge=1, le=10_000)
    cores: int = Field(ge=1, le=1024)
    memory: str = Field(pattern=r"^[1-9][0-9]* ?[KMGT]i?B$")
    walltime: str = Field(pattern=r"^([0-9]+-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]$")
    queue: str | None = None
    account: str | None = None
    python: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    scratch: str = "${TMPDIR:-/tmp}/klrubench"

    @field_validator("walltime")
    @classmethod
    def _long_enough(cls, value: str) -> str:
        if _seconds(value) <= 2 * STOP_EARLY_S:
            raise ValueError(f"a job must last longer than {2 * STOP_EARLY_S} s")
        return value

    def cluster_options(self) -> dict[str, Any]:
        """Arguments of `dask_jobqueue.SLURMCluster`."""
        lifetime = _seconds(self.walltime) - STOP_EARLY_S
        options = {
            "cores": self.cores,
            "processes": self.cores,
            "memory": self.memory,
            "walltime": self.walltime,
            "queue": self.queue,
            "account": self.account,
            "python": self.python,
            "job_extra_directives": list(self.directives),
            "job_script_prologue": [
                f'export KLRUBENCH_CACHE="{self.scratch}"',
                "export NUMBA_NUM_THREADS=1 POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1",
                *self.prologue,
            ],
            "worker_extra_args": ["--lifetime", f"{lifetime}s", "--lifetime-stagger", "60s"],
        }
        return {name: value for name, value in options.items() if value is not None}


def _seconds(walltime: str) -> int:
    days, _, clock = walltime.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def read_profile(path: Path) -> SlurmProfile:
    """The profile in a TOML file.

    Raises:
        UsageError: it cannot be read, or a value in it is missing or impossible; names the first.
    """
    try:
        return SlurmProfile(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"Slurm profile {shown(path)}: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"Slurm profile {shown(path)}: no valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"Slurm profile {shown(path)}: {where}: {first['msg'].lower()}") from None
