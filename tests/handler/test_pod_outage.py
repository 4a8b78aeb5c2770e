"""The server goes away while workers work: killed, gone for longer than the lease, or emptied."""

from __future__ import annotations

import threading

import pytest

from core.queue import Queue
from tests.support.pods import Pods, module_pods, state, submit, types, wait_status
from tests.support.valkey import LEASE_S, Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until
from tests.support.workflows import Noop, Sleeper

__all__ = ["module_pods", "module_valkey", "queue", "valkey"]

AWAY_S = 4.0
assert AWAY_S > 2 * LEASE_S


pytestmark = pytest.mark.usefixtures("module_pods")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 3.0, 4.0, 4.5, 5.0, 7.0])
def test_an_outage_longer_than_the_lease_costs_no_attempt(
    queue: Queue, valkey: Valkey, module_pods: Pods, seconds: float
) -> None:
    job_id = submit(queue, Sleeper, seconds=seconds, steps=20)
    wait_status(queue, job_id, "running")
    valkey.kill()
    threading.Event().wait(AWAY_S)  # the outage itself, not a wait for something
    valkey.start()
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("1", "0")
    assert types(queue, job_id) == ["queued", "started", "completed"]
    assert module_pods.alive("a")
    assert module_pods.alive("b")


def test_a_job_outlives_a_killed_server(queue: Queue, valkey: Valkey) -> None:
    job_id = submit(queue, Sleeper, seconds=2, steps=20)
    wait_status(queue, job_id, "running")
    valkey.kill()
    valkey.start()
    row = wait_status(queue, job_id, "completed")
    assert (row["attempt"], row["crashes"]) == ("1", "0")


def test_waiting_jobs_are_done_after_a_restart(queue: Queue, valkey: Valkey) -> None:
    busy = [submit(queue, Sleeper, seconds=2) for _ in "ab"]
    for job_id in busy:
        wait_status(queue, job_id, "running")
    waiting = [submit(queue, Noop) for _ in range(4)]
    valkey.kill()
    valkey.start()
    for job_id in [*busy, *waiting]:
        assert wait_status(queue, job_id, "completed")["attempt"] == "1"


def test_workers_go_on_when_the_server_lost_its_data(queue: Queue) -> None:
    lost = submit(queue, Sleeper, seconds=60, steps=600)
    wait_status(queue, lost, "running")
    queue.client.flushall()
    jobs = [submit(queue, Noop) for _ in range(4)]
    for job_id in jobs:
        wait_status(queue, job_id, "completed")
    wait_until(lambda: all(state(queue, worker) == "ready" for worker in "ab"))
