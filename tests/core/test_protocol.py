"""What crosses a process survives older and newer readers."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import DiffboxError, InputRejected, InvalidParams, Problem
from core.protocol import (
    Artifact,
    Cancelled,
    Clip,
    Completed,
    Event,
    Failed,
    Job,
    Progress,
    Queued,
    Requeued,
    Stage,
    Started,
    failed,
    is_terminal,
    new_job_id,
    parse_event,
)
from tests.support.wait import wait_until

ARTIFACT = Artifact(
    kind="video",
    media_type="video/mp4",
    filename="a.mp4",
    size_bytes=1,
    sha256="0" * 64,
    width=16,
    height=16,
    frames=5,
    fps=16.0,
    url="j/1/a.mp4",
)
EVENTS: list[Event] = [
    Queued(job_id="j"),
    Started(job_id="j", worker="w"),
    Progress(job_id="j", stage=Stage.DENOISING, step=1, steps=4, fraction=0.3, eta_s=2.5),
    Clip(job_id="j", index=0, clips=3, artifact=ARTIFACT),
    Completed(job_id="j", artifacts=(ARTIFACT,), metrics={"seed": 1}),
    Failed(job_id="j", code="internal", message="no"),
    Cancelled(job_id="j"),
    Requeued(job_id="j", reason="worker lost"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_every_event_survives_the_wire(event: Event) -> None:
    assert parse_event(event.model_dump_json()) == event


def test_a_field_from_a_newer_version_is_ignored() -> None:
    raw = {**Queued(job_id="j").model_dump(mode="json"), "colour": "new"}
    assert isinstance(parse_event(raw), Queued)


def test_an_event_type_from_a_newer_version_is_none() -> None:
    assert parse_event({"type": "teleported", "job_id": "j"}) is None


def test_a_malformed_event_is_an_error() -> None:
    with pytest.raises(ValidationError):
        parse_event({"type": "failed", "job_id": "j"})


def test_a_stored_older_job_still_parses() -> None:
    job = Job.model_validate({"id": "j", "workflow": "i2v", "params": {}})
    assert (job.lane, job.attempt) == ("normal", 0)


def test_only_three_events_end_a_job() -> None:
    ends = {event.type for event in EVENTS if is_terminal(event)}
    assert ends == {"completed", "failed", "cancelled"}


def test_job_ids_are_uuid7_and_tell_their_time() -> None:
    value = uuid.UUID(new_job_id())
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    made = datetime.fromtimestamp((value.int >> 80) / 1000, UTC)
    assert abs((datetime.now(UTC) - made).total_seconds()) < 60


def test_job_ids_sort_by_the_order_in_which_they_were_made() -> None:
    ids = []
    for _ in range(200):
        began = time.monotonic_ns()
        ids.append(new_job_id())
        wait_until(lambda since=began: time.monotonic_ns() - since > 1000)  # type: ignore[misc]
    assert ids == sorted(ids)


def test_an_expected_error_keeps_its_code_and_field() -> None:
    error = InputRejected("bad", problems=(Problem(field="input_image", message="bad"),))
    event = failed("j", error)
    assert (event.code, event.field, event.retryable) == ("input_rejected", "input_image", False)


def test_an_unexpected_error_is_internal() -> None:
    assert failed("j", KeyError("x")).code == "internal"


@given(st.text())
def test_parse_event_never_breaks_on_a_foreign_type(kind: str) -> None:
    known = {event.type for event in EVENTS}
    if kind not in known:
        assert parse_event({"type": kind, "job_id": "j"}) is None


def test_every_error_class_has_its_own_code() -> None:
    classes = DiffboxError.__subclasses__()
    codes = {cls.code for cls in classes if cls.__module__ == InvalidParams.__module__}
    ours = [cls for cls in classes if cls.__module__ == InvalidParams.__module__]
    assert len(codes) == len(ours)
