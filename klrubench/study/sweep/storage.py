"""Where a sweep's trials are kept: a journal file of its own, or any database URL; opened by one driver or by many."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from klrubench.errors import StoreError, UnknownNameError, UsageError
from klrubench.study.folder import shown

if TYPE_CHECKING:
    import optuna

FOLDER = "sweeps"
SUFFIX = ".journal"
SILENT_S = 900.0
"""A driver on another host that has not been heard of for so long is taken to be dead."""


class TakenError(UsageError):
    """The name belongs to a sweep that asks something else."""


@dataclass
class Place:
    """A storage.

    Attributes:
        url: of a database; `None`: a journal file.
        folder: where journals and winners are.
    """

    url: str | None
    folder: Path
    _lock: IO[bytes] | None = field(default=None, repr=False)

    @property
    def shared(self) -> bool:
        """Whether several drivers may work on one study at once."""
        return self.url is not None

    def journal(self, name: str) -> Path:
        """The journal file of that study."""
        return self.folder / f"{name}{SUFFIX}"

    def shown(self, name: str) -> str:
        """Where a study is, for messages; a URL without its password."""
        return shown(self.journal(name)) if self.url is None else f"{without_password(self.url)} ({name})"

    def storage(self, name: str, write: bool) -> Any:
        """Optuna's storage; for writing a journal is locked and mended.

        Raises:
            StoreError: it cannot be opened, or another driver has it.
        """
        quiet()
        if self.url is not None:
            return _database(self.url)
        from optuna.storages import JournalStorage

        path = self.journal(name)
        try:
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(path)
                mend(path)
            return JournalStorage(_backend(path, self._lock))
        except OSError as error:
            raise StoreError(f"cannot open {shown(path)}: {error.strerror or error}") from None
        except (ValueError, KeyError) as error:
            raise StoreError(f"{shown(path)} is damaged: {error}; move it away, and the sweep begins anew") from None

    def sync(self) -> None:
        """Have the disk hold what was written: once a batch, because a killed driver loses nothing without it."""
        if self._lock is not None:
            os.fsync(self._lock.fileno())

    def close(self) -> None:
        """Let another driver have the journal."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _backend(path: Path, held: IO[bytes] | None) -> Any:
    """Optuna's journal file; of a driver that holds it alone, without a lock and a disk flush for every line."""
    from optuna.storages.journal import JournalFileBackend

    if held is None:
        return JournalFileBackend(str(path))

    handle = held

    class _Held(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            handle.write(b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs))
            handle.flush()

    return _Held(str(path))


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage

    for attempt in range(5):
        try:
            return RDBStorage(url)
        except ImportError as error:
            raise UsageError(f"--storage {without_password(url)}: {error}; pip install 'klrubench[sql]'") from None
        except Exception as error:  # each database has its own classes; a race on empty tables ends with the second try
            last = error
            time.sleep(0.2 * attempt)
    words = " ".join(str(last).split())[:160]
    raise StoreError(f"cannot open --storage {without_password(url)}: {words}")


def without_password(url: str) -> str:
    """A URL that may be printed."""
    head, mark, rest = url.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{head}{mark}{account.partition(':')[0]}{at}{host}" if at else url


def _locked(path: Path) -> IO[bytes]:
    """The journal held for this driver until its process ends, however it ends."""
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        line = f"another klrubench works on {shown(path)}; wait for it, or use --storage URL for several at once"
        raise StoreError(line) from None
    return handle


def mend(path: Path) -> None:
    """Take away what a killed driver may have left: half a last line, and the journal's own lock."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as handle:
            handle.truncate(whole)
    lock = Path(f"{path}.lock")
    if lock.is_symlink() or lock.exists():
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(place: Place, name: str, directions: int, about: dict[str, Any]) -> Iterator[optuna.Study]:
    """The study of that name for a driver, made if there is none.

    Args:
        place: where.
        name: of the study.
        directions: number of objectives, all made small.
        about: user attributes of a new study; an old one must have the same `identity`.

    Raises:
        TakenError: the name belongs to a sweep that asks something else.
        StoreError: the storage cannot be used.
    """
    import optuna

    try:
        storage = place.storage(name, write=True)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=["minimize"] * directions, load_if_exists=True
        )
        known = study.user_attrs
        if known.get("identity", about["identity"]) != about["identity"]:
            raise TakenError(
                f"sweep {name} in {place.shown(name)} asks something else (policy, space, workloads, seeds, sampler or "
                "code differ); choose another --name"
            )
        for key, value in about.items():
            if known.get(key) != value:
                study.set_user_attr(key, value)
        yield study
    finally:
        place.close()


def load(place: Place, name: str) -> optuna.Study:
    """A study to look at.

    Raises:
        UnknownNameError: there is none of that name.
        StoreError: the storage cannot be read.
    """
    import optuna

    if place.url is None and not place.journal(name).is_file():
        known = [path.stem for path in place.folder.glob(f"*{SUFFIX}")]
        raise UnknownNameError("sweep", name, known, f"in {shown(place.folder)}")
    storage = place.storage(name, write=False)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = [each.study_name for each in optuna.get_all_study_summaries(storage)]
        raise UnknownNameError("sweep", name, known, f"in {place.shown(name)}") from None


def quiet() -> None:
    """No lines of Optuna's own on stderr: what matters is reported by the sweep."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", module=r"optuna\..*")


@dataclass(frozen=True)
class Driver:
    """Who asked for a trial: enough to tell whether it still lives."""

    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Driver:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()))

    @property
    def key(self) -> str:
        """Study attribute under which it tells when it was last seen."""
        return f"seen {self.host} {self.pid} {self.started}"

    def to_record(self) -> list[Any]:
        """Plain data for a trial's attribute."""
        return [self.host, self.pid, self.started]

    def gone(self, study: optuna.Study) -> bool:
        """Whether it is certainly not at work any more: its process ended, or nothing was heard for 15 minutes."""
        if self.host == socket.gethostname():
            return _started(self.pid) != self.started
        seen = study.user_attrs.get(self.key, 0.0)
        return bool(time.time() - float(seen) > SILENT_S)


def _started(pid: int) -> str:
    """Start time of a process in ticks since boot, empty if there is none: a number may have gone to another one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
