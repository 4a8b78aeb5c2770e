"""Submitting over REST, and what is told about workflows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from core.workflows import workflows
from tests.support.pictures import encoded, gradient
from tests.support.server import Served, serving_api


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_api(tmp_path_factory.mktemp("api")) as served:
        yield served


def problems(answer: Any) -> dict[str, str]:
    return {p["field"]: p["message"] for p in answer.json()["error"]["problems"]}


def test_a_submitted_job_is_answered_with_its_id_and_complete_params(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={"prompt": "a cat"})
    body = answer.json()
    assert answer.status_code == 202 and body["status"] == "queued"
    assert body["url"] == answer.headers["location"] == f"/api/jobs/{body['job_id']}"
    assert body["params"]["prompt"] == "a cat" and isinstance(body["params"]["seed"], int)
    assert api.until(body["job_id"], "completed")["params"] == body["params"]


def test_the_lane_is_a_query_parameter(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop?lane=high", json={})
    assert api.job(answer.json()["job_id"])["lane"] == "high"
    assert api.http.post("/api/workflows/noop?lane=fast", json={}).status_code == 422


def test_every_rejected_value_is_named_with_its_field(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={"steps": 0, "seconds": "x", "promt": "a"})
    assert answer.status_code == 422
    found = problems(answer)
    assert set(found) == {"steps", "seconds", "promt"}
    assert "did you mean 'prompt'" in found["promt"]


def test_a_prompt_of_one_megabyte_is_a_problem_of_the_field_prompt(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={"prompt": "a" * 1_000_000})
    assert answer.status_code == 422 and "10000" in problems(answer)["prompt"]
    assert len(answer.content) < 1000


@pytest.mark.parametrize("body", [b"{", b"", b'{"seed": NaN}', b'"\\ud800"', b"\xff"])
def test_a_body_that_is_not_json_is_400(api: Served, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = api.http.post("/api/workflows/noop", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "bad_request"


def test_a_body_that_is_no_object_is_400(api: Served) -> None:
    assert api.http.post("/api/workflows/noop", json=[1]).status_code == 400


def test_a_body_of_another_type_is_415(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", data={"prompt": "a"})
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]


def test_a_body_over_twelve_megabytes_is_413(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={"prompt": "a" * 12_000_001})
    assert answer.status_code == 413 and "12 MB" in answer.json()["error"]["message"]


def test_ten_thousand_unknown_parameters_are_refused_at_once(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={f"a{i}": 1 for i in range(10_000)})
    assert answer.status_code == 422


def test_an_unknown_workflow_is_404_and_names_those_that_exist(api: Served) -> None:
    answer = api.http.post("/api/workflows/nothing", json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_workflow"
    assert "noop" in answer.json()["error"]["message"]


def test_an_upload_that_is_not_here_is_a_problem_of_its_field(api: Served) -> None:
    answer = api.http.post("/api/workflows/noop", json={"input_image": f"upload:{'0' * 64}"})
    assert answer.status_code == 422 and "upload it again" in problems(answer)["input_image"]


def test_a_data_uri_becomes_an_upload_and_never_enters_the_queue(api: Served) -> None:
    uri = "data:image/png;base64," + base64.b64encode(encoded(gradient())).decode()
    answer = api.http.post("/api/workflows/noop", json={"input_image": uri})
    ref = answer.json()["params"]["input_image"]
    assert answer.status_code == 202 and ref.startswith("upload:")
    assert api.http.get("/api/uploads/" + ref.partition(":")[2]).content == encoded(gradient())


def test_a_data_uri_that_is_no_picture_is_a_problem_of_its_field(api: Served) -> None:
    uri = "data:image/png;base64," + base64.b64encode(b"not a picture").decode()
    answer = api.http.post("/api/workflows/noop", json={"input_image": uri})
    assert answer.status_code == 422 and "not a PNG" in problems(answer)["input_image"]


def test_a_model_that_no_worker_has_is_409(api: Served) -> None:
    raw = {"prompt": "x", "input_image": "https://example.org/a.png", "model": "wan2.2-i2v-a14b"}
    answer = api.http.post("/api/workflows/i2v", json=raw)
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "model_missing"


def test_all_workflows_are_listed_with_schema_models_and_what_is_ready(api: Served) -> None:
    listed = {w["id"]: w for w in api.http.get("/api/workflows").json()["workflows"]}
    assert set(listed) == {recipe.id for recipe in workflows()}
    i2v = listed["i2v"]
    assert i2v["params"]["properties"]["prompt"]["x-diffbox"]["tier"] == "basic"
    demo = next(model for model in i2v["models"] if model["demo"])
    assert demo["ready"] and demo["defaults"]["num_frames"] == 17


def test_openapi_has_one_typed_route_a_workflow(api: Served) -> None:
    paths = api.http.get("/openapi.json").json()["paths"]
    for recipe in workflows():
        body = paths[f"/api/workflows/{recipe.id}"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == set(recipe.params.model_fields)
    assert not [path for path in paths if "{workflow" in path or "{rest" in path]


def test_an_unknown_path_of_the_api_is_404_in_json(api: Served) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = api.http.request(method, "/api/nothing/here")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("model", "given", "able"),
    [
        ("wan-demo", {"tea_cache_l1_thresh": 0.1}, ("wan2.1-i2v-14b-480p", "wan-demo-2.1")),
        ("wan-demo", {"camera_direction": "left"}, ("wan2.2-fun-a14b-control-camera",)),
        ("wan-demo", {"motion_bucket_id": 5}, ("wan2.1-t2v-1.3b-speed", "wan-demo-speed")),
        ("wan-demo-2.1", {"step_cache": 0.1}, ("wan2.2-i2v-a14b", "wan-demo")),
    ],
)
def test_what_the_model_cant_use_is_422_and_names_the_models_that_can(
    api: Served, model: str, given: dict[str, Any], able: tuple[str, ...]
) -> None:
    raw = {"prompt": "x", "input_image": "https://example.org/a.png", "model": model, **given}
    answer = api.http.post("/api/workflows/i2v", json=raw)
    assert answer.status_code == 422
    [(field, message)] = problems(answer).items()
    assert field in given
    assert set(able) <= set(message.partition("models that can: ")[2].split(", "))
