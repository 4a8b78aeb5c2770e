"""Real `python -m handler.pod` processes on a test's Valkey, without weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.protocol import Event, Lane, WorkerState
from core.queue import Queue
from core.workflows.base import Workflow
from tests.support import engine, workflows
from tests.support.backends import new_job
from tests.support.processes import marked, new_mark
from tests.support.valkey import LEASE_S, RULES, Valkey
from tests.support.wait import wait_until

GRACE_S = 0.7


class Pods:
    """Starts workers and sees to it that none is left."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._mark = new_mark()
        self._env = {
            **os.environ,
            **self._mark,
            "DIFFBOX_VALKEY_URL": url,
            "DIFFBOX_ENGINE": engine.PATH,
            "DIFFBOX_WORKFLOWS": workflows.ALL,
            "DIFFBOX_DATA_DIR": str(folder / "data"),
            "DIFFBOX_MODELS_DIR": str(folder / "models"),
            "DIFFBOX_OUTPUTS_DIR": str(folder / "outputs"),
            "DIFFBOX_LEASE_S": str(LEASE_S),
            "DIFFBOX_BEAT_S": "0.3",
            "DIFFBOX_GRACE_S": str(GRACE_S),
            "DIFFBOX_RETRY_DELAY_S": str(RULES.retry_delay_s),
        }
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, worker: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker and return at once."""
        with (self.folder / f"{worker}.log").open("ab") as log:
            self._started[worker] = subprocess.Popen(
                [sys.executable, "-m", "handler.pod"],
                env={**self._env, "DIFFBOX_WORKER_ID": worker, **env},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        return self._started[worker]

    def start(self, queue: Queue, *workers: str, **env: str) -> None:
        """Start workers and wait until they are ready."""
        for worker in workers:
            self.spawn(worker, **env)
        for worker in workers:
            wait_until(lambda worker=worker: state(queue, worker) == "ready", 30)  # type: ignore[misc]

    def log(self, worker: str) -> str:
        """What the worker has said on stderr."""
        return (self.folder / f"{worker}.log").read_text()

    def signal(self, worker: str, number: signal.Signals) -> None:
        """Send a signal to the worker, not to its child."""
        self._started[worker].send_signal(number)

    def wait(self, worker: str, timeout_s: float = 10) -> int:
        """Its exit code."""
        return self._started[worker].wait(timeout_s)

    def alive(self, worker: str) -> bool:
        """Whether it still runs."""
        return self._started[worker].poll() is None

    def processes(self) -> Mapping[int, str]:
        """All living processes of these workers, children included."""
        return marked(self._mark)

    def close(self) -> None:
        """Kill all; their children must follow by themselves."""
        for process in self._started.values():
            process.kill()
            process.wait()
        wait_until(lambda: not self.processes())


@pytest.fixture
def pods(valkey: Valkey, tmp_path: Path) -> Iterator[Pods]:
    """Workers of one test."""
    made = Pods(valkey.url, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_pods(module_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """Workers "a" and "b", ready, for all tests of a module that leave them alive."""
    made = Pods(module_valkey.url, tmp_path_factory.mktemp("pods"))
    queue = Queue.connect(module_valkey.url, RULES)
    made.start(queue, "a", "b")
    queue.client.close()
    yield made
    made.close()


def submit(
    queue: Queue, workflow: type[Workflow[Any]], lane: Lane = "normal", **params: Any
) -> str:
    """Put a job in and give its id."""
    job = new_job(workflow, lane, **params)
    queue.enqueue(job)
    return job.id


def status(queue: Queue, job_id: str) -> str:
    """The job's status."""
    return queue.job(job_id)["status"]


def wait_status(queue: Queue, job_id: str, wanted: str, timeout_s: float = 20) -> dict[str, str]:
    """The job's hash, once its status is `wanted`."""
    wait_until(lambda: status(queue, job_id) == wanted, timeout_s)
    return queue.job(job_id)


def events(queue: Queue, job_id: str) -> list[Event]:
    """All that was told about the job."""
    return [event for _, event in queue.events(job_id, block_s=0.01)]


def types(queue: Queue, job_id: str) -> list[str]:
    """The types of a job's events, without progress."""
    return [event.type for event in events(queue, job_id) if event.type != "progress"]


def state(queue: Queue, worker: str) -> str | None:
    """What the worker says it is doing; None when it is not known."""
    found: dict[str, WorkerState] = {each.id: each for each in queue.workers()}
    return found[worker].state if worker in found else None
