"""Leases and restarts of the server, without workers: who may take what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BackendUnavailable, ConfigError
from core.protocol import Completed, Job
from core.queue import Claim, Queue
from core.queue_keys import GROUP, PULSE, lane_key
from tests.support.valkey import LEASE_S, RULES, Valkey, leaked
from tests.support.wait import wait_until


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of its own for each test."""
    server = Valkey(tmp_path)
    yield server
    server.close()


@pytest.fixture
def queue(valkey: Valkey) -> Iterator[Queue]:
    made = Queue.connect(valkey.url, RULES)
    made.prepare()
    yield made
    made.client.close()


def taken(queue: Queue, worker: str) -> Claim:
    claim = wait_until(lambda: queue.take(worker, block_s=0.05), timeout_s=LEASE_S + 5)
    assert claim
    return claim


def job() -> Job:
    return Job(workflow="noop", params={})


@pytest.mark.slow
def test_a_silent_owner_loses_its_job_and_three_bury_it(queue: Queue, valkey: Valkey) -> None:
    valkey.wait_until_leases_count()
    only = job()
    queue.enqueue(only)
    claims = [taken(queue, f"w{n}") for n in range(3)]
    assert [claim.crashes for claim in claims] == [0, 1, 2]
    wait_until(lambda: not queue.take("w4", 0.05) and queue.job(only.id)["status"] == "failed")
    types = [event.type for _, event in queue.events(only.id)]
    assert types == ["queued", *["started", "requeued"] * 2, "started", "failed"]
    end = Completed(job_id=only.id, artifacts=())
    assert {queue.finish(claim, end) for claim in claims} == {"refused"}
    assert {queue.beat(claim) for claim in claims} == {"lost"}
    assert leaked(queue.client) == {}


def test_a_lost_job_behind_many_live_ones_is_found(queue: Queue, valkey: Valkey) -> None:
    jobs = [job() for _ in range(30)]
    for each in jobs:
        queue.enqueue(each)
    *live, silent = [taken(queue, f"w{n}") for n in range(30)]
    valkey.wait_until_leases_count()

    def again() -> Claim | None:
        for claim in live:
            queue.beat(claim)
        return queue.take("new", block_s=0)

    found = wait_until(again, timeout_s=LEASE_S + 5)
    assert found
    assert found.job.id == silent.job.id


def test_nothing_is_taken_right_after_nobody_could_reach_the_server_for_long(
    queue: Queue, valkey: Valkey
) -> None:
    """A server that was stopped, a machine that slept: no restart, but every lease is over."""
    valkey.wait_until_leases_count()
    queue.enqueue(job())
    claim = taken(queue, "owner")
    wait_until(lambda: idle_ms(queue) > LEASE_S * 1000, timeout_s=LEASE_S + 5)
    queue.client.set(PULSE, 1)
    assert queue.take("other", block_s=0) is None
    assert queue.beat(claim) == "go"
    again = taken(queue, "other")
    assert (again.job.id, again.crashes) == (claim.job.id, 1)


def idle_ms(queue: Queue) -> int:
    pending = queue.client.xpending_range(lane_key("normal"), GROUP, "-", "+", 1)
    return int(pending[0]["time_since_delivered"])


def test_nothing_is_taken_from_its_owner_right_after_a_restart(
    queue: Queue, valkey: Valkey
) -> None:
    queue.enqueue(job())
    claim = taken(queue, "w1")
    valkey.wait_until_leases_count()
    valkey.kill()
    valkey.start()
    assert queue.take("w2", block_s=0) is None
    assert queue.beat(claim) == "go"


def test_a_running_job_without_a_living_owner_is_cancelled_at_once(
    queue: Queue, valkey: Valkey
) -> None:
    queue.enqueue(job())
    claim = taken(queue, "w1")
    valkey.wait_until_leases_count()
    wait_until(lambda: queue.client.xpending_range(
        lane_key("normal"), GROUP, "-", "+", 1, idle=int(LEASE_S * 1000) + 1
    ))  # fmt: skip
    assert queue.cancel(claim.job.id) == "cancelled"


def test_the_queue_survives_a_killed_server(queue: Queue, valkey: Valkey) -> None:
    jobs = [job() for _ in range(20)]
    for each in jobs:
        queue.enqueue(each)
    valkey.kill()
    valkey.start()
    assert queue.client.xlen(lane_key("normal")) == 20
    assert [taken(queue, "w1").job.id for _ in jobs] == [each.id for each in jobs]


def test_calls_say_that_the_server_is_away(queue: Queue, valkey: Valkey) -> None:
    valkey.kill()
    with pytest.raises(BackendUnavailable, match="can't be reached"):
        queue.take("w1")
    with pytest.raises(BackendUnavailable, match="can't be reached"):
        queue.workers()


def test_a_full_server_refuses_jobs_and_still_ends_those_it_has(
    queue: Queue, valkey: Valkey
) -> None:
    queue.enqueue(job())
    claim = taken(queue, "w1")
    queue.client.config_set("maxmemory", 1)
    with pytest.raises(BackendUnavailable, match="can't write"):
        queue.enqueue(job())
    assert queue.beat(claim) == "go"
    assert queue.finish(claim, Completed(job_id=claim.job.id, artifacts=())) == "completed"


def test_a_malformed_address_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="DIFFBOX_VALKEY_URL"):
        Queue.connect("valkey.example:6379")
