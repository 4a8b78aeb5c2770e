"""What every backend does, whatever is behind it: one suite over all of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from controlplane.backends.base import Backend
from controlplane.backends.valkey import ValkeyBackend
from core.errors import QueueFull
from core.protocol import (
    Clip,
    Completed,
    Failed,
    Plan,
    Progress,
    Started,
    Steered,
    WorkerState,
)
from core.queue import Queue
from tests.support.backends import Place, Recorder, memory_backend, new_job
from tests.support.pods import Pods, state
from tests.support.valkey import RULES, Valkey, module_valkey  # noqa: F401
from tests.support.wait import wait_until_async
from tests.support.workflows import Clips, Crasher, Deaf, Noop, Raiser, Sleeper


@pytest.fixture(scope="module")
def one_worker(
    module_valkey: Valkey,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], str]]:
    """A queue with one worker; a call gives its address, and a new worker for an unhealthy one."""
    pods = Pods(module_valkey.url, tmp_path_factory.mktemp("pods"))
    queue = Queue.connect(module_valkey.url, RULES)
    queue.prepare()
    names = [f"worker-{number}" for number in range(9)]
    pods.start(queue, names[0])

    def address() -> str:
        if state(queue, names[0]) == "unhealthy":
            pods.signal(names[0], signal.SIGKILL)
            pods.wait(names.pop(0))
            pods.start(queue, names[0])
        return module_valkey.url

    yield address
    queue.client.close()
    pods.close()


@pytest.fixture(params=["memory", "valkey"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A started backend with one ready worker."""
    backend: Backend
    if request.param == "memory":
        backend = memory_backend(tmp_path, RULES)
    else:
        backend = ValkeyBackend(request.getfixturevalue("one_worker")(), RULES)
    recorder = Recorder()
    await backend.start(recorder)
    try:
        await wait_until_async(lambda: "ready" in [w.state for w in backend.workers()], 30)
        yield Place(backend, recorder)
    finally:
        await backend.close()


async def test_a_job_is_queued_started_and_completed(place: Place) -> None:
    job_id = await place.submit(Noop)
    await place.ended(job_id)
    assert place.recorder.types(job_id) == ["queued", "started", "completed"]


async def test_events_are_numbered_from_one_without_a_gap(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=0.5)
    events = await place.ended(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(set(place.recorder.cursors(job_id))) == len(events)


async def test_progress_comes_between_start_and_end_and_never_falls(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=0.5)
    events = await place.ended(job_id)
    progress = [event.fraction for event in events if isinstance(event, Progress)]
    assert progress and progress == sorted(progress)
    assert isinstance(events[1], Started) and isinstance(events[-1], Completed)
    assert events[-1].artifacts[0].kind == "video"


async def test_all_events_can_be_read_again_from_the_start(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=0.3)
    events = await place.ended(job_id)
    assert [stored.event for stored in await place.backend.events(job_id)] == list(events)


async def test_events_can_be_read_from_a_cursor_on(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=0.3)
    events = await place.ended(job_id)
    second = place.recorder.cursors(job_id)[1]
    assert [s.event for s in await place.backend.events(job_id, second)] == list(events[2:])


async def test_a_wrong_cursor_is_the_start(place: Place) -> None:
    job_id = await place.submit(Noop)
    await place.ended(job_id)
    assert len(await place.backend.events(job_id, "nonsense")) == 3


async def test_a_waiting_job_is_cancelled_without_a_start(place: Place) -> None:
    first = await place.submit(Sleeper, seconds=60)
    await place.until(first, "started")
    second = await place.submit(Noop)
    await place.backend.cancel(second)
    await place.ended(second)
    assert place.recorder.types(second) == ["queued", "cancelled"]
    await place.backend.cancel(first)
    await place.ended(first)


async def test_a_running_job_is_cancelled(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(job_id, "progress")
    await place.backend.cancel(job_id)
    await place.ended(job_id)
    assert place.recorder.types(job_id) == ["queued", "started", "cancelled"]


async def test_a_job_that_ignores_cancel_is_killed_and_the_next_one_runs(place: Place) -> None:
    job_id = await place.submit(Deaf, seconds=60)
    await place.until(job_id, "progress")
    await place.backend.cancel(job_id)
    await place.ended(job_id)
    assert place.recorder.types(job_id)[-1] == "cancelled"
    after = await place.submit(Noop)
    assert isinstance((await place.ended(after))[-1], Completed)


async def test_a_second_cancel_and_one_of_an_unknown_job_do_nothing(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(job_id, "progress")
    await place.backend.cancel(job_id)
    await place.backend.cancel(job_id)
    await place.ended(job_id)
    await place.backend.cancel(job_id)
    await place.backend.cancel("nobody")
    stored = await place.backend.events(job_id)
    assert [s.event.type for s in stored].count("cancelled") == 1


async def test_a_job_that_is_submitted_twice_runs_once(place: Place) -> None:
    job = new_job(Noop)
    await place.backend.submit(job)
    await place.ended(job.id)
    await place.backend.submit(job)
    stored = await place.backend.events(job.id)
    assert [s.event.type for s in stored] == ["queued", "started", "completed"]


async def test_a_job_whose_process_died_runs_again(place: Place, tmp_path: Path) -> None:
    job_id = await place.submit(Crasher, prompt=str(tmp_path / "died"))
    events = await place.ended(job_id)
    assert place.recorder.types(job_id) == [
        *("queued", "started", "requeued", "started", "completed")
    ]
    assert [e.attempt for e in events if isinstance(e, Started)] == [1, 2]


async def test_a_job_that_kills_three_processes_fails_as_worker_lost(place: Place) -> None:
    job_id = await place.submit(Crasher)
    events = await place.ended(job_id)
    assert place.recorder.types(job_id).count("requeued") == 2
    last = events[-1]
    assert isinstance(last, Failed) and last.code == "worker_lost" and last.retryable


@pytest.mark.parametrize(
    ("prompt", "code"), [("out_of_memory", "out_of_memory"), ("a bug", "internal")]
)
async def test_an_error_arrives_with_its_code(place: Place, prompt: str, code: str) -> None:
    job_id = await place.submit(Raiser, prompt=prompt)
    last = (await place.ended(job_id))[-1]
    assert isinstance(last, Failed) and last.code == code and not last.retryable
    assert place.recorder.types(job_id) == ["queued", "started", "failed"]


async def test_an_error_that_may_pass_is_tried_again_before_it_counts(place: Place) -> None:
    job_id = await place.submit(Raiser, prompt="delivery_failed")
    last = (await place.ended(job_id))[-1]
    assert isinstance(last, Failed) and last.code == "delivery_failed" and last.retryable
    assert place.recorder.types(job_id).count("requeued") == RULES.max_retries


async def test_a_full_lane_refuses_and_leaves_the_other_lanes_open(place: Place) -> None:
    first = await place.submit(Sleeper, "high", seconds=60, steps=600)
    await place.until(first, "started")
    waiting = [await place.submit(Noop, "low") for _ in range(RULES.lane_limit)]
    with pytest.raises(QueueFull, match="low"):
        await place.submit(Noop, "low")
    lengths = await place.backend.queue_lengths()
    assert lengths == {"high": 1, "normal": 0, "low": RULES.lane_limit}
    other = await place.submit(Noop)
    for job_id in [*waiting, first]:
        await place.backend.cancel(job_id)
    assert isinstance((await place.ended(other))[-1], Completed)


async def test_the_high_lane_goes_before_normal_before_low(place: Place) -> None:
    first = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(first, "started")
    ids = [await place.submit(Sleeper, lane, seconds=0.05) for lane in ("low", "normal", "high")]
    await place.backend.cancel(first)
    started = {e.at: i for i in ids for e in await place.ended(i) if e.type == "started"}
    assert [started[at] for at in sorted(started)] == ids[::-1]


async def test_a_worker_says_what_it_is_busy_with(place: Place) -> None:
    job_id = await place.submit(Sleeper, seconds=60, steps=600)

    def busy() -> list[WorkerState]:
        return [worker for worker in place.backend.workers() if worker.job_id == job_id]

    [worker] = await wait_until_async(busy)
    assert worker.state == "busy" and "wan-demo" in worker.models
    await place.backend.cancel(job_id)
    await place.ended(job_id)


async def test_forgetting_drops_ended_jobs_and_no_others(place: Place) -> None:
    ended = await place.submit(Noop)
    await place.ended(ended)
    running = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(running, "started")
    await place.backend.forget([ended, running, "nobody"])
    known = await place.backend.job_ids()
    assert ended not in known and running in known
    assert await place.backend.events(ended) == [] and await place.backend.events(running)
    await place.backend.cancel(running)
    await place.ended(running)


async def test_a_submitted_job_is_known_as_it_was_submitted(place: Place) -> None:
    job = new_job(Noop, "high", prompt="hello")
    await place.backend.submit(job)
    await place.ended(job.id)
    assert job.id in await place.backend.job_ids()
    known = await place.backend.job(job.id)
    assert known and known.model_copy(update={"attempt": 0}) == job
    assert await place.backend.job("nobody") is None


PLAN = Plan(prompts=("a", "b"), num_clips=2, rev=1)


async def test_a_waiting_job_begins_with_the_plan_that_it_was_given(place: Place) -> None:
    first = await place.submit(Sleeper, "high", seconds=60, steps=600)
    await place.until(first, "started")
    job_id = await place.submit(Clips)
    assert await place.backend.steer(job_id, PLAN, 0) == "steered"
    known = await place.backend.job(job_id)
    assert known and known.plan == PLAN
    await place.backend.cancel(first)
    events = await place.ended(job_id)
    assert [event.prompt for event in events if isinstance(event, Clip)] == ["a", "b"]
    assert place.recorder.types(job_id)[:3] == ["queued", "steered", "started"]


async def test_a_running_job_goes_on_with_the_plan_that_it_is_given(
    place: Place, tmp_path: Path
) -> None:
    job_id = await place.submit(Clips, endless=True, prompt=str(tmp_path))
    await place.until(job_id, "progress")
    plan = PLAN.model_copy(update={"num_clips": 100})
    assert await place.backend.steer(job_id, plan, 0) == "steered"
    for index in range(100):
        (tmp_path / str(index)).touch()
    events = await place.ended(job_id)
    assert isinstance(events[-1], Completed)
    assert [event.plan for event in events if isinstance(event, Steered)] == [plan]
    clips = [event.prompt for event in events if isinstance(event, Clip)]
    assert len(clips) == 100 and clips[0] == "a" and clips[-1] == "b"


async def test_of_two_who_steer_at_once_one_is_told_that_he_knows_an_old_plan(
    place: Place,
) -> None:
    first = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(first, "started")
    job_id = await place.submit(Clips, "low")
    other = PLAN.model_copy(update={"prompts": ("x",)})
    replies = await asyncio.gather(
        place.backend.steer(job_id, PLAN, 0), place.backend.steer(job_id, other, 0)
    )
    assert sorted(replies) == ["stale", "steered"]
    known = await place.backend.job(job_id)
    assert known and known.plan == (PLAN if replies[0] == "steered" else other)
    for waiting in (job_id, first):
        await place.backend.cancel(waiting)
    await place.ended(first)


async def test_what_cannot_be_steered_says_why(place: Place) -> None:
    job_id = await place.submit(Clips)
    await place.ended(job_id)
    assert await place.backend.steer(job_id, PLAN, 0) == "completed"
    assert await place.backend.steer("nobody", PLAN, 0) == "missing"
    running = await place.submit(Sleeper, seconds=60, steps=600)
    await place.until(running, "started")
    assert await place.backend.steer(running, PLAN, 0) == "stale"
    await place.backend.cancel(running)
    await place.ended(running)
    assert await place.backend.steer(running, PLAN, 0) == "cancelled"
