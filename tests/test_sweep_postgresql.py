"""A sweep on a real PostgreSQL server that the test starts by itself: two drivers at once, one of them killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_fakes import asked, valley, write_sweep_study

pytestmark = pytest.mark.slow


def tool(name: str) -> str | None:
    """A program of the server, on the path or where distributions put it."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if tool("initdb") is None or tool("postgres") is None:
        pytest.skip("PostgreSQL's server is not installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'klrubench[sql]')")
    # the server refuses to run as root
    more: dict[str, Any] = {"user": "nobody", "cwd": "/"} if os.getuid() == 0 else {}
    folder = tmp_path_factory.mktemp("postgresql")
    data = Path(f"/tmp/klrubench-pg-{os.getpid()}") if more else folder / "data"
    data.mkdir()
    if more:
        shutil.chown(data, "nobody")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [tool("initdb"), "-D", str(data), "-U", "sweeper", "-A", "trust", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, **more)
    run = [tool("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data), "-F"]
    server = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"postgresql+psycopg://sweeper@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(data, ignore_errors=True)


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from sweep_fakes import Stopping, asked, valley
from klrubench.study.sweep.drive import sweep
sweep(asked(trials=20), name="together", store={store!r}, storage={url!r}, jobs=1, task={task})
"""


def driver(url: str, store: str, task: str) -> subprocess.Popen[str]:
    code = DRIVER.format(tests=str(Path(__file__).parent), store=store, url=url, task=task)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_drivers_share_a_study_and_one_is_killed(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    from klrubench.study.sweep.drive import sweep

    write_sweep_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    both = [driver(url, "a", "valley"), driver(url, "b", "Stopping(60, kill=True)")]
    ends = [each.communicate(timeout=240) for each in both]
    assert both[0].returncode == 0, ends[0][1]
    assert both[1].returncode == -signal.SIGKILL, ends[1][1]
    found = sweep(asked(trials=24), name="together", store="a", storage=url, jobs=1, task=valley)
    trials = optuna.load_study(study_name="together", storage=url).trials
    assert not [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    done = [trial.params for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert all(trial.params in done for trial in trials if "lost" in trial.user_attrs)
    assert found.summary["counts"]["trials"] >= 24
    assert found.summary["confirmed"]["winner"]["values"]
