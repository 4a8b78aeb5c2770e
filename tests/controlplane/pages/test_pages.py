"""Pages in a simulated browser: which islands stand where, and what the form is told."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
from nicegui import ui
from nicegui.element import Element
from nicegui.testing import User

from controlplane.components import (
    Gallery,
    JobPage,
    JobsTable,
    ParamForm,
    Queue,
    Shell,
    Stage,
)
from tests.support.wait import wait_until_async

T = TypeVar("T", bound=Element)

ELEMENTS_MAX = 300
"""Of NiceGUI, a page: each change of one property draws all of them again."""


def only(user: User, kind: type[T]) -> T:
    """The one element of this kind on the page."""
    [found] = user.find(kind).elements
    return found


async def check(user: User, rev: int, values: dict[str, Any]) -> dict[str, Any]:
    """What the form is told after the user has touched `values`."""
    form = only(user, ParamForm)
    user.find(ParamForm).trigger("check", {"rev": rev, "values": values})
    await wait_until_async(lambda: form.props["view"]["rev"] == rev)
    return dict(form.props["view"])


@pytest.mark.parametrize("path", ["/", "/create/i2v"])
async def test_the_create_page_has_form_stage_and_queue(user: User, path: str) -> None:
    await user.open(path)

    assert only(user, ParamForm).props["form"]["workflow"] == "i2v"
    assert only(user, Stage).props["workflow"] == "i2v"
    await user.should_see(Queue)


@pytest.mark.parametrize(
    ("path", "kind"), [("/jobs", JobsTable), ("/jobs/some-id", JobPage), ("/gallery", Gallery)]
)
async def test_each_path_has_its_island(user: User, path: str, kind: type[Element]) -> None:
    await user.open(path)

    await user.should_see(kind)


async def test_an_unknown_workflow_says_which_there_are(user: User) -> None:
    await user.open("/create/nothing")

    await user.should_see("'nothing' is not one of i2v, svi, qwen")


async def test_an_unknown_path_is_not_found(user: User) -> None:
    answer = await user.http_client.get("/nothing-here")

    assert answer.status_code == 404


async def test_a_change_is_answered_with_the_form_s_new_state(user: User) -> None:
    await user.open("/")

    view = await check(user, 3, {"resolution": "custom", "num_frames": 80})

    assert view["fields"]["width"]["shown"]
    assert [problem["field"] for problem in view["problems"]] == ["num_frames"]
    assert view["missing"] == ("prompt", "input_image")


async def test_the_link_of_the_present_page_is_marked(user: User) -> None:
    await user.open("/jobs/some-id")

    marked = [
        link.props["href"]
        for link in user.find(ui.link).elements
        if link.props.get("aria-current") == "page"
    ]
    assert marked == ["/jobs"]


async def test_the_shell_knows_what_names_a_job_and_offers_no_sign_out_without_password(
    user: User,
) -> None:
    await user.open("/")
    shell = only(user, Shell)

    assert shell.props["workflows"]["i2v"] == {
        "title": "Image to video",
        "headline": "prompt",
        "texts": "",
        "clip": "",
        "pictures": "input_image",
    }
    clips = shell.props["workflows"]["svi"]
    assert (clips["headline"], clips["texts"], clips["clip"]) == (
        "prompts",
        "prompts",
        "continue_from",
    )
    assert shell.props["sign-out"] is False


@pytest.mark.parametrize("path", ["/", "/jobs", "/gallery"])
async def test_a_page_stays_small(user: User, path: str) -> None:
    await user.open(path)

    assert user.client is not None
    assert len(user.client.elements) < ELEMENTS_MAX


async def test_static_files_are_kept_for_ever_under_an_address_of_their_content(
    user: User,
) -> None:
    page = await user.http_client.get("/")
    address = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = await user.http_client.get(address)

    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert address.split("/")[1] == "static"
    assert len(address.split("/")[2]) == 12


async def test_the_api_is_served_beside_the_pages(user: User) -> None:
    answer = await user.http_client.get("/api/jobs")

    assert answer.json() == {"jobs": [], "next": None}
