"""Workers that die, hang, stop or are told to stop. Real processes, one set a test."""

from __future__ import annotations

import signal

import pytest

from core.protocol import Failed, Requeued
from core.queue import Queue
from tests.support.pods import Pods, events, pods, state, submit, types, wait_status
from tests.support.valkey import Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until
from tests.support.workflows import Crasher, Deaf, Noop, Sleeper

__all__ = ["module_valkey", "pods", "queue", "valkey"]


@pytest.fixture(autouse=True)
def leases_count(valkey: Valkey) -> None:
    """A server that was just started takes nothing from anybody."""
    valkey.wait_until_leases_count()


@pytest.mark.slow
def test_a_job_that_kills_three_processes_is_buried_and_the_worker_rests(
    queue: Queue, pods: Pods
) -> None:
    pods.start(queue, "a")
    job_id = submit(queue, Crasher)
    row = wait_status(queue, job_id, "failed", 30)
    assert (row["attempt"], row["crashes"]) == ("3", "3")
    assert types(queue, job_id).count("failed") == 1
    end = events(queue, job_id)[-1]
    assert isinstance(end, Failed)
    assert end.code == "worker_lost"
    wait_until(lambda: state(queue, "a") == "unhealthy")


@pytest.mark.slow
def test_the_job_of_a_killed_worker_is_done_by_another(queue: Queue, pods: Pods) -> None:
    pods.start(queue, "a")
    job_id = submit(queue, Sleeper, seconds=2)
    wait_status(queue, job_id, "running")
    pods.signal("a", signal.SIGKILL)
    pods.wait("a")
    wait_until(lambda: not pods.processes())
    pods.start(queue, "b")
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("2", "1")
    assert types(queue, job_id) == ["queued", "started", "requeued", "started", "completed"]


@pytest.mark.slow
def test_a_stalled_worker_loses_its_job_and_can_not_finish_it(queue: Queue, pods: Pods) -> None:
    pods.start(queue, "a", "b")
    job_id = submit(queue, Sleeper, seconds=3)
    owner = wait_status(queue, job_id, "running")["owner"]
    pods.signal(owner, signal.SIGSTOP)
    wait_until(lambda: queue.job(job_id)["owner"] not in {owner, ""})
    pods.signal(owner, signal.SIGCONT)
    row = wait_status(queue, job_id, "completed")
    assert row["attempt"] == "2"
    wait_until(lambda: state(queue, owner) == "ready")
    assert types(queue, job_id) == ["queued", "started", "requeued", "started", "completed"]


def test_a_stopped_worker_gives_its_job_back_without_blame(queue: Queue, pods: Pods) -> None:
    pods.start(queue, "a", DIFFBOX_DRAIN_S="0.3")
    job_id = submit(queue, Sleeper, seconds=60, steps=600)
    wait_status(queue, job_id, "running")
    pods.signal("a", signal.SIGTERM)
    assert pods.wait("a") == 0
    row = queue.job(job_id)
    assert (row["status"], row["crashes"], row["retries"]) == ("queued", "0", "0")
    told = events(queue, job_id)[-1]
    assert isinstance(told, Requeued)
    assert told.reason == "worker a stops"


def test_a_stopped_worker_gives_a_deaf_job_back_after_the_grace_period(
    queue: Queue, pods: Pods
) -> None:
    pods.start(queue, "a", DIFFBOX_DRAIN_S="0")
    job_id = submit(queue, Deaf, seconds=60)
    wait_status(queue, job_id, "running")
    pods.signal("a", signal.SIGTERM)
    assert pods.wait("a") == 0
    assert types(queue, job_id) == ["queued", "started", "requeued"]


def test_a_stopped_worker_ends_a_job_that_is_nearly_done(queue: Queue, pods: Pods) -> None:
    pods.start(queue, "a", DIFFBOX_DRAIN_S="20")
    job_id = submit(queue, Sleeper, seconds=1)
    wait_status(queue, job_id, "running")
    waits = submit(queue, Noop)
    pods.signal("a", signal.SIGTERM)
    assert pods.wait("a") == 0
    assert queue.job(job_id)["status"] == "completed"
    assert queue.job(waits)["status"] == "queued", "it takes no further job"


def test_an_idle_worker_ends_and_is_forgotten(queue: Queue, pods: Pods) -> None:
    pods.start(queue, "a")
    assert '"event": "ready"' in pods.log("a")
    pods.signal("a", signal.SIGTERM)
    assert pods.wait("a") == 0
    assert queue.workers() == []
    wait_until(lambda: not pods.processes())


def test_a_wrong_setting_ends_the_worker_and_is_named(queue: Queue, pods: Pods) -> None:
    pods.spawn("a", DIFFBOX_LEASE_S="soon")
    assert pods.wait("a") == 78
    assert "DIFFBOX_LEASE_S='soon'" in pods.log("a")


def test_a_worker_waits_for_a_server_that_is_not_there_yet(
    queue: Queue, pods: Pods, valkey: Valkey
) -> None:
    valkey.kill()
    pods.spawn("a")
    wait_until(lambda: "the queue is away" in pods.log("a"))
    valkey.start()
    job_id = submit(queue, Noop)
    wait_status(queue, job_id, "completed")
