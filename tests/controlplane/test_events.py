"""The WebSocket: snapshots, then what happens, in order; slow clients hold up nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from controlplane.events import Client, message_for, stage_text
from controlplane.jobs import Jobs
from controlplane.records import JobRecord, new_record
from core.protocol import Job, Progress, Stage
from tests.support.server import Served, serving_api


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_api(tmp_path_factory.mktemp("api")) as served:
        yield served


def ask(socket: ClientConnection, kind: str, *job_ids: str) -> None:
    socket.send(json.dumps({"type": kind, "job_ids": job_ids}))


def read(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(timeout=20))
    return message


def read_until(socket: ClientConnection, *types: str) -> list[dict[str, Any]]:
    messages = [read(socket)]
    while messages[-1]["type"] not in types:
        messages.append(read(socket))
    return messages


def test_a_job_is_told_from_its_start_to_its_end_in_order(api: Served) -> None:
    with api.ws() as socket:
        ask(socket, "subscribe", "*")
        read(socket)
        job_id = api.submit("sleeper", seconds=0.5)
        messages = read_until(socket, "job:complete")
    types = list(dict.fromkeys(message["type"] for message in messages))
    assert types == ["job:queued", "job:started", "job:progress", "job:complete"]
    assert messages[0]["job"]["id"] == job_id
    assert [m["seq"] for m in messages] == sorted(m["seq"] for m in messages)
    last = messages[-1]
    assert last["job_id"] == job_id and last["output"]["type"] == "video"
    assert last["output"]["path"] == last["artifacts"][0]["url"] and last["output"]["frames"] == 5


def test_progress_has_a_fraction_and_words(api: Served) -> None:
    with api.ws() as socket:
        ask(socket, "subscribe", "*")
        api.submit("sleeper", seconds=0.5)
        messages = read_until(socket, "job:complete")
    progress = [m for m in messages if m["type"] == "job:progress" and m["step"]]
    assert 0 < progress[0]["progress"] < 1 and progress[0]["stage"].startswith("Denoising step ")
    assert progress[0]["steps"] == 10 and progress[0]["stage_id"] == "denoising"


def test_a_failed_and_a_cancelled_job_are_told(api: Served) -> None:
    with api.ws() as socket:
        ask(socket, "subscribe", "*")
        api.submit("raiser", prompt="out_of_memory")
        error = read_until(socket, "job:error")[-1]
        assert error["code"] == "out_of_memory" and error["error"] and not error["retryable"]
        job_id = api.submit("sleeper", seconds=60, steps=600)
        read_until(socket, "job:started")
        api.http.delete(f"/api/jobs/{job_id}")
        messages = read_until(socket, "job:cancelled")
    asked = [m for m in messages if m["type"] == "job:snapshot"]
    assert asked[0]["jobs"][0]["cancel_requested"] and messages[-1]["job_id"] == job_id


def test_a_snapshot_shows_what_was_before(api: Served) -> None:
    job_id = api.submit("noop")
    api.until(job_id, "completed")
    with api.ws() as socket:
        ask(socket, "subscribe", job_id, "nobody")
        assert [job["id"] for job in read(socket)["jobs"]] == [job_id]
        ask(socket, "subscribe", "*")
        jobs = read(socket)["jobs"]
    ids = [job["id"] for job in jobs]
    assert job_id in ids and ids == sorted(ids, reverse=True)


def test_only_subscribed_jobs_are_told(api: Served) -> None:
    with api.ws() as socket:
        first = api.submit("sleeper", seconds=0.3)
        ask(socket, "subscribe", first)
        second = api.submit("sleeper", seconds=0.3)
        messages = read_until(socket, "job:complete")
        ask(socket, "subscribe", second)
        assert [job["id"] for job in read(socket)["jobs"]] == [second]
        ask(socket, "unsubscribe", second)
        api.until(second, "completed")
        ask(socket, "subscribe", first)
        assert [job["id"] for job in read_until(socket, "job:snapshot")[-1]["jobs"]] == [first]
    assert second not in [message.get("job_id") for message in messages]


@pytest.mark.parametrize(
    "sent",
    [
        *("{", "[]", '"a"', b"\x00", '{"type": "subscribe"}', '{"type": "x", "job_ids": []}'),
        '{"type": "subscribe", "job_ids": [1]}',
        json.dumps({"type": "subscribe", "job_ids": ["a"] * 1001}),
    ],
)
def test_a_wrong_message_is_answered_and_the_connection_stays(
    api: Served, sent: str | bytes
) -> None:
    with api.ws() as socket:
        socket.send(sent)
        assert read(socket)["type"] == "error"
        ask(socket, "subscribe", "*")
        assert read(socket)["type"] == "job:snapshot"


def test_clips_and_plans_are_told_as_they_come(api: Served, tmp_path: Path) -> None:
    with api.ws() as socket:
        ask(socket, "subscribe", "*")
        read(socket)
        job_id = api.submit("clips", prompts=["a", "b"], num_clips=2, prompt=str(tmp_path))
        assert read_until(socket, "job:progress")[-1]["clip"] == 0
        api.http.patch(f"/api/jobs/{job_id}/plan", json={"rev": 0, "prompts": ["a", "x"]})
        steered = read_until(socket, "job:steered")[-1]
        for index in range(2):
            (tmp_path / str(index)).touch()
        messages = read_until(socket, "job:complete")
    assert steered["plan"]["prompts"] == ["a", "x"] and steered["plan"]["rev"] == 1
    first, second = [message for message in messages if message["type"] == "job:clip"]
    assert (first["index"], first["clips"], first["prompt"]) == (0, 2, "a")
    assert (second["index"], second["prompt"], second["init_bytes"]) == (1, "x", 4)
    assert first["artifact"]["url"].startswith(f"/outputs/{job_id}/clips/")
    assert [m["clip"] for m in messages if m["type"] == "job:progress"][-1] == 1


def test_a_snapshot_of_all_jobs_leaves_their_clips_out(api: Served) -> None:
    job_id = api.submit("clips")
    api.until(job_id, "completed")
    with api.ws() as socket:
        ask(socket, "subscribe", "*")
        [record] = [job for job in read(socket)["jobs"] if job["id"] == job_id]
        assert "clips" not in record and record["plan"]["num_clips"] == 3
        ask(socket, "subscribe", "*", job_id)
        [record] = [job for job in read(socket)["jobs"] if job["id"] == job_id]
        assert [clip["index"] for clip in record["clips"]] == [0, 1, 2]


def test_a_client_that_does_not_read_holds_up_nobody(api: Served) -> None:
    with api.ws(max_queue=1, close_timeout=0.1) as deaf, api.ws() as socket:
        ask(deaf, "subscribe", "*")
        ask(socket, "subscribe", "*")
        read(socket)
        for _ in range(20):
            api.submit("noop", prompt="x" * 10_000)
        for _ in range(20):
            read_until(socket, "job:complete")


def test_a_client_that_connects_again_gets_the_state(api: Served) -> None:
    job_id = api.submit("sleeper", seconds=1.0)
    with api.ws() as socket:
        ask(socket, "subscribe", job_id)
        read_until(socket, "job:progress")
    with api.ws() as socket:
        ask(socket, "subscribe", job_id)
        [job] = read(socket)["jobs"]
        assert job["status"] == "running" and job["progress"]["fraction"] > 0
        read_until(socket, "job:complete")


# --- what one client has not been sent yet -------------------------------------------------------


@pytest.fixture
def jobs(api: Served) -> Jobs:
    return api.services.jobs


def pending(client: Client) -> list[dict[str, Any]]:
    messages = []
    while (message := client.next_message()) is not None:
        messages.append(message)
    return messages


def record() -> JobRecord:
    return new_record(Job(id="j", workflow="noop", params={}))


def progress(step: int, preview: str | None = None) -> dict[str, Any]:
    event = Progress(job_id="j", stage=Stage.DENOISING, step=step, steps=9, preview=preview)
    return message_for(record(), event)


async def test_of_unsent_progress_only_the_newest_is_kept_with_the_last_preview(
    jobs: Jobs,
) -> None:
    client = Client(jobs)
    for message in (progress(1, "data:a"), progress(2, "data:b"), progress(3)):
        client.push("j", message)
    [left] = pending(client)
    assert left["step"] == 3 and left["preview"] == "data:b"


async def test_progress_after_another_message_stays_after_it(jobs: Jobs) -> None:
    client = Client(jobs)
    requeued = {"type": "job:requeued", "job_id": "j"}
    for message in (progress(1), requeued, progress(2)):
        client.push("j", message)
    assert [m.get("step", m["type"]) for m in pending(client)] == [1, "job:requeued", 2]


async def test_too_much_unsent_gives_way_to_a_snapshot(jobs: Jobs) -> None:
    client = Client(jobs)
    client.hear({"type": "subscribe", "job_ids": ["*"]})
    pending(client)
    for number in range(1000):
        client.push("j", {"type": "job:started", "number": number})
    left = pending(client)
    assert left[0]["type"] == "job:snapshot" and len(left) < 300


def test_a_stage_without_steps_is_only_named() -> None:
    event = Progress(job_id="j", stage=Stage.LOADING)
    assert stage_text(event) == "Loading"
