"""Jobs over REST: list, page, filter, look at, cancel, events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import Served, serving_api
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_api(tmp_path_factory.mktemp("api")) as served:
        yield served


def test_a_completed_job_shows_its_artifacts_under_outputs(api: Served) -> None:
    record = api.until(api.submit("sleeper", seconds=0.1), "completed")
    video = record["artifacts"][0]
    assert video["url"].startswith(f"/outputs/{record['id']}/1/")
    assert record["progress"]["fraction"] == 1.0 and record["preview"] is None
    assert record["started_at"] < record["finished_at"] and record["worker"] == "memory"


def test_a_failed_job_shows_its_error(api: Served) -> None:
    record = api.until(api.submit("raiser", prompt="out_of_memory"), "failed")
    assert record["error"]["code"] == "out_of_memory" and record["error"]["message"]


def test_pages_go_from_newest_to_oldest_without_a_gap(api: Served) -> None:
    ids = [api.submit("noop") for _ in range(7)]
    seen: list[str] = []
    cursor = None
    for _ in range(4):
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/api/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
    assert seen[:7] == sorted(ids, reverse=True)


def test_the_last_page_has_no_next(api: Served) -> None:
    api.submit("noop")
    page = api.http.get("/api/jobs?limit=200").json()
    assert page["next"] is None and page["jobs"]


def test_jobs_can_be_filtered_by_status(api: Served) -> None:
    failed = api.submit("raiser")
    api.until(failed, "failed")
    page = api.http.get("/api/jobs?status=failed").json()
    assert failed in [job["id"] for job in page["jobs"]]
    assert {job["status"] for job in page["jobs"]} == {"failed"}


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "status=done"])
def test_a_wrong_query_is_422_and_names_the_parameter(api: Served, query: str) -> None:
    answer = api.http.get(f"/api/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["problems"][0]["field"] == query.partition("=")[0]


def test_a_running_job_is_cancelled_and_shows_that_it_was_asked_to(api: Served) -> None:
    job_id = api.submit("sleeper", seconds=60, steps=600)
    api.until(job_id, "running")
    answer = api.http.delete(f"/api/jobs/{job_id}")
    assert answer.status_code == 200 and answer.json()["cancel_requested"]
    assert api.until(job_id, "cancelled")["finished_at"]


def test_cancelling_an_ended_job_changes_nothing(api: Served) -> None:
    job_id = api.submit("noop")
    before = api.until(job_id, "completed")
    assert api.http.delete(f"/api/jobs/{job_id}").json() == before


def test_an_unknown_job_is_404(api: Served) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = api.http.request(method, f"/api/jobs/nobody{path}")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_events_can_be_read_from_the_start_and_from_a_cursor(api: Served) -> None:
    job_id = api.submit("sleeper", seconds=0.1)
    api.until(job_id, "completed")
    told = wait_until(lambda: api.http.get(f"/api/jobs/{job_id}/events").json())
    assert [told["events"][i]["type"] for i in (0, 1, -1)] == ["queued", "started", "completed"]
    assert told["events"][-1]["artifacts"][0]["url"].startswith("/outputs/")
    after = told["events"][0]["cursor"]
    rest = api.http.get(f"/api/jobs/{job_id}/events", params={"after": after}).json()
    assert rest["events"] == told["events"][1:] and rest["next"] == told["next"]
    last = api.http.get(f"/api/jobs/{job_id}/events", params={"after": told["next"]}).json()
    assert last == {"events": [], "next": told["next"]}
