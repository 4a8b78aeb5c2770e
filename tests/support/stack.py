"""`diffbox up` as a process, for tests that use or kill the whole of it. Jobs need no torch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support import engine, workflows
from tests.support.processes import marked, new_mark
from tests.support.wait import wait_until

READY: Final = "diffbox is ready: "
ROLES: Final = {
    "controlplane.cli": "up",
    "valkey-server": "valkey",
    "handler.pod": "worker",
    "core.engine_child": "engine",
    "controlplane.main": "page",
}
"""What stands in a command line, and which part of the stack it is."""


class Stack:
    """The queue, workers and page, on folders that outlive it.

    Args:
        folder: takes data, models, outputs and what is printed.
        env: further variables; see `start` for those that are set.
    """

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.mark = new_mark()
        self.url = ""
        self._env = {
            **os.environ,
            **self.mark,
            "DIFFBOX_DATA_DIR": str(folder / "data"),
            "DIFFBOX_MODELS_DIR": str(folder / "models"),
            "DIFFBOX_OUTPUTS_DIR": str(folder / "outputs"),
            "DIFFBOX_PORT": "0",
            "DIFFBOX_ENGINE": engine.PATH,
            "DIFFBOX_WORKFLOWS": workflows.ALL,
            "DIFFBOX_LEASE_S": "3",
            "DIFFBOX_BEAT_S": "0.5",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None

    # --- the process ---------------------------------------------------------------------------

    def start(self, timeout_s: float = 60) -> None:
        """`diffbox up`, until the page answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._process:
            self._process.wait(timeout=20)  # of the start before, which was killed
        with self.said_file.open("wb") as said, self.log_file.open("ab") as log:
            argv = [sys.executable, "-m", "controlplane.cli", "up"]
            self._process = subprocess.Popen(argv, env=self._env, stdout=said, stderr=log)
        lines = wait_until(self._ready_lines, timeout_s)
        self.url = lines[0].removeprefix(READY)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def close(self) -> None:
        """Kill whatever of it still lives."""
        for pid in self.parts():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process:
            self._process.wait(timeout=20)

    @property
    def said_file(self) -> Path:
        """What it printed for people since the last start."""
        return self.folder / "said.txt"

    @property
    def log_file(self) -> Path:
        """JSON lines of all starts."""
        return self.folder / "log.jsonl"

    def _ready_lines(self) -> list[str]:
        assert self._process
        assert self._process.poll() is None, self.log_file.read_text()[-3000:]
        lines = self.said_file.read_text().splitlines()
        return [line for line in lines if line.startswith(READY)]

    # --- its parts -----------------------------------------------------------------------------

    def parts(self) -> dict[int, str]:
        """The living processes: pid -> role. A process that is no known part is its own role."""
        return {
            pid: next((role for words, role in ROLES.items() if words in command), command)
            for pid, command in marked(self.mark, self.folder).items()
        }

    def count(self) -> Counter[str]:
        """How many processes play each role."""
        return Counter(self.parts().values())

    def kill(self, role: str) -> None:
        """SIGKILL every process of a role."""
        pids = [pid for pid, found in self.parts().items() if found == role]
        assert pids, f"no {role} in {self.parts()}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    # --- its jobs ------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> Any:
        """JSON of one request; None while the page is away."""
        try:
            answer = httpx.request(method, self.url + path, timeout=10, **options)
        except httpx.TransportError:
            return None
        if answer.status_code == 503:
            return None
        answer.raise_for_status()
        return answer.json()

    def submit(self, workflow: str, **params: Any) -> str:
        """Put a job in; gives its id."""
        sent = wait_until(lambda: self.request("POST", f"/api/workflows/{workflow}", json=params))
        return str(sent["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's record; {} while the page is away."""
        return self.request("GET", f"/api/jobs/{job_id}") or {}

    def until(self, job_id: str, *statuses: str, timeout_s: float = 60) -> dict[str, Any]:
        """The job's record once it has one of the statuses."""
        return wait_until(
            lambda: record if (record := self.job(job_id)).get("status") in statuses else {},
            timeout_s,
        )

    def until_working(self, job_id: str) -> None:
        """Until the job has made its first steps."""
        wait_until(lambda: self.job(job_id).get("progress", {}).get("step", 0) > 1, 60)

    def terminal_events(self, job_id: str) -> list[str]:
        """Types of the job's terminal events: there must be one."""
        told = wait_until(lambda: self.request("GET", f"/api/jobs/{job_id}/events"))
        ends = {"completed", "failed", "cancelled"}
        return [event["type"] for event in told["events"] if event["type"] in ends]


@contextlib.contextmanager
def running_stack(folder: Path, **env: str) -> Iterator[Stack]:
    """A started stack; whatever is left of it is killed afterwards."""
    stack = Stack(folder, **env)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


def logged(stack: Stack, event: str) -> list[dict[str, Any]]:
    """Entries of the stack's log with this event."""
    lines = stack.log_file.read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [entry for entry in entries if entry["event"] == event]
