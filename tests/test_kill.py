"""kill -9 of every part of a running diffbox, in the middle of a job.

Each time the job ends once, as it should, and every part is there again exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import Stack, running_stack
from tests.support.wait import wait_until

pytestmark = [pytest.mark.serial, pytest.mark.timeout(240)]

PARTS = ("engine", "worker", "valkey", "page")
WHOLE = Counter(up=1, valkey=1, worker=1, engine=1, page=1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def outputs(stack: Stack, record: dict[str, Any]) -> list[Path]:
    return [stack.folder / artifact["url"].removeprefix("/") for artifact in record["artifacts"]]


@pytest.mark.parametrize("part", PARTS)
def test_the_job_completes_once_after_kill_9_of(part: str, stack: Stack) -> None:
    job = stack.submit("sleeper", seconds=3, steps=30)
    stack.until_working(job)
    stack.kill(part)
    record = stack.until(job, "completed", "failed", "cancelled", timeout_s=90)
    assert record["status"] == "completed", record["error"]
    assert stack.terminal_events(job) == ["completed"]
    assert all(path.is_file() for path in outputs(stack, record))
    wait_until(lambda: stack.count() == WHOLE, 30)


@pytest.mark.parametrize("part", PARTS)
def test_a_cancelled_job_is_cancelled_once_although_kill_9_hits(part: str, stack: Stack) -> None:
    """Deaf does not listen, so the kill comes between the wish and the end."""
    job = stack.submit("deaf", seconds=60)
    wait_until(lambda: stack.job(job).get("progress", {}).get("stage") == "denoising", 60)
    stack.request("DELETE", f"/api/jobs/{job}")
    stack.kill(part)
    record = stack.until(job, "completed", "failed", "cancelled", timeout_s=90)
    assert record["status"] == "cancelled"
    assert stack.terminal_events(job) == ["cancelled"]
    wait_until(lambda: stack.count() == WHOLE, 30)


def test_a_job_survives_kill_9_of_diffbox_up_and_its_next_start(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        running = stack.submit("sleeper", seconds=3, steps=30)
        waiting = stack.submit("sleeper")
        stack.until_working(running)
        stack.kill("up")
        wait_until(lambda: stack.parts() == {})
        stack.start()
        for job in (running, waiting):
            record = stack.until(job, "completed", "failed", "cancelled", timeout_s=90)
            assert record["status"] == "completed"
            assert stack.terminal_events(job) == ["completed"]
        assert stack.stop() == 0
        assert stack.parts() == {}


def test_a_stop_gives_the_running_job_back_and_the_next_start_completes_it(tmp_path: Path) -> None:
    with running_stack(tmp_path, DIFFBOX_DRAIN_S="0.2", DIFFBOX_GRACE_S="1") as stack:
        job = stack.submit("sleeper", seconds=3, steps=30)
        stack.until_working(job)
        assert stack.stop() == 0
        assert stack.parts() == {}
        stack.start()
        assert stack.until(job, "completed", "failed", "cancelled")["status"] == "completed"
        assert stack.terminal_events(job) == ["completed"]
