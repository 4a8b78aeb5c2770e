"""/api/health."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.support.server import serving_api
from tests.support.wait import wait_until


def test_health_tells_the_backend_its_queues_and_workers(tmp_path: Path) -> None:
    with serving_api(tmp_path) as api:
        wait_until(lambda: api.http.get("/api/health").json()["workers"][0]["state"] == "ready")
        health = api.http.get("/api/health").json()
    assert health["status"] == "ok" and health["version"] and health["uptime_s"] >= 0
    assert health["backend"] == {
        "name": "memory",
        "reachable": True,
        "queues": {"high": 0, "normal": 0, "low": 0},
    }


def test_health_without_a_password_says_only_that_we_serve(tmp_path: Path) -> None:
    with serving_api(tmp_path, DIFFBOX_PASSWORD="secret") as api:
        assert httpx.get(api.url + "/api/health").json() == {"status": "ok"}
        signed_in = httpx.get(api.url + "/api/health", headers={"authorization": "Bearer secret"})
        assert signed_in.json()["workers"]


def test_health_is_degraded_while_the_queue_is_away(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    with serving_api(tmp_path, DIFFBOX_BACKEND="valkey", DIFFBOX_VALKEY_URL=url) as api:
        health = api.http.get("/api/health").json()
        assert health["status"] == "degraded" and health["backend"]["queues"] == {}
        assert health["workers"] == []
        answer = api.http.post("/api/workflows/noop", json={})
        assert answer.status_code == 503 and answer.json()["error"]["retryable"]
        assert api.http.get("/api/jobs").json() == {"jobs": [], "next": None}
