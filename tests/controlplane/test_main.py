"""The process: it starts quickly, says when it serves, stops cleanly, and stays small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import engine
from tests.support.backends import own_env
from tests.support.processes import marked, new_mark
from tests.support.wait import wait_until


class Process:
    """`python -m controlplane.main` on a free port."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.mark = new_mark()
        self._log = folder / "log.jsonl"
        self._said = folder / "said.txt"
        full = {
            **os.environ,
            **own_env(folder),
            **self.mark,
            "DIFFBOX_PORT": "0",
            "DIFFBOX_BACKEND": "memory",
            "DIFFBOX_ENGINE": engine.PATH,
            **env,
        }
        with self._log.open("wb") as log, self._said.open("wb") as said:
            argv = [sys.executable, "-m", "controlplane.main"]
            self.child = subprocess.Popen(argv, env=full, stderr=log, stdout=said)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def said(self) -> str:
        return self._said.read_text()

    def ready(self) -> httpx.Client:
        """A client for it, once it has said that it serves."""
        entries = wait_until(lambda: [e for e in self.log if e["event"] == "ready"], 30)
        return httpx.Client(base_url=entries[0]["url"], timeout=20)

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


@contextmanager
def started(folder: Path, **env: str) -> Iterator[Process]:
    process = Process(folder, env)
    try:
        yield process
    finally:
        process.child.kill()
        process.child.wait()
        wait_until(lambda: not marked(process.mark))


def test_it_serves_the_page_soon_after_its_start(tmp_path: Path) -> None:
    began = time.monotonic()
    with started(tmp_path) as process, process.ready() as http:
        assert http.get("/api/health").json()["status"] == "ok"
        assert http.get("/", headers={"accept": "text/html"}).status_code == 200
        assert process.rss_mb() < 150
    assert time.monotonic() - began < 10  # 2 s when nothing else runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_with_a_job_running_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    with started(tmp_path) as process, process.ready() as http:
        job_id = http.post("/api/workflows/sleeper", json={"seconds": 60}).json()["job_id"]
        wait_until(lambda: http.get(f"/api/jobs/{job_id}").json()["status"] == "running")
        process.child.send_signal(number)
        assert process.child.wait(10) == 0
        wait_until(lambda: not marked(process.mark))
        assert [e for e in process.log if e["level"] in {"error", "critical"}] == []


def test_a_running_job_of_the_memory_backend_begins_anew_after_the_restart(tmp_path: Path) -> None:
    with started(tmp_path) as process, process.ready() as http:
        job_id = http.post("/api/workflows/sleeper", json={"seconds": 2}).json()["job_id"]
        wait_until(lambda: http.get(f"/api/jobs/{job_id}").json()["status"] == "running")
    with started(tmp_path) as process, process.ready() as http:
        wait_until(lambda: http.get(f"/api/jobs/{job_id}").json()["status"] == "completed", 30)


def test_a_wrong_setting_ends_it_with_exit_code_78_and_the_variable(tmp_path: Path) -> None:
    with started(tmp_path, DIFFBOX_BACKEND="runpod") as process:
        assert process.child.wait(20) == 78
        assert "DIFFBOX_BACKEND" in process.log[-1]["event"]


def test_a_second_one_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with started(tmp_path) as first, first.ready():
        env = {"DIFFBOX_DATA_DIR": str(tmp_path / "data")}
        with started(tmp_path / "second", **env) as second:
            assert second.child.wait(20) == 78
            assert "another diffbox" in second.log[-1]["event"]


def test_a_public_page_shows_its_new_password_once(tmp_path: Path) -> None:
    env = {"RUNPOD_POD_ID": "abc123"}
    with started(tmp_path, **env) as process, process.ready() as http:
        password = process.said.strip().rpartition(" ")[2]
        assert len(password) >= 20 and password not in json.dumps(process.log)
        assert http.get("/api/jobs").status_code == 401
        bearer = {"authorization": f"Bearer {password}"}
        assert http.get("/api/jobs", headers=bearer).status_code == 200
    with started(tmp_path, **env) as process, process.ready() as http:
        assert process.said == ""
        assert http.get("/api/jobs", headers=bearer).status_code == 200


@pytest.mark.slow
def test_two_hundred_jobs_leave_it_no_larger_than_ten(tmp_path: Path) -> None:
    def run(http: httpx.Client, count: int) -> None:
        for _ in range(count):
            sent = http.post("/api/workflows/noop", json={"prompt": "p" * 200}).json()
            wait_until(
                lambda url=sent["url"]: http.get(url).json()["status"] == "completed"  # type: ignore[misc]
            )

    with started(tmp_path) as process, process.ready() as http:
        run(http, 10)
        after_ten = process.rss_mb()
        run(http, 190)
        assert process.rss_mb() - after_ten < 8
