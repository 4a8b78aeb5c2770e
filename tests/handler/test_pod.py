"""A pod's worker does jobs, is cancelled, retries, and keeps its lease. Real processes."""

from __future__ import annotations

import time

import pytest

from core import catalog
from core.protocol import Completed, Failed, Progress, Requeued, WorkerState
from core.queue import Queue
from tests.support.pods import (
    GRACE_S,
    Pods,
    events,
    module_pods,
    submit,
    types,
    wait_status,
)
from tests.support.valkey import LEASE_S, module_valkey, queue, valkey
from tests.support.wait import wait_until
from tests.support.workflows import Crasher, Deaf, GilHolder, Noop, Raiser, Sleeper

__all__ = ["module_pods", "module_valkey", "queue", "valkey"]

pytestmark = pytest.mark.usefixtures("module_pods")


def test_a_job_completes_with_its_files_stored(queue: Queue, module_pods: Pods) -> None:
    job_id = submit(queue, Sleeper, seconds=0.2)
    wait_status(queue, job_id, "completed")
    assert types(queue, job_id) == ["queued", "started", "completed"]
    end = events(queue, job_id)[-1]
    assert isinstance(end, Completed)
    assert "video" in {artifact.kind for artifact in end.artifacts}
    for artifact in end.artifacts:
        path = module_pods.folder / "outputs" / artifact.url
        assert path.stat().st_size == artifact.size_bytes


def test_progress_rises_and_is_told_while_the_job_runs(queue: Queue) -> None:
    job_id = submit(queue, Sleeper, seconds=1.0, steps=5)
    wait_status(queue, job_id, "completed")
    fractions = [event.fraction for event in events(queue, job_id) if isinstance(event, Progress)]
    assert len(fractions) >= 5
    assert fractions == sorted(fractions)


def test_urgent_jobs_go_first(queue: Queue) -> None:
    busy = [submit(queue, Sleeper, seconds=1.0), submit(queue, Sleeper, seconds=60)]
    for job_id in busy:
        wait_status(queue, job_id, "running")
    low, normal, high = (submit(queue, Noop, lane) for lane in ("low", "normal", "high"))
    rows = [wait_status(queue, job_id, "completed") for job_id in (high, normal, low)]
    started = [int(row["started_at"]) for row in rows]
    assert started == sorted(started)
    queue.cancel(busy[1])
    wait_status(queue, busy[1], "cancelled")


def test_a_job_longer_than_the_lease_is_not_taken_by_an_idle_worker(queue: Queue) -> None:
    job_id = submit(queue, Sleeper, seconds=2.5 * LEASE_S, steps=2)
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("1", "0")


def test_a_job_that_holds_the_gil_past_the_lease_is_not_taken(queue: Queue) -> None:
    job_id = submit(queue, GilHolder, seconds=2.5 * LEASE_S)
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("1", "0")


def test_a_running_job_is_cancelled_within_one_of_its_steps(queue: Queue) -> None:
    job_id = submit(queue, Sleeper, seconds=60, steps=600)
    wait_status(queue, job_id, "running")
    asked = time.monotonic()
    assert queue.cancel(job_id) == "cancelling"
    wait_status(queue, job_id, "cancelled")
    assert time.monotonic() - asked < 1.0
    assert types(queue, job_id) == ["queued", "started", "cancelled"]


def test_a_job_deaf_to_cancel_is_killed_after_the_grace_period(queue: Queue) -> None:
    job_id = submit(queue, Deaf, seconds=60)
    wait_until(lambda: any(isinstance(event, Progress) for event in events(queue, job_id)))
    asked = time.monotonic()
    queue.cancel(job_id)
    wait_status(queue, job_id, "cancelled")
    assert GRACE_S <= time.monotonic() - asked < GRACE_S + 2
    after = submit(queue, Noop)
    wait_status(queue, after, "completed")


def test_a_failure_that_may_pass_is_retried_and_then_ends_the_job(queue: Queue) -> None:
    job_id = submit(queue, Raiser, prompt="delivery_failed")
    row = wait_status(queue, job_id, "failed")
    assert (row["attempt"], row["retries"], row["crashes"]) == ("3", "2", "0")
    end = events(queue, job_id)[-1]
    assert isinstance(end, Failed)
    assert end.code == "delivery_failed"


@pytest.mark.parametrize("prompt", ["out_of_memory", "anything else"])
def test_a_failure_that_will_not_pass_ends_the_job_at_once(queue: Queue, prompt: str) -> None:
    job_id = submit(queue, Raiser, prompt=prompt)
    wait_status(queue, job_id, "failed")
    assert types(queue, job_id) == ["queued", "started", "failed"]


def test_a_job_whose_process_died_runs_again_at_once(queue: Queue, module_pods: Pods) -> None:
    job_id = submit(queue, Crasher, prompt=str(module_pods.folder / "once"))
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("2", "1")
    (told,) = [event for event in events(queue, job_id) if isinstance(event, Requeued)]
    assert told.reason == "the engine process died (signal 9)"


def test_a_worker_tells_what_it_is_and_does(queue: Queue) -> None:
    def busy() -> list[WorkerState]:
        return [worker for worker in queue.workers() if worker.state == "busy"]

    job_id = submit(queue, Sleeper, seconds=1)
    (worker,) = wait_until(busy)
    assert worker.id in {"a", "b"}
    assert worker.job_id == job_id
    assert worker.device
    assert worker.device.name == "test"
    wait_status(queue, job_id, "completed")


def test_weights_that_arrive_while_the_worker_runs_are_told(
    queue: Queue, module_pods: Pods
) -> None:
    row = catalog.model("wan2.2-i2v-a14b")
    demos = tuple(model.id for model in catalog.MODELS if model.demo)

    def told() -> set[tuple[str, ...]]:
        return {worker.models for worker in queue.workers()}

    wait_until(lambda: told() == {demos})
    for file in row.files:
        path = module_pods.folder / "models" / "base" / file.repo / file.pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    wait_until(lambda: told() == {(row.id, *demos)})
