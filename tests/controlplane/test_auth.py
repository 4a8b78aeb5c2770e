"""The guard: nobody gets past it without a known host, our own origin, and credentials."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from controlplane.auth import (
    FAILURES_MAX,
    FAILURES_S,
    SESSION_S,
    Sessions,
    choose_password,
    keep_secret,
)
from controlplane.config import Settings, load_settings
from controlplane.main import create_api
from core.config import Env
from core.errors import ConfigError
from tests.support.server import Served, serving_api

PASSWORD = "correct horse"
BEARER = {"authorization": f"Bearer {PASSWORD}"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a password."""
    folder = tmp_path_factory.mktemp("closed")
    env = {"DIFFBOX_PASSWORD": PASSWORD, "DIFFBOX_PUBLIC_HOSTS": "box.example"}
    with serving_api(folder, **env) as served:
        yield served


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """On loopback without a password."""
    with serving_api(tmp_path_factory.mktemp("opened")) as served:
        yield served


def settings(**env: str) -> Settings:
    return load_settings(Env(env))


# --- credentials -------------------------------------------------------------------------------


def test_every_route_answers_401_without_credentials(closed: Served) -> None:
    public = {"/login", "/api/health", "/ws"}
    routes = list(iter_route_contexts(create_api(closed.services).routes))
    paths = {route.path for route in routes if route.path} - public
    assert "/api/jobs/{job_id}" in paths and "/openapi.json" in paths and len(paths) > 10
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            answer = httpx.request(method, closed.url + path)
            assert answer.status_code == 401, (method, path)


def test_the_websocket_answers_401_without_credentials(closed: Served) -> None:
    for path in ("/ws", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", "/other"):
        with pytest.raises(InvalidStatus) as caught:
            connect(closed.url.replace("http", "ws") + path)
        assert caught.value.response.status_code == 401


def test_a_bearer_token_opens_rest_and_websocket(closed: Served) -> None:
    assert closed.http.get("/api/jobs", headers=BEARER).status_code == 200
    with closed.ws(additional_headers=BEARER) as connection:
        connection.send('{"type": "subscribe", "job_ids": ["*"]}')
        assert "job:snapshot" in str(connection.recv(timeout=5))


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer", "Basic eDp5", "Bearer ä"])
def test_a_wrong_token_is_401(closed: Served, value: str) -> None:
    headers = {b"authorization": value.encode()}
    assert httpx.get(closed.url + "/api/jobs", headers=headers).status_code == 401


def test_a_person_is_led_to_the_sign_in_page_and_back(closed: Served) -> None:
    headers = {"accept": "text/html"}
    answer = httpx.get(closed.url + "/jobs?a=1", headers=headers)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fjobs%3Fa%3D1"


# --- where a request comes from ----------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "["]
)
def test_an_unknown_host_is_421(opened: Served, host: str) -> None:
    assert opened.http.get("/api/health", headers={"host": host}).status_code == 421


def test_an_unknown_host_gets_no_websocket(opened: Served) -> None:
    port = opened.url.rpartition(":")[2]
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://evil.example:{port}/ws", sock=socket.create_connection(("127.0.0.1", port)))
    assert caught.value.response.status_code == 421


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9", "LOCALHOST"])
def test_a_name_of_this_computer_is_a_known_host(opened: Served, host: str) -> None:
    assert opened.http.get("/api/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "x", "http://["]
)
def test_another_origin_may_neither_change_anything_nor_listen(opened: Served, origin: str) -> None:
    answer = opened.http.post("/api/workflows/noop", json={}, headers={"origin": origin})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "cross_origin"
    with pytest.raises(InvalidStatus) as caught:
        opened.ws(additional_headers={"Origin": origin})
    assert caught.value.response.status_code == 403


def test_our_own_origin_and_none_are_taken(opened: Served) -> None:
    for headers in ({"origin": opened.url}, {}):
        answer = opened.http.post("/api/workflows/noop", json={}, headers=headers)
        assert answer.status_code == 202
    with opened.ws(additional_headers={"Origin": opened.url}) as connection:
        assert connection.ping()


def test_a_public_name_is_a_known_origin_although_a_proxy_changes_the_host(
    closed: Served,
) -> None:
    headers = {**BEARER, "origin": "https://box.example"}
    answer = closed.http.post("/api/workflows/noop", json={}, headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_not_fetch_even_what_changes_nothing(opened: Served, site: str) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert opened.http.get("/api/jobs", headers=headers).status_code == 403
    assert opened.http.post("/login", headers=headers).status_code == 403


def test_a_link_on_another_site_may_lead_here(opened: Served) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert opened.http.get("/api/jobs", headers=headers).status_code == 200


# --- what is sent ------------------------------------------------------------------------------


def test_a_body_without_a_length_is_cut_at_the_limit(opened: Served) -> None:
    answer = opened.http.post("/login", content=(b"a" * 100_000 for _ in range(11)))
    assert answer.status_code == 413 and "1 MB" in answer.text


def test_answers_have_safe_headers(opened: Served) -> None:
    for path in ("/api/health", "/login", "/api/nothing"):
        headers = opened.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "same-origin"
    assert opened.http.get("/api/jobs").headers["cache-control"] == "no-store"


def test_refusals_have_safe_headers_too(closed: Served) -> None:
    headers = httpx.get(closed.url + "/api/jobs").headers
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


# --- sessions and passwords --------------------------------------------------------------------


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_cookie_holds_until_it_expires() -> None:
    sessions = Sessions(password="a", key="k", clock=(clock := Clock()))
    cookie = sessions.new_cookie()
    assert sessions.cookie_holds(cookie)
    clock.now += SESSION_S
    assert not sessions.cookie_holds(cookie)


def test_a_changed_cookie_does_not_hold() -> None:
    sessions = Sessions(password="a", key="k")
    expires, _, signature = sessions.new_cookie().partition(".")
    later = str(int(expires) + 1)
    for forged in (
        f"{later}.{signature}",
        f"{expires}.{signature[:-1]}0x",
        expires,
        "",
        ".",
        "ä.ä",
    ):
        assert not sessions.cookie_holds(forged)


def test_a_new_password_and_a_new_key_end_all_sessions() -> None:
    cookie = Sessions(password="a", key="k").new_cookie()
    assert not Sessions(password="b", key="k").cookie_holds(cookie)
    assert not Sessions(password="a", key="l").cookie_holds(cookie)


def test_who_guesses_too_often_has_to_wait() -> None:
    sessions = Sessions(password="a", key="k", clock=(clock := Clock()))
    for _ in range(FAILURES_MAX):
        assert sessions.wait_s("1.2.3.4") == 0
        assert not sessions.password_holds("wrong", "1.2.3.4")
    assert 0 < sessions.wait_s("1.2.3.4") <= FAILURES_S and sessions.wait_s("5.6.7.8") == 0
    clock.now += FAILURES_S
    assert sessions.wait_s("1.2.3.4") == 0


def test_guessing_by_bearer_token_is_429_after_a_while(tmp_path: Path) -> None:
    with serving_api(tmp_path, DIFFBOX_PASSWORD=PASSWORD) as served:
        wrong = {"authorization": "Bearer wrong"}
        seen = [served.http.get("/api/jobs", headers=wrong) for _ in range(FAILURES_MAX + 1)]
        right = served.http.get("/api/jobs", headers=BEARER)
        wrong_again = served.http.get("/api/jobs", headers=wrong)
    assert [answer.status_code for answer in seen] == [401] * FAILURES_MAX + [429]
    assert int(seen[-1].headers["retry-after"]) > 0
    assert right.status_code == 200, "behind a proxy, others have the same address"
    assert wrong_again.status_code == 429


def test_a_secret_is_made_once_and_only_we_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "auth" / "key"
    assert keep_secret(path, lambda: "first") == ("first", True)
    assert keep_secret(path, lambda: "second") == ("first", False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b" \n", b"\0" * 24, b"\xff\xfe"])
def test_a_secret_that_was_lost_with_the_power_is_made_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty key would sign cookies that anybody can make."""
    path = tmp_path / "session.key"
    path.write_bytes(content)
    assert keep_secret(path, lambda: "anew") == ("anew", True)
    assert path.read_text() == "anew" and "damaged" in caplog.text
    assert [found.name for found in tmp_path.iterdir()] == ["session.key"]


def test_a_secret_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "key", []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    keep_secret(path, lambda: "x")
    assert synced == [False]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="DIFFBOX_DATA_DIR"):
        keep_secret(tmp_path / "file" / "key", lambda: "x")


def test_loopback_needs_no_password(tmp_path: Path) -> None:
    assert choose_password(replace(settings(), data_dir=tmp_path)) == ("", False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env", [{"DIFFBOX_HOST": "0.0.0.0"}, {"RUNPOD_POD_ID": "abc"}])
def test_a_public_page_without_a_password_gets_one_that_stays(
    tmp_path: Path, env: dict[str, str]
) -> None:
    public = replace(settings(**env), data_dir=tmp_path)
    password, made_now = choose_password(public)
    assert made_now and len(password) >= 20
    assert choose_password(public) == (password, False)


def test_a_public_page_refuses_a_short_password(tmp_path: Path) -> None:
    public = settings(DIFFBOX_HOST="0.0.0.0", DIFFBOX_PASSWORD="short")
    with pytest.raises(ConfigError, match="DIFFBOX_PASSWORD"):
        choose_password(replace(public, data_dir=tmp_path))


def test_a_short_password_in_the_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "password").write_text("short")
    with pytest.raises(ConfigError, match="auth/password"):
        choose_password(replace(settings(DIFFBOX_HOST="0.0.0.0"), data_dir=tmp_path))
