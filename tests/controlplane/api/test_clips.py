"""Clips over REST: watch, steer, go on, make again; and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Served, serving_api
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_api(tmp_path_factory.mktemp("api")) as served:
        yield served


class Gate:
    """Lets a job of the fake clip workflow make its clips one by one."""

    def __init__(self, api: Served, folder: Path, **params: Any) -> None:
        self._api, self._folder = api, folder
        given = {"prompts": ["a", "b", "c"], "prompt": str(folder), **params}
        self.id = api.submit("clips", **given)

    def open(self, *indexes: int) -> None:
        for index in indexes:
            (self._folder / str(index)).touch()

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = self._api.http.get(f"/api/jobs/{self.id}").json()
        return found

    def being_made(self, index: int) -> dict[str, Any]:
        """The job once clip `index` is being made."""
        wait_until(lambda: self.record()["progress"]["clip"] == index)
        return self.record()

    def patch(self, **body: Any) -> Any:
        return self._api.http.patch(f"/api/jobs/{self.id}/plan", json=body)

    def ended(self) -> dict[str, Any]:
        self.open(*range(20))
        return self._api.until(self.id, "completed")

    def prompts(self) -> list[str]:
        return [clip["prompt"] for clip in self.record()["clips"]]


@pytest.fixture
def gate(api: Served, tmp_path: Path) -> Iterator[Gate]:
    made = Gate(api, tmp_path)
    yield made
    api.http.delete(f"/api/jobs/{made.id}")


def problem(answer: Any, status: int = 422) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_a_job_shows_its_plan_before_it_begins(gate: Gate) -> None:
    plan = gate.record()["plan"]
    assert (plan["prompts"], plan["num_clips"], plan["rev"]) == (["a", "b", "c"], 3, 0)


def test_coming_prompts_are_changed_appended_and_dropped(gate: Gate) -> None:
    gate.being_made(0)
    answer = gate.patch(rev=0, prompts=["a", "B", "C", "D"], num_clips=4)
    assert answer.status_code == 200
    assert answer.json()["plan"]["rev"] == 1
    gate.open(0)
    gate.being_made(1)
    assert gate.patch(rev=1, prompts=["a", "B", "C"], num_clips=3).status_code == 200
    gate.ended()
    assert gate.prompts() == ["a", "B", "C"]


def test_a_job_finishes_after_the_clip_in_the_making(gate: Gate) -> None:
    gate.being_made(0)
    assert gate.patch(rev=0, finish=True).status_code == 200
    gate.ended()
    assert gate.prompts() == ["a"]


def test_an_endless_job_can_be_given_an_end(api: Served, tmp_path: Path) -> None:
    gate = Gate(api, tmp_path, endless=True)
    gate.open(0, 1)
    gate.being_made(2)
    assert gate.patch(rev=0, num_clips=4).status_code == 200
    gate.ended()
    assert gate.prompts() == ["a", "b", "c", "c"]


def test_the_prompt_of_a_clip_that_has_begun_stays(gate: Gate) -> None:
    gate.open(0)
    gate.being_made(1)
    message = problem(gate.patch(rev=0, prompts=["a", "B", "c"]))
    assert "clip 1 is being made" in message
    assert "the first that can is that of clip 2" in message
    assert "clip 0 is made" in problem(gate.patch(rev=0, prompts=["A", "b", "c"]))
    assert gate.record()["plan"]["rev"] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"num_clips": 1}, "num_clips=1 must be from 2 to 1000, or null for no end; 2 are made"),
        ({"prompts": ["a", "b", "c", "d"]}, "4 prompts for 3 clips"),
        ({"prompts": []}, "0 prompts: send 1 to 1000"),
        ({"prompts": ["a", "b", " "]}, "number 3 is blank"),
        ({"prompts": ["a", "b", "c" * 10_001]}, "number 3 is longer than 10000"),
        ({"prompts": ["a"] * 1001}, "1001 prompts"),
        ({}, "there is nothing to change"),
        ({"prompt": "a"}, "prompt"),
        ({"finish": "yes"}, "finish"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(gate: Gate, body: dict[str, Any], said: str) -> None:
    gate.open(0)
    gate.being_made(1)
    assert said in problem(gate.patch(rev=0, **body))
    assert gate.record()["plan"]["rev"] == 0


def test_of_two_that_steer_at_once_one_is_told_what_the_other_changed(gate: Gate) -> None:
    gate.being_made(0)
    assert gate.patch(rev=0, prompts=["a", "B", "c"]).status_code == 200
    message = problem(gate.patch(rev=0, finish=True), 409)
    assert "is at rev 1, not 0: another prompt for clip 1; read it again" in message
    assert gate.patch(rev=1, finish=True).status_code == 200


def test_of_two_changes_in_the_same_moment_one_is_409(api: Served, gate: Gate) -> None:
    gate.being_made(0)
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda body: gate.patch(rev=0, **body), ({"finish": True}, {"num_clips": 9}))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert gate.record()["plan"]["rev"] == 1


def test_a_thousand_long_prompts_fit_into_a_change(gate: Gate) -> None:
    gate.being_made(0)
    prompts = ["a", *["b" * 10_000] * 999]
    assert gate.patch(rev=0, prompts=prompts, num_clips=1000).status_code == 200
    assert len(gate.record()["plan"]["prompts"]) == 1000


def test_a_list_of_jobs_has_plans_but_no_clips(api: Served, gate: Gate) -> None:
    gate.ended()
    [record] = [job for job in api.http.get("/api/jobs").json()["jobs"] if job["id"] == gate.id]
    assert "clips" not in record and record["plan"] == gate.record()["plan"]
    assert len(gate.record()["clips"]) == 3


def test_an_ended_job_can_not_be_steered(gate: Gate) -> None:
    gate.ended()
    answer = gate.patch(rev=0, finish=True)
    assert "has ended (completed)" in problem(answer, 409)
    assert answer.json()["error"]["code"] == "conflict"


def test_a_job_without_clips_has_nothing_to_steer(api: Served) -> None:
    job = api.submit("noop")
    answer = api.http.patch(f"/api/jobs/{job}/plan", json={"rev": 0, "finish": True})
    assert "workflow 'noop' makes no clips" in problem(answer)
    answer = api.http.post(f"/api/jobs/{job}/continue", json={"after": 0})
    assert "can't be continued" in problem(answer)


# --- afterwards -----------------------------------------------------------------------------------


def goes_on(api: Served, job_id: str, **body: Any) -> dict[str, Any]:
    answer = api.http.post(f"/api/jobs/{job_id}/continue", json=body)
    assert answer.status_code == 202, answer.text
    return api.until(answer.json()["job_id"], "completed")


def test_a_clip_is_made_again_and_those_after_it(api: Served, gate: Gate) -> None:
    gate.ended()
    record = goes_on(api, gate.id, after=0)
    assert record["params"]["seed"] != gate.record()["params"]["seed"]
    assert [clip["prompt"] for clip in record["clips"]] == ["a", "b", "c"]
    assert (
        record["clips"][0]["artifact"]["sha256"]
        == (gate.record()["clips"][0]["artifact"]["sha256"])
    )


def test_a_job_goes_on_from_its_end(api: Served, gate: Gate) -> None:
    gate.ended()
    record = goes_on(api, gate.id, after=2, params={"prompts": ["d", "e"], "num_clips": 2})
    assert [clip["prompt"] for clip in record["clips"]] == ["a", "b", "c", "d", "e"]
    again = goes_on(api, record["id"], after=1, params={"prompts": ["x"], "num_clips": 1})
    assert [clip["prompt"] for clip in again["clips"]] == ["a", "b", "x"]


def test_a_cancelled_job_goes_on_too(api: Served, gate: Gate) -> None:
    gate.open(0)
    gate.being_made(1)
    api.http.delete(f"/api/jobs/{gate.id}")
    api.until(gate.id, "cancelled")
    gate.open(1, 2, 3)
    assert [clip["prompt"] for clip in goes_on(api, gate.id, after=0)["clips"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"after": 7}, "after=7"),
        ({"after": -2}, "after"),
        ({"after": 0, "params": {"size": 64}}, "size=64 must be 32"),
        ({"after": 0, "params": {"go_on_from": "x"}}, "follows from `after`"),
        ({"after": 0, "params": {"nonsense": 1}}, "nonsense"),
        ({}, "after"),
    ],
)
def test_a_continuation_that_can_not_be_is_refused(
    api: Served, gate: Gate, body: dict[str, Any], said: str
) -> None:
    gate.ended()
    assert said in problem(api.http.post(f"/api/jobs/{gate.id}/continue", json=body))


def test_a_clip_of_no_job_is_refused_at_submit(api: Served) -> None:
    ref = "clip:00000000-0000-7000-8000-000000000000/0"
    answer = api.http.post("/api/workflows/clips", json={"go_on_from": ref})
    assert "there is no job 00000000-0000-7000-8000-000000000000" in problem(answer)


def test_a_clip_of_another_workflow_or_that_is_not_there_is_refused_at_submit(
    api: Served, gate: Gate
) -> None:
    gate.ended()
    other = api.submit("noop")
    for ref, said in (
        (f"clip:{other}/0", "was made with 'noop', not 'clips'"),
        (f"clip:{gate.id}/3", "clip 3 of job"),
        (f"clip:{gate.id}/3", "it has clips 0 to 2"),
    ):
        answer = api.http.post("/api/workflows/clips", json={"go_on_from": ref})
        assert said in problem(answer)
        assert answer.json()["error"]["problems"][0]["field"] == "go_on_from"


def test_a_body_that_is_wrong_is_named_at_its_field(gate: Gate) -> None:
    answer = gate.patch(rev=0, prompts=["a", 1])
    assert "prompts.1: " in problem(answer)
    assert answer.json()["error"]["problems"][0]["field"] == "prompts"
    assert "rev: " in problem(gate.patch(finish=True))


def test_a_body_that_is_no_json_is_400(api: Served, gate: Gate) -> None:
    headers = {"content-type": "application/json"}
    answer = api.http.patch(f"/api/jobs/{gate.id}/plan", content=b"{", headers=headers)
    assert "not valid JSON" in problem(answer, 400)


# --- watching -------------------------------------------------------------------------------------


def test_the_playlist_grows_until_the_job_has_ended(api: Served, gate: Gate) -> None:
    def lines() -> list[str]:
        answer = api.http.get(f"/api/jobs/{gate.id}/playlist.m3u8")
        assert answer.headers["content-type"].startswith("application/vnd.apple.mpegurl")
        return answer.text.splitlines()

    assert "#EXT-X-ENDLIST" not in lines()
    gate.open(0)
    gate.being_made(1)
    (address,) = [line for line in lines() if not line.startswith("#")]
    assert "#EXT-X-ENDLIST" not in lines()
    assert f'#EXT-X-MAP:URI="{address}",BYTERANGE="4@0"' in lines()
    playlist = f"/api/jobs/{gate.id}/playlist.m3u8"
    segment = api.http.get(str(api.http.base_url.join(playlist).join(address)))
    assert segment.content == b"INITa"
    gate.ended()
    assert len([line for line in lines() if not line.startswith("#")]) == 3
    assert lines()[-1] == "#EXT-X-ENDLIST"


def test_the_clips_so_far_are_saved_as_one_file(api: Served, gate: Gate) -> None:
    gate.open(0, 1)
    gate.being_made(2)
    answer = api.http.get(f"/api/jobs/{gate.id}/clips.mp4")
    assert answer.content == b"INITab"
    assert answer.headers["content-length"] == "6"
    assert answer.headers["content-disposition"].endswith('-clips.mp4"')


def test_a_job_without_clips_has_nothing_to_save(api: Served) -> None:
    job = api.submit("noop")
    assert "has no clips yet" in problem(api.http.get(f"/api/jobs/{job}/clips.mp4"), 404)


def test_what_a_worker_keeps_beside_a_clip_is_not_served(api: Served, gate: Gate) -> None:
    record = gate.ended()
    url = record["clips"][0]["artifact"]["url"]
    assert api.http.get(url).status_code == 200
    stem, _, _ = url.rpartition(".")
    assert api.http.get(f"{stem}.safetensors").status_code == 404
    named, _, _ = stem.rpartition(".")
    assert api.http.get(f"{named}.json").status_code == 404
