"""Jobs that make clips: watched, steered and gone on from, on the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import READY, OpenPage
from tests.e2e.page_process import PageProcess
from tests.e2e.screen import PHOTO, clips, drop, field, generate, open_job, plan, stage, write
from tests.e2e.test_look import PHONE, violations

DEMO_MS = 240_000
"""The demo model on a busy computer without a GPU."""


class Gate:
    """A job of the fake clip workflow: clip i is made once `open(i)` was called.

    Its clips are no videos, so that nothing of them plays.
    """

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self.page, self.url, self.folder = page, url, folder
        self.id = ""

    async def submit(self, **params: Any) -> None:
        given = {"prompts": ["a", "b", "c"], "prompt": str(self.folder), **params}
        answer = await self.page.request.post(f"{self.url}/api/workflows/clips", data=given)
        self.id = (await answer.json())["job_id"]

    def open(self, *indexes: int) -> None:
        for index in indexes:
            (self.folder / str(index)).touch()

    async def plan(self) -> dict[str, Any]:
        answer = await self.page.request.get(f"{self.url}/api/jobs/{self.id}")
        found: dict[str, Any] = (await answer.json())["plan"]
        return found

    async def patch(self, **change: Any) -> None:
        """As another tab would."""
        rev = (await self.plan())["rev"]
        data = {"rev": rev, **change}
        answer = await self.page.request.patch(f"{self.url}/api/jobs/{self.id}/plan", data=data)
        assert answer.ok, await answer.text()

    async def being_made(self, number: int) -> None:
        await expect(plan(self.page).locator(".begun .now")).to_contain_text(str(number))

    def clip(self, number: int) -> Any:
        return plan(self.page).get_by_role("textbox", name=f"Clip {number}")

    async def save(self) -> None:
        await plan(self.page).get_by_role("button", name="Save", exact=True).click()
        await expect(plan(self.page).get_by_text("Not saved")).to_have_count(0)


@asynccontextmanager
async def steering(
    stack: PageProcess, open_page: OpenPage, folder: Path, **params: Any
) -> AsyncIterator[Gate]:
    """The page of a job that makes its first clip; cancelled afterwards."""
    async with open_page(stack.url, quiet=False) as page:
        gate = Gate(page, stack.url, folder)
        await gate.submit(**params)
        await open_job(page, stack.url, gate.id)
        await gate.being_made(1)
        yield gate
        await page.request.delete(f"{stack.url}/api/jobs/{gate.id}")


async def test_coming_clips_are_changed_added_and_dropped(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    async with steering(stack, open_page, tmp_path) as gate:
        await gate.clip(2).fill("B")
        await plan(gate.page).get_by_role("button", name="Add a clip").click()
        await gate.page.keyboard.type("D")
        await expect(gate.page.get_by_label("Clips in all")).to_have_value("4")
        await gate.save()
        saved = await gate.plan()
        assert (saved["prompts"], saved["num_clips"], saved["rev"]) == (["a", "B", "c", "D"], 4, 1)
        await plan(gate.page).get_by_role("button", name="Remove clip 3").click()
        await gate.save()
        assert (await gate.plan())["prompts"] == ["a", "B", "D"]
        gate.open(0)
        await gate.being_made(2)
        await expect(gate.clip(2)).to_have_count(0)
        await expect(clips(gate.page).get_by_role("button", name="Clip 1: a")).to_be_visible()


async def test_what_is_not_saved_survives_what_another_tab_saves(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    async with steering(stack, open_page, tmp_path) as gate:
        panel = plan(gate.page)
        await gate.clip(3).fill("mine")
        await gate.patch(prompts=["a", "theirs", "c"])
        await expect(panel).to_contain_text("This was changed elsewhere meanwhile")
        await expect(panel).to_contain_text("Another prompt for clip 2.")
        await expect(gate.clip(3)).to_have_value("mine")
        await panel.get_by_role("button", name="Save mine all the same").click()
        await expect(panel.get_by_text("Not saved")).to_have_count(0)
        assert (await gate.plan())["prompts"] == ["a", "b", "mine"]
        await gate.clip(3).fill("other")
        await gate.patch(num_clips=5)
        await panel.get_by_role("button", name="Take those changes").click()
        await expect(gate.clip(3)).to_have_value("mine")
        await expect(gate.page.get_by_label("Clips in all")).to_have_value("5")


async def test_what_was_written_for_a_clip_that_begins_is_for_the_next_one(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    async with steering(stack, open_page, tmp_path, num_clips=9) as gate:
        await gate.clip(2).fill("late")
        gate.open(0)
        await gate.being_made(2)
        await expect(plan(gate.page)).to_contain_text("Clip 2 began before this was saved.")
        await expect(gate.clip(3)).to_have_value("late")
        await gate.save()
        assert (await gate.plan())["prompts"] == ["a", "b", "late", "c"]


async def test_a_clip_that_a_cancel_has_stopped_comes_back_before_what_was_written(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    async with steering(stack, open_page, tmp_path) as gate:
        gate.open(0)
        await gate.being_made(2)
        await gate.clip(3).fill("mine")
        await gate.page.get_by_role("button", name="Cancel").click()
        await expect(plan(gate.page)).to_contain_text("The job has ended")
        await expect(gate.clip(2)).to_have_value("b")
        await expect(gate.clip(3)).to_have_value("mine")


async def test_an_endless_job_tells_no_share_and_finishes_when_it_is_told(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    async with steering(stack, open_page, tmp_path, endless=True) as gate:
        page = gate.page
        await expect(page.get_by_text("Clip 1 · Denoising")).to_be_visible()
        bar = page.get_by_role("progressbar")
        await expect(bar).not_to_have_attribute("aria-valuenow", "0")
        assert "%" not in await page.title()
        await plan(page).get_by_role("button", name="Finish after this clip").click()
        await expect(plan(page)).to_contain_text("It ends after clip 1.")
        await gate.clip(2).fill("for another one")
        gate.open(0)
        await expect(plan(page)).to_contain_text("The job has ended")
        await page.get_by_role("button", name="Go on with it in a new job").click()
        await page.wait_for_url("**/create/clips*")
        await expect(field(page, "go_on_from")).to_contain_text("after clip 1")
        await expect(page.get_by_role("textbox", name="Clip 2")).to_have_value("for another one")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
async def test_a_cancelled_job_keeps_its_clips_and_all_of_it_is_accessible(
    stack: PageProcess, open_page: OpenPage, tmp_path: Path, options: dict[str, Any]
) -> None:
    async with open_page(stack.url, quiet=False, **options) as page:
        gate = Gate(page, stack.url, tmp_path)
        await gate.submit()
        gate.open(0)
        await open_job(page, stack.url, gate.id)
        await gate.being_made(2)
        await gate.clip(3).fill("")
        await plan(page).get_by_role("button", name="Save", exact=True).click()
        found = await violations(page)
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_text("What was made until then is kept.")).to_be_visible()
        await expect(page.get_by_role("link", name="Download so far")).to_be_visible()
        await clips(page).get_by_role("button", name="Clip 1: a").click()
        found += await violations(page)
        assert not found
        await page.get_by_role("button", name="Make this clip again").click()
        await page.wait_for_function("id => !location.pathname.endsWith(id)", arg=gate.id)
        again = page.url.rpartition("/")[2]
        job = await (await page.request.get(f"{stack.url}/api/jobs/{again}")).json()
        assert job["params"]["prompts"] == ["a", "b", "c"]
        await page.request.delete(f"{stack.url}/api/jobs/{again}")


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_clips_are_watched_while_others_are_made_and_gone_on_from(
    demo_stack: PageProcess, open_page: OpenPage
) -> None:
    async with open_page(f"{demo_stack.url}/create/svi") as page:
        await page.get_by_role("textbox", name="Clip 1").fill("A boat leaves")
        await page.get_by_role("button", name="Add a clip").click()
        await page.get_by_role("textbox", name="Clip 2").fill("It passes a lighthouse")
        await write(page, "num_clips", "3")
        await drop(page, "input_image", PHOTO, "image/jpeg")
        await expect(field(page, "input_image")).to_contain_text("960 × 640")
        await page.get_by_label("Resolution", exact=True).select_option("144x256")
        await page.get_by_role("radio", name="Advanced").check()
        await write(page, "num_frames", "9")
        await write(page, "num_inference_steps", "2")
        job_id = await generate(page)
        # 1. The first clip plays while the second one is made.
        film = stage(page).get_by_label("Video so far")
        await expect(film).to_be_visible(timeout=DEMO_MS)
        await page.wait_for_function("document.querySelector('.film video').currentTime > 0.1")
        await expect(stage(page).get_by_role("progressbar")).to_be_visible()
        # 2. What comes is changed, then told to end.
        await page.get_by_role("link", name="Steer").click()
        await page.wait_for_url("**/jobs/*")
        await plan(page).get_by_role("button", name="Finish after this clip").click()
        await expect(page.locator(".badge.completed")).to_be_visible(timeout=DEMO_MS)
        # 3. The finished video plays, and each clip alone.
        await page.reload()
        await page.wait_for_function(READY)
        video = page.get_by_label("Video: A boat leaves")
        await expect(video).to_be_visible()
        await page.wait_for_function("document.querySelector('.film video').currentTime > 0.1")
        await clips(page).get_by_role("button", name="Clip 1: A boat leaves").click()
        await page.wait_for_function("document.querySelector('.film video').currentTime > 0.1")
        # 4. Another job goes on from it.
        await page.get_by_role("button", name="Go on from here").click()
        await page.wait_for_url("**/create/svi*")
        await expect(field(page, "continue_from")).to_contain_text("after clip 1")
        await page.get_by_role("textbox", name="Clip 2").fill("It sinks")
        await write(page, "num_clips", "1")
        other = await generate(page)
        assert other != job_id
        await expect(clips(page).get_by_role("button", name="Clip 2: It sinks")).to_be_visible(
            timeout=DEMO_MS
        )
