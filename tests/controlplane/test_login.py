"""The sign-in page."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from controlplane.auth import FAILURES_MAX
from tests.support.server import Served, serving_api

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_api(tmp_path_factory.mktemp("closed"), DIFFBOX_PASSWORD=PASSWORD) as served:
        yield served


def sign_in(served: Served, password: str, **options: str) -> httpx.Response:
    form = {"password": password, "next": options.pop("next", "/")}
    return httpx.post(served.url + "/login", data=form, headers=options)


def test_the_right_password_opens_the_api_by_a_cookie(closed: Served) -> None:
    answer = sign_in(closed, PASSWORD, next="/jobs?a=1")
    assert answer.status_code == 303 and answer.headers["location"] == "/jobs?a=1"
    assert httpx.get(closed.url + "/api/jobs", cookies=answer.cookies).status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(closed: Served) -> None:
    cookie = sign_in(closed, PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "; secure" not in cookie


def test_behind_https_the_cookie_is_bound_to_this_host(closed: Served) -> None:
    answer = sign_in(closed, PASSWORD, **{"x-forwarded-proto": "https"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-diffbox=") and "Secure" in cookie and "Path=/" in cookie


def test_a_wrong_password_is_401_and_sets_nothing(closed: Served) -> None:
    answer = sign_in(closed, "wrong")
    assert answer.status_code == 401 and 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers


def test_the_right_password_opens_although_the_address_has_to_wait(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Behind a proxy, the one who guesses has the same address."""
    with serving_api(tmp_path_factory.mktemp("guessed"), DIFFBOX_PASSWORD=PASSWORD) as served:
        answers = [sign_in(served, "wrong").status_code for _ in range(FAILURES_MAX + 1)]
        assert answers == [401] * FAILURES_MAX + [429]
        assert sign_in(served, PASSWORD).status_code == 303


def test_a_tampered_cookie_is_401(closed: Served) -> None:
    [(name, value)] = sign_in(closed, PASSWORD).cookies.items()
    answer = httpx.get(closed.url + "/api/jobs", cookies={name: "9" + value})
    assert answer.status_code == 401


def test_signing_out_takes_the_cookie_away(closed: Served) -> None:
    cookies = sign_in(closed, PASSWORD).cookies
    answer = httpx.post(closed.url + "/logout", cookies=cookies)
    assert answer.status_code == 303 and "Max-Age=0" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:x",
        "jobs",
        "http://[",
    ],
)
def test_the_way_back_never_leads_elsewhere(closed: Served, target: str) -> None:
    assert sign_in(closed, PASSWORD, next=target).headers["location"] == "/"
    page = httpx.get(closed.url + "/login", params={"next": target})
    assert page.status_code == 200 and 'name="next" value="/"' in page.text


def test_the_page_is_accessible_without_scripts(closed: Served) -> None:
    page = httpx.get(closed.url + "/login?next=/jobs%22%3E%3Cscript%3E").text
    assert '<label for="password">' in page and "<script" not in page
    assert 'lang="en"' in page and 'autocomplete="current-password"' in page


def test_without_a_password_there_is_nothing_to_sign_in_to(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving_api(tmp_path_factory.mktemp("open")) as served:
        assert served.http.get("/login").headers["location"] == "/"
