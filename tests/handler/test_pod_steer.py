"""Plans on their way to a running engine: at once, missed, and while no worker has the job."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.protocol import Clip, Event, Plan, Progress, Requeued
from core.queue import Queue
from core.queue_keys import CONTROL
from tests.support.pods import Pods, events, pods, submit, wait_status
from tests.support.valkey import Valkey, module_valkey, queue, valkey
from tests.support.wait import wait_until
from tests.support.workflows import Clips

__all__ = ["module_valkey", "pods", "queue", "valkey"]


def clips_in(told: Sequence[Event]) -> list[Clip]:
    return [event for event in told if isinstance(event, Clip)]


def clips(queue: Queue, job_id: str) -> list[tuple[int, str]]:
    return [(clip.index, clip.prompt) for clip in clips_in(events(queue, job_id))]


def begun(queue: Queue, job_id: str) -> int | None:
    """The clip that is being made."""
    progress = [event for event in events(queue, job_id) if isinstance(event, Progress)]
    return progress[-1].clip if progress else None


class Gate:
    """Lets an endless job's clips be done one by one."""

    def __init__(self, queue: Queue, folder: Path) -> None:
        self._queue = queue
        self._folder = folder
        self.job_id = submit(queue, Clips, prompts=["a"], endless=True, prompt=str(folder))
        self.until_begun(0)

    def let_pass(self, index: int) -> None:
        """Clip `index` is done, and the next one begins."""
        self.open(index)
        self.until_begun(index + 1)

    def open(self, *indexes: int) -> None:
        """These clips need not wait."""
        for index in indexes:
            (self._folder / str(index)).touch()

    def until_begun(self, index: int) -> None:
        """Until clip `index` is being made."""
        wait_until(lambda: begun(self._queue, self.job_id) == index, 20)


@pytest.fixture
def gate(queue: Queue, pods: Pods, tmp_path: Path) -> Gate:
    """A job whose first clip was begun by the worker "a"."""
    pods.start(queue, "a")
    folder = tmp_path / "gate"
    folder.mkdir()
    return Gate(queue, folder)


def plan(rev: int, **values: Any) -> Plan:
    return Plan(prompts=("a", "b"), num_clips=3, rev=rev).model_copy(update=values)


def test_a_running_job_makes_what_it_is_told_while_it_runs(queue: Queue, gate: Gate) -> None:
    job_id = gate.job_id
    assert queue.steer(job_id, plan(1), 0) == "steered"
    gate.let_pass(0)
    assert queue.steer(job_id, plan(2, prompts=("a", "b", "c"), num_clips=None), 1) == "steered"
    gate.let_pass(1)
    gate.let_pass(2)
    assert queue.steer(job_id, plan(3, prompts=("a", "b", "c", "d"), finish=True), 2) == "steered"
    gate.open(3, 4)
    wait_status(queue, job_id, "completed")
    assert clips(queue, job_id) == [(0, "a"), (1, "b"), (2, "c"), (3, "c")]


def test_a_change_that_the_worker_missed_is_found_by_a_beat(queue: Queue, gate: Gate) -> None:
    queue.client.client_kill_filter(_type="pubsub")
    assert not queue.client.pubsub_channels(CONTROL)
    assert queue.steer(gate.job_id, plan(1, finish=True), 0) == "steered"
    wait_until(lambda: queue.client.pubsub_channels(CONTROL))
    gate.open(*range(100))
    wait_status(queue, gate.job_id, "completed")
    assert len(clips(queue, gate.job_id)) < 100


@pytest.mark.slow
def test_a_job_of_a_lost_worker_goes_on_with_what_was_asked_meanwhile(
    queue: Queue, pods: Pods, valkey: Valkey, gate: Gate
) -> None:
    valkey.wait_until_leases_count()
    gate.let_pass(0)
    pods.signal("a", signal.SIGKILL)
    pods.wait("a")
    assert queue.steer(gate.job_id, plan(1, prompts=("a", "y", "z")), 0) == "steered"
    pods.start(queue, "b")
    gate.open(1, 2)
    assert wait_status(queue, gate.job_id, "completed")["attempt"] == "2"
    told = events(queue, gate.job_id)
    (requeued,) = [index for index, event in enumerate(told) if isinstance(event, Requeued)]
    before, after = clips_in(told[:requeued]), clips_in(told[requeued:])
    assert [(clip.index, clip.prompt) for clip in after] == [(0, "a"), (1, "y"), (2, "z")]
    assert [clip.artifact for clip in before] == [after[0].artifact], "found, not made again"
